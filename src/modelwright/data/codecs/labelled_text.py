"""Labelled text: the tokens of one text, or of two that are read together, and one label.

A text is its byte-level BPE tokens and <|end|>, so none is empty; of two texts the first has its
own <|end|>. Batches are packed: texts of
different lengths stand one after another, and nothing is padded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from modelwright.data import labels as label_sets
from modelwright.data.codecs import published_text, text
from modelwright.errors import ModelwrightError
from modelwright.types import (
    Array,
    Columns,
    Encoded,
    Example,
    Label,
    Shortened,
    Text,
    Turn,
    ragged_column,
)


class Codec(label_sets.Labelled):
    """A trained tokenizer, the label set, and how much of a text is read."""

    ragged = ("tokens",)
    packs = True  # what ``tensors`` gives holds no padding

    def __init__(
        self, text_codec: text.Codec | published_text.Codec, labels: list[str], *, longest: int
    ) -> None:
        self.text, self.labels, self.longest = text_codec, labels, longest
        self.vocabulary = text_codec.vocabulary

    @classmethod
    def fit(
        cls, examples: Iterable[Example], *, vocabulary: int = 8192, longest: int = 512
    ) -> Codec:
        """Learn tokens and labels from the ``examples`` of the train split.

        Args:
            examples: each with one Text part to read and a Label to learn.
            vocabulary: how many tokens there shall be.
            longest: how many tokens of a text are read, its end included.
        """
        if longest < 2:
            raise ModelwrightError(
                f"codec.longest: {longest} leaves no room for a token and the end; raise it"
            )
        names: set[str] = set()

        def seen() -> Iterator[Example]:
            for example in examples:
                _texts(example)
                names.update(_names(example))
                yield example

        tokenizer = text.Codec.fit(seen(), vocabulary=vocabulary)
        return cls(tokenizer, label_sets.label_set(names), longest=longest)

    @classmethod
    def around(
        cls, text_codec: published_text.Codec, examples: Iterable[Example], *, longest: int = 512
    ) -> Codec:
        """The labels of the ``examples`` of the train split, with a published tokenizer."""
        names = {name for example in examples for name in _names(example)}
        return cls(text_codec, label_sets.label_set(names), longest=longest)

    def encode(self, example: Example) -> Encoded:
        """``tokens`` (T,), 1 <= T <= ``longest``, the last one <|end|>; ``label`` (), int64.

        A question, an example without a turn to learn, has the label -1.

        Raises:
            ModelwrightError: not one text or two, or an unknown label.
        """
        number = np.array(label_sets.label_number(example, self.labels), dtype=np.int64)
        tokens, cut = self._read(example)
        return Shortened.where(cut, {"tokens": tokens, "label": number})

    def _read(self, example: Example) -> tuple[Array, bool]:
        """The tokens of the given texts, as far as they are read, and whether an end is missing."""
        found = [self.text.tokens(part) for part in _texts(example)]
        if len(found) == 1:
            cut = len(found[0]) >= self.longest
            tokens = self.text.framed(found[0], self.longest)
        else:
            between = self._between
            room = self.longest - len(self.text.framed([], self.longest)) - len(between)
            first, second = _shortened(found[0], found[1], max(2, room))
            cut = len(first) + len(second) < sum(map(len, found))
            whole = [*first, *between, *second]
            tokens = self.text.framed(whole, max(self.longest, len(whole) + 2))
        small = np.uint16 if self.vocabulary <= 1 << 16 else np.uint32
        return np.array(tokens, dtype=small), cut

    @property
    def _between(self) -> list[int]:
        """The tokens between two texts."""
        return getattr(self.text, "between", None) or [self.text.end]

    def _given(self, tokens: Sequence[int]) -> tuple[Turn, ...]:
        """The texts of stored tokens, as far as they were read, a turn each."""
        before = len(getattr(self.text, "before", ()))
        after = len(getattr(self.text, "after", ())) or 1
        body, between = list(tokens[before : len(tokens) - after]), self._between
        for at in range(len(body) - len(between) + 1):
            if body[at : at + len(between)] == between:
                both = (body[:at], body[at + len(between) :])
                return tuple(Turn("user", (Text(self.text.text(part)),)) for part in both)
        return (Turn("user", (Text(self.text.text(tokens)),)),)

    def example(self, encoded: Encoded) -> Example:
        """The example that ``encode`` was given, as far as its texts were read."""
        given, number = self._given(encoded["tokens"].tolist()), int(encoded["label"])
        if number == label_sets.UNKNOWN:
            return Example(given)
        return Example((*given, Turn("assistant", (Label(self.labels[number]),), learn=True)))

    def tensors(self, columns: Columns) -> dict[str, Tensor]:
        """``tokens`` (N,) of all texts, their ``starts`` (B + 1,), and ``label`` (B,): int64."""
        tokens = ragged_column(columns, "tokens")
        return {
            "tokens": torch.from_numpy(np.asarray(tokens.values).astype(np.int64)),
            "starts": torch.from_numpy(np.array(tokens.offsets, dtype=np.int64)),
            "label": torch.from_numpy(np.array(columns["label"], dtype=np.int64)),
        }

    def save(self) -> dict[str, bytes]:
        """``tokenizer.json`` and ``labelled_text.json``."""
        facts = {"labels": self.labels, "longest": self.longest}
        return {**self.text.save(), "labelled_text.json": json.dumps(facts).encode()}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Codec:
        """Read what ``save`` wrote."""
        facts = json.loads(files["labelled_text.json"])
        kind = published_text if published_text.FACTS in files else text
        return cls(kind.Codec.load(files), facts["labels"], longest=facts["longest"])


def _texts(example: Example) -> list[str]:
    """The text of the one turn that is given, or of two."""
    found = [[p.text for p in t.parts if isinstance(p, Text)] for t in example.turns]
    texts = [text for of_turn in found for text in of_turn]
    if not 1 <= len(texts) <= 2 or any(len(of_turn) > 1 for of_turn in found):
        raise ModelwrightError(
            f"codec labelled_text: an example has {len(texts)} texts, exactly one is meant, or two"
            " in turns of their own"
        )
    return texts


def _names(example: Example) -> list[str]:
    """The labels to learn."""
    return [name for turn in example.turns if turn.learn for name in turn.labels]


def _shortened(one: list[int], other: list[int], room: int) -> tuple[list[int], list[int]]:
    """Both without their ends, the longer one cut first, so that they fit together."""
    half = room // 2
    if len(one) <= half:
        return one, other[: room - len(one)]
    if len(other) <= half:
        return one[: room - len(other)], other
    return one[: room - half], other[:half] if len(one) + len(other) > room else other
