"""InfoNCE: the formula, cuts of a step that change nothing, and texts that are no negatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from modelwright.data.codecs import fit_codec, texts
from modelwright.data.sources import read_rows
from modelwright.models.encoder import Config
from modelwright.objectives import beside
from modelwright.objectives.contrastive import Objective
from modelwright.tasks.task import make_task
from modelwright.types import Columns, Example, Shortened, stack, take, text_turn

PAIRS = [
    ("the red house", "a house that is red", ["a blue boat", "red"]),
    ("two boats", "boats, and there are two", []),
    ("the red house", "a crimson building", ["two boats"]),
    ("a mill", "boats, and there are two", ["a windmill stands"]),
    ("rain", "it rains", []),
    ("snow in May", "late snow", ["it rains"]),
]


def example(query: str, answer: str, negatives: Sequence[str]) -> Example:
    others = [text_turn("document", text) for text in negatives]
    return Example((text_turn("user", query), *others, text_turn("assistant", answer, learn=True)))


@cache
def setting() -> tuple[texts.Codec, Columns, nn.Module]:
    examples = [example(*pair) for pair in PAIRS]
    codec = fit_codec("texts", examples, {"vocabulary": 300})
    columns = stack([codec.encode(e) for e in examples], codec.ragged)
    torch.manual_seed(0)
    model = Config(**{**Config.specimen, **Config.data_fields(codec)}).build()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.2)
    return codec, columns, model  # type: ignore[return-value]


def loss_of(objective: Objective, columns: Columns) -> Tensor:
    batch = objective.collate(columns, torch.Generator())
    return objective.loss(setting()[2], batch)


def vector(text: str) -> Tensor:
    codec, _, model = setting()
    columns = stack([codec.encode(Example((text_turn("user", text),)))], codec.ragged)
    objective = Objective(codec)
    return objective.predict(model, objective.collate(columns, torch.Generator()))[0].detach()


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_loss_of_a_step_is_the_formula_written_out(symmetric: bool) -> None:
    codec, columns, _ = setting()
    objective = Objective(codec, temperature=0.1, symmetric=symmetric)
    expected = 0.0
    for i, (query, answer, negatives) in enumerate(PAIRS):
        others = set(negatives)
        asked = set()
        for j, (other, said, more) in enumerate(PAIRS):
            if j == i:
                continue
            others |= set(more)
            if other != query:
                others.add(said)
            if said != answer:
                asked.add(other)
        others -= {query, answer}
        asked -= {query, answer}
        for one, meant, wrong in ((query, answer, others), (answer, query, asked)):
            scores = torch.stack([vector(one) @ vector(t) / 0.1 for t in (meant, *sorted(wrong))])
            cost = float(torch.logsumexp(scores, 0) - scores[0])
            expected += cost * (0.5 if symmetric else (one == query))
    found = float(loss_of(objective, beside(objective, columns)).detach())
    assert found == pytest.approx(expected, rel=1e-4)


@given(cut=st.sets(st.integers(1, len(PAIRS) - 1)), others=st.integers(0, 8))
@settings(deadline=None, max_examples=30)
def test_law_2_however_a_step_is_cut_its_loss_and_gradient_are_the_same(
    cut: set[int], others: int
) -> None:
    codec, columns, model = setting()
    objective = Objective(codec, others=others)
    rows = beside(objective, columns)
    model.zero_grad()
    whole = loss_of(objective, rows)
    whole.backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    parts = np.split(np.arange(len(PAIRS)), sorted(cut))
    costs = [loss_of(objective, take(rows, part)) for part in parts]
    for cost in costs:
        cost.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(sum(costs), whole, rtol=1e-5, atol=1e-5)
    again = [p.grad for p in model.parameters() if p.grad is not None]
    for one, other in zip(gradients, again, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-5)


def test_an_uncut_step_reads_every_text_once() -> None:
    codec, columns, _ = setting()
    objective = Objective(codec)
    batch = objective.collate(beside(objective, columns), torch.Generator())
    different = {t for q, a, n in PAIRS for t in (q, a, *n)}
    assert len(batch.inputs["starts"]) == len(different) + 1
    assert batch.count == len(PAIRS)
    assert batch.computed == sum(len(codec.text.tokens(t)) + 1 for t in different)


def test_rows_without_an_answer_cost_nothing() -> None:
    codec, columns, model = setting()
    question = stack([codec.encode(Example((text_turn("user", "rain"),)))] * 2, codec.ragged)
    objective = Objective(codec)
    batch = objective.collate(beside(objective, question), torch.Generator())
    assert batch.count == 0
    assert float(objective.loss(model, batch).detach()) == 0.0
    assert loss_of(objective, take(columns, np.array([4]))).detach() == 0  # nobody to tell apart


def test_pooling_takes_the_mean_or_the_first_token() -> None:
    codec, columns, model = setting()
    batch = Objective(codec).collate(columns, torch.Generator())
    stream = model.hidden(batch.inputs["tokens"], batch.inputs["starts"]).detach()  # type: ignore[operator]
    first = Objective(codec, pooling="first").vectors(model, batch)[0]
    torch.testing.assert_close(first.detach(), torch.nn.functional.normalize(stream[0], dim=0))
    mean = stream[: batch.inputs["starts"][1]].mean(0)
    found = Objective(codec).vectors(model, batch)[0].detach()
    torch.testing.assert_close(found, torch.nn.functional.normalize(mean, dim=0))


def test_texts_are_cut_and_counted() -> None:
    codec = fit_codec("texts", [example(*PAIRS[0])], {"vocabulary": 270, "longest": 4})
    encoded = codec.encode(example("a long text that does not fit", "b", []))
    assert isinstance(encoded, Shortened)
    assert encoded["lengths"].tolist()[0] == 4
    assert not isinstance(codec.encode(example("a", "b", [])), Shortened)


def test_paragraphs_with_questions_give_a_pair_a_question(data: Callable[[str], Path]) -> None:
    task = make_task("retrieval", {})
    rows = list(read_rows("cmrc2018", path=data("cmrc2018")))
    found = [e for row in rows for e in task.examples(row) if isinstance(e, Example)]
    assert len(found) == 3219
    scores = {m.name: m.value for m in task.measures(found, task.baselines(())["BM25"])}
    assert 0.8 < scores["MRR"] < 1.0
    assert scores["recall@1"] <= scores["MRR"] <= scores["recall@10"]
