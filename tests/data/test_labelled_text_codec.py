"""The labelled-text codec: packing, cutting, labels and refusals, on real reviews too."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.codecs import load_codec, save_codec
from modelwright.data.codecs.labelled_text import Codec
from modelwright.data.sources import read_rows
from modelwright.errors import ModelwrightError
from modelwright.tasks.text_classification import TextClassification
from modelwright.types import Example, Label, Shortened, Text, Turn, stack


def example(text: str, label: str | None = "good") -> Example:
    given = Turn("user", (Text(text),))
    if label is None:
        return Example((given,))
    return Example((given, Turn("assistant", (Label(label),), True)))


TRAIN = [example("a warm and funny film"), example("a dull film", "bad"), example("", "bad")]
CODEC = Codec.fit(TRAIN, vocabulary=270, longest=24)


@given(st.lists(st.text(max_size=40), min_size=1, max_size=6))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_texts_stand_one_after_another_and_nothing_is_padded(texts: list[str]) -> None:
    encoded = [CODEC.encode(example(t)) for t in texts]
    tensors = CODEC.tensors(stack(encoded, CODEC.ragged))
    starts = tensors["starts"].tolist()
    assert starts[0] == 0
    assert starts[-1] == len(tensors["tokens"]) == sum(len(e["tokens"]) for e in encoded)
    assert len(starts) == len(texts) + 1
    for text, a, b in zip(texts, starts, starts[1:], strict=False):
        tokens = tensors["tokens"][a:b].tolist()
        assert 1 <= len(tokens) <= CODEC.longest
        assert tokens[-1] == CODEC.text.end
        read = CODEC.text.spell(tokens)
        said = text.encode("utf-8", errors="replace")
        assert said.startswith(read) or "\ud800" <= max(text) <= "\udfff"
        assert read == said or len(tokens) == CODEC.longest


def test_what_is_cut_is_counted() -> None:
    codec = Codec.fit(TRAIN, vocabulary=270, longest=4)
    # One byte a token: digits are in no merge. Three fit beside the end.
    read = [codec.encode(example("7 " * n)) for n in (0, 1, 2, 50)]
    assert [len(encoded["tokens"]) for encoded in read] == [1, 3, 4, 4]
    assert [isinstance(encoded, Shortened) for encoded in read] == [False, False, True, True]
    assert save_codec(codec) == save_codec(Codec.fit(TRAIN, vocabulary=270, longest=4))


def test_labels_are_numbers_and_a_question_has_none() -> None:
    rows = [example("x", "bad"), example("x", "good"), example("x", None)]
    columns = stack([CODEC.encode(e) for e in rows], CODEC.ragged)
    assert CODEC.tensors(columns)["label"].tolist() == [0, 1, -1]
    again = [CODEC.example({k: np.asarray(c[i]) for k, c in columns.items()}) for i in range(3)]
    assert again == rows


def test_an_unknown_label_and_a_second_text_are_refused() -> None:
    with pytest.raises(ModelwrightError, match="label 'goood' is not in the train split.*'good'"):
        CODEC.encode(example("x", "goood"))
    with pytest.raises(ModelwrightError, match="has 2 texts, exactly one is meant"):
        CODEC.encode(Example((Turn("user", (Text("a"), Text("b"))),)))
    with pytest.raises(ModelwrightError, match="has 0 texts"):
        Codec.fit([Example((Turn("user", (Label("a"),)),))])
    with pytest.raises(ModelwrightError, match=r"codec\.longest: 1 leaves no room"):
        Codec.fit(TRAIN, longest=1)
    with pytest.raises(ModelwrightError, match="at least two labels"):
        Codec.fit(TRAIN[1:], vocabulary=270)


def test_real_reviews(data: Callable[[str], Path]) -> None:
    task = TextClassification()
    rows = list(islice(read_rows("imdb", path=data("imdb")), 300))
    assert {r["label"] for r in rows} == {"negative", "positive"}
    assert not any("<br />" in r["text"] for r in rows)
    examples = [e for row in rows for e in task.examples(row)]
    codec = Codec.fit(examples[:200], vocabulary=1024, longest=128)
    again = load_codec(save_codec(codec))
    cut = 0
    for one in examples:
        encoded = codec.encode(one)
        cut += isinstance(encoded, Shortened)
        tokens = encoded["tokens"]
        assert np.array_equal(tokens, again.encode(one)["tokens"])
        whole = one.given[0].text
        assert whole.startswith(codec.text.text(tokens.tolist()).rstrip("\ufffd"))
    assert 200 < cut < 300  # a review has 230 words
