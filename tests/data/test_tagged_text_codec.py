"""The codec of tagged texts: words and their first tokens, and the likeliest sequence of tags."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice, product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.codecs.tagged_text import Codec, likeliest
from modelwright.data.sources import read_rows
from modelwright.errors import ModelwrightError
from modelwright.objectives.token_classification import Objective
from modelwright.tasks.token_classification import TokenClassification
from modelwright.types import Example, Label, Shortened, Span, Turn, stack, text_turn


def example(text: str, *spans: tuple[int, int, str], label: str | None = None) -> Example:
    parts = ([] if label is None else [Label(label)]) + [Span(*span) for span in spans]
    return Example((text_turn("user", text), Turn("assistant", tuple(parts), learn=True)))


TRAIN = [
    example("play Blue Train", (5, 15, "album"), label="play"),
    example("rate it five stars", (8, 12, "number"), label="rate"),
]
CODEC = Codec.fit(TRAIN, vocabulary=300, longest=40)


def allowed(tags: tuple[int, ...]) -> bool:
    """Tags O, B-1, I-1, B-2, I-2: whether each I follows its own."""
    return all(t == 0 or t % 2 or (i > 0 and tags[i - 1] in (t - 1, t)) for i, t in enumerate(tags))


@given(st.integers(0, 10_000), st.integers(1, 5))
@settings(max_examples=60)
def test_the_likeliest_tags_are_those_of_all_sequences(seed: int, words: int) -> None:
    shares = np.log(np.random.default_rng(seed).dirichlet(np.ones(5) / 2, words) + 1e-9)
    best = max(
        (tags for tags in product(range(5), repeat=words) if allowed(tags)),
        key=lambda tags: sum(shares[i, t] for i, t in enumerate(tags)),
    )
    assert tuple(likeliest(shares).tolist()) == best


def read_back(codec: Codec, examples: list[Example]) -> list[Turn]:
    """What is decoded of logits that say exactly what is to be learned."""
    columns = stack([codec.encode(e) for e in examples], codec.ragged)
    batch = Objective(codec).collate(columns, torch.Generator())
    labels = batch.targets["labels"]
    logits = torch.nn.functional.one_hot(labels.clamp(min=0), codec.outputs).float() * 20
    outputs = codec.read(logits, batch.targets, batch.inputs["starts"])
    return codec.spelled(codec.decode(outputs), columns)


def test_what_is_learned_is_what_is_said() -> None:
    for meant, said in zip(TRAIN, read_back(CODEC, TRAIN), strict=True):
        assert said.labels == meant.answer.labels
        assert [(s.begin, s.end, s.label) for s in said.spans] == [
            (s.begin, s.end, s.label) for s in meant.answer.spans
        ]
        text = meant.given[0].text
        assert all(s.text == text[s.begin : s.end] and s.score > 0.99 for s in said.spans)


def test_slots_of_real_commands_come_back(data: Callable[[str], Path]) -> None:
    task = TokenClassification(label="intent")
    rows = islice(read_rows("snips_nlu", path=data("snips_nlu")), 0, 12_000, 30)
    examples = [e for row in rows for e in task.examples(row) if isinstance(e, Example)]
    codec = Codec.fit(examples, vocabulary=1000)
    grades = [
        task.grade(e, said) for e, said in zip(examples, read_back(codec, examples), strict=True)
    ]
    # A slot that begins or ends within a word of ours is widened to it; that is seldom.
    assert np.mean(grades) > 0.99


def test_an_unknown_kind_is_not_learned_and_stays_what_is_meant() -> None:
    strange = example("play five", (5, 9, "year"), label="play")
    encoded = CODEC.encode(strange)
    assert encoded["tags"].tolist() == [0, -1]
    assert CODEC.example(encoded).answer.spans[0].label == "year"


def test_words_beyond_the_cut_are_not_tagged_and_counted() -> None:
    codec = Codec.fit(TRAIN, vocabulary=270, longest=8)
    encoded = codec.encode(TRAIN[0])
    assert len(encoded["tokens"]) == 8
    assert encoded["first"].max() < 7
    assert isinstance(encoded, Shortened)
    assert codec.example(encoded).answer.spans[0].end == 15


def test_what_teaches_nothing_is_refused() -> None:
    with pytest.raises(ModelwrightError, match="no text of the train split has one"):
        Codec.fit([example("a b")], vocabulary=270)
    with pytest.raises(ModelwrightError, match="only 'play' in the train split"):
        Codec.fit(TRAIN[:1], vocabulary=270)
    with pytest.raises(ModelwrightError, match="no words to tag"):
        CODEC.encode(Example((text_turn("user", "  "),)))
