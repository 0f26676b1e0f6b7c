"""Several labels of a text, and one label of two texts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.codecs import labelled_text, multilabelled_text
from modelwright.errors import ModelwrightError
from modelwright.tasks.multilabel_classification import MultilabelClassification
from modelwright.tasks.text_classification import TextClassification
from modelwright.types import Example, Label, Shortened, Turn, stack, text_turn

metrics = pytest.importorskip("sklearn.metrics")
NAMES = ["bug", "docs", "parser"]


def only(row: dict[str, object], task: TextClassification) -> Example:
    (example,) = task.examples({"id": "r1", **row})
    assert isinstance(example, Example)
    return example


@pytest.mark.parametrize(
    "found", [["bug", "docs"], ("bug", "docs"), "bug, docs", np.array(["bug", "docs"])]
)
def test_labels_stand_in_a_list_or_in_a_text(found: object) -> None:
    example = only({"text": "a", "label": found}, MultilabelClassification())
    assert example.answer.labels == ("bug", "docs")


def test_none_may_hold_and_none_known_is_a_reason() -> None:
    task = MultilabelClassification(separator="|")
    assert only({"text": "a", "label": []}, task).answer.labels == ()
    assert only({"text": "a", "label": ""}, task).answer.labels == ()
    assert only({"text": "a", "label": "b|c"}, task).answer.labels == ("b", "c")
    assert task.examples({"text": "a", "label": None}) == "no labels"


def codec() -> multilabelled_text.Codec:
    task = MultilabelClassification()
    examples = [only({"text": f"a {name}", "label": [name]}, task) for name in NAMES]
    found = multilabelled_text.Codec.fit(examples, vocabulary=300, longest=16)
    assert isinstance(found, multilabelled_text.Codec)
    return found


@given(st.lists(st.sampled_from(NAMES), unique=True).map(sorted))
@settings(max_examples=10)
def test_what_is_encoded_is_read_back_and_decoded(names: list[str]) -> None:
    made = codec()
    example = only({"text": "a", "label": names}, MultilabelClassification())
    encoded = made.encode(example)
    assert made.example(encoded) == example
    tensors = made.tensors(stack([encoded], made.ragged))
    (said,) = made.decode((tensors["chosen"].float() - 0.5) * 20)
    assert list(said.labels) == names
    assert made.encode(Example(example.given))["chosen"].tolist() == [-1] * 3


def test_f1_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    meant, said = (rng.random((60, 3)) < 0.4 for _ in range(2))
    examples = [
        only(
            {"text": "a", "label": [NAMES[i] for i in np.flatnonzero(row)]},
            MultilabelClassification(),
        )
        for row in meant
    ]
    answers = [
        Turn("assistant", tuple(Label(NAMES[i]) for i in np.flatnonzero(row))) for row in said
    ]

    class Said:
        def answer(self, given: object) -> list[Turn]:
            return answers

    found = {m.name: m.value for m in MultilabelClassification().measures(examples, Said())}
    assert found["F1 of labels"] == pytest.approx(metrics.f1_score(meant, said, average="micro"))
    assert found["macro-F1"] == pytest.approx(metrics.f1_score(meant, said, average="macro"))
    assert found["all labels right"] == pytest.approx(metrics.accuracy_score(meant, said))


PAIRS = TextClassification(text="premise", pair="hypothesis")
ROW = {"premise": "A dog runs.", "hypothesis": "An animal moves.", "label": "follows"}


def test_two_texts_are_read_together() -> None:
    example = only(dict(ROW), PAIRS)
    assert [turn.text for turn in example.given] == [ROW["premise"], ROW["hypothesis"]]
    with pytest.raises(ModelwrightError, match=r"^row r1: no column 'hypothesis'.*options\.pair"):
        only({"premise": "a", "label": "b"}, PAIRS)


@given(st.text(max_size=30), st.text(max_size=30))
@settings(max_examples=60, deadline=None)
def test_two_texts_come_back_and_the_longer_is_cut(one: str, other: str) -> None:
    made = labelled_text.Codec.fit(
        [only({**ROW, "label": name}, PAIRS) for name in ("follows", "not")],
        vocabulary=300,
        longest=24,
    )
    turns = (text_turn("user", one), text_turn("user", other))
    example = Example((*turns, Turn("assistant", (Label("not"),), learn=True)))
    encoded = made.encode(example)
    assert len(encoded["tokens"]) <= 24
    again = made.example(encoded)
    assert len(again.given) == 2
    cut = isinstance(encoded, Shortened)
    assert np.array_equal(made.encode(again)["tokens"], encoded["tokens"]) or cut
    if not cut and max(one + other + " ") < "\ud800":
        assert [turn.text for turn in again.given] == [one, other]


def test_a_mean_over_labels_is_learned_alone() -> None:
    from modelwright.objectives.multilabel import Objective

    made = codec()
    task = MultilabelClassification()
    rows = [only({"text": "a", "label": ["bug"]}, task), Example((text_turn("user", "b"),))]
    batch = Objective(made).collate(
        stack([made.encode(e) for e in rows], made.ragged), torch.Generator()
    )
    assert batch.count == 1  # a question teaches nothing

    class Fixed(torch.nn.Module):
        def forward(self, **_: torch.Tensor) -> torch.Tensor:
            return torch.zeros(2, 3)

    loss = Objective(made).loss(Fixed(), batch)
    assert float(loss) == pytest.approx(3 * np.log(2))
