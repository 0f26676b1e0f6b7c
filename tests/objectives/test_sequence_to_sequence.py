"""Pairs as a batch: who reads what, what is learned, what it costs, and smoothing in training."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modelwright.data.codecs.text_pairs import Codec
from modelwright.errors import ModelwrightError
from modelwright.models.model import config_class
from modelwright.objectives import make_objective
from modelwright.types import Batch, Example, stack, text_turn


def pair(source: str, target: str) -> Example:
    return Example((text_turn("user", source), text_turn("assistant", target, learn=True)))


PAIRS = [
    pair("ein Hund", "a dog"),
    pair("zwei kleine Hunde im Gras", "two small dogs"),
    pair("nichts", "nothing at all is to be seen here"),
]
CODEC = Codec.fit(PAIRS, vocabulary=270)


def batch(examples: list[Example], **options: float) -> Batch:
    columns = stack([CODEC.encode(e) for e in examples], CODEC.ragged)
    objective = make_objective("sequence_to_sequence", CODEC, options)
    return objective.collate(columns, torch.Generator())


def model(family: str, **fields: object) -> nn.Module:
    cls = config_class(family)
    torch.manual_seed(3)
    made = cls(**{**cls.specimen, **cls.data_fields(CODEC), **fields}).build()
    with torch.no_grad():
        for p in made.parameters():
            p.add_(torch.randn_like(p), alpha=0.2)
    return made


@given(st.lists(st.tuples(st.text(max_size=30), st.text(max_size=30)), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_every_target_is_read_from_its_start_and_learned_to_its_end(
    texts: list[tuple[str, str]],
) -> None:
    found = batch([pair(*two) for two in texts])
    read, learned = found.inputs["tokens"][0], found.targets["tokens"][0]
    starts, sources = found.inputs["starts"].tolist(), found.inputs["source_starts"].tolist()
    assert len(starts) == len(sources) == len(texts) + 1
    assert starts[-1] == len(read) == len(learned) == found.count
    assert sources[-1] == len(found.inputs["sources"])
    assert found.computed == math.ceil((found.count + sources[-1]) / 2)
    for i, (source, target) in enumerate(texts):
        mine = slice(starts[i], starts[i + 1])
        whole = [*read[mine].tolist(), CODEC.end]
        assert whole == [CODEC.start, *CODEC.text.tokens(target), CODEC.end]
        assert learned[mine].tolist() == whole[1:]
        asked = found.inputs["sources"][sources[i] : sources[i + 1]].tolist()
        assert asked == [*CODEC.text.tokens(source), CODEC.end]
    spelled = sum(len(t.encode("utf-8", errors="replace")) for _, t in texts)
    if all(c < "\ud800" or c > "\udfff" for _, t in texts for c in t):
        assert found.bytes == spelled


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_law_3_a_pair_costs_the_same_alone_and_beside_others(family: str) -> None:
    one, objective = model(family).eval(), make_objective("sequence_to_sequence", CODEC, {})
    together = objective.loss(one, batch(PAIRS))
    alone = sum(objective.loss(one, batch([p])) for p in PAIRS)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-4)
    # Law 3 from the other side: another source changes its own target's cost and no other's.
    moved = [PAIRS[0], pair("vier alte Katzen", "two small dogs"), PAIRS[2]]
    apart = objective.loss(one, batch(moved)) - together
    own = objective.loss(one, batch([moved[1]])) - objective.loss(one, batch([PAIRS[1]]))
    assert own.abs() > 1e-3
    torch.testing.assert_close(apart, own, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("family", "fields"), [("bart", {}), ("bart", {"output_bias": False}), ("t5", {})]
)
def test_smoothing_is_that_of_the_formula_and_only_in_training(
    family: str, fields: dict[str, object]
) -> None:
    one = model(family, **fields)
    objective = make_objective("sequence_to_sequence", CODEC, {"label_smoothing": 0.2})
    asked = batch(PAIRS)
    log_p = one(**asked.inputs)[0].double().log_softmax(-1)
    right = log_p.gather(1, asked.targets["tokens"][0][:, None]).sum()
    smoothed = -(0.8 * right + 0.2 / CODEC.vocabulary * log_p.sum())
    torch.testing.assert_close(
        objective.loss(one.train(), asked).double(), smoothed, rtol=1e-5, atol=1e-4
    )
    torch.testing.assert_close(
        objective.loss(one.eval(), asked).double(), -right, rtol=1e-5, atol=1e-4
    )


@pytest.mark.parametrize(("family", "other"), [("bart", "t5"), ("t5", "bart")])
def test_a_teacher_of_another_family_is_heard_in_training_alone(family: str, other: str) -> None:
    """Loss and gradient are those of whole logits: (1 - a) L + a T^2 KL(teacher || student)."""
    student, teacher = model(family).train(), model(other).eval()
    options = {"teacher": "x", "temperature": 3.0, "teacher_weight": 0.25, "label_smoothing": 0.1}
    taught = make_objective("sequence_to_sequence", CODEC, options)
    plain = make_objective("sequence_to_sequence", CODEC, {"label_smoothing": 0.1})
    taught.teaching.model = teacher  # type: ignore[attr-defined]
    asked = batch(PAIRS)
    with torch.no_grad():
        p = (teacher(**asked.inputs)[0].double() / 3).softmax(-1)
    log_q = (student(**asked.inputs)[0].double() / 3).log_softmax(-1)
    soft = 9 * (p * (p.log() - log_q)).sum()
    meant = 0.75 * plain.loss(student, asked).double() + 0.25 * soft
    wanted = torch.autograd.grad(meant, list(student.parameters()), allow_unused=True)
    found = taught.loss(student, asked)
    torch.testing.assert_close(found.double(), meant, rtol=1e-5, atol=1e-3)
    got = torch.autograd.grad(found, list(student.parameters()), allow_unused=True)
    for one, two in zip(got, wanted, strict=True):
        assert (one is None) == (two is None)
        if one is not None:
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3)
    assert torch.equal(taught.loss(student.eval(), asked), plain.loss(student, asked))


def test_a_few_steps_learn_the_pairs_by_heart() -> None:
    one, objective = model("bart", dropout=0.0), make_objective("sequence_to_sequence", CODEC, {})
    asked, optimizer = batch(PAIRS), torch.optim.AdamW(one.parameters(), lr=0.01)
    before = float(objective.loss(one, asked).detach()) / asked.count
    for _ in range(60):
        optimizer.zero_grad()
        (objective.loss(one, asked) / asked.count).backward()
        optimizer.step()
    assert float(objective.loss(one, asked).detach()) / asked.count < 0.1 * before


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_a_smoothing_that_cannot_be_is_refused(smoothing: float) -> None:
    with pytest.raises(ModelwrightError, match=r"label_smoothing .* is not in \[0, 1\)"):
        make_objective("sequence_to_sequence", CODEC, {"label_smoothing": smoothing})


def test_it_learns_from_no_other_codec() -> None:
    from modelwright.data.codecs.text import Codec as Plain

    with pytest.raises(ModelwrightError, match="cannot learn what the text codec"):
        make_objective("sequence_to_sequence", Plain.fit(PAIRS, vocabulary=270), {})
    with pytest.raises(ModelwrightError, match="cannot learn what the text_pairs codec"):
        make_objective("next_token", CODEC, {})


def test_the_same_rows_in_another_order_cost_the_same() -> None:
    one, objective = model("t5").eval(), make_objective("sequence_to_sequence", CODEC, {})
    order = np.array([2, 0, 1])
    there, back = batch(PAIRS), batch([PAIRS[i] for i in order])
    torch.testing.assert_close(objective.loss(one, there), objective.loss(one, back))
