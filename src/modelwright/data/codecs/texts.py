"""Several texts of one example, each by itself: a query, what answers it, and what does not.

Fields: ``tokens`` of all texts one behind the other, ``lengths`` of each, in the order query,
answer, others; ``answered`` says whether the second one is the answer. Batches are packed: nothing
is padded, and no text sees another.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modelwright.data.codecs import published_text, text
from modelwright.errors import ModelwrightError
from modelwright.types import (
    Array,
    Columns,
    Encoded,
    Example,
    Ragged,
    Shortened,
    Text,
    Turn,
    ragged_column,
    rows_in,
    text_turn,
)

QUERY, ANSWER, OTHER = 0, 1, 2  # what a text is


class Codec:
    """A tokenizer, and how much of a text is read.

    A model's output for a text is a vector, so there are no labels and no head.
    """

    ragged = ("tokens", "lengths", "beside", "beside_lengths", "beside_kinds", "beside_ids", "ids")
    packs = True
    any_length = True  # ``tokens`` of an example are several texts, each cut to ``longest``
    head = "none"
    outputs = 1

    def __init__(self, text_codec: text.Codec | published_text.Codec, *, longest: int) -> None:
        self.text, self.longest = text_codec, longest
        self.vocabulary = text_codec.vocabulary

    @classmethod
    def fit(
        cls, examples: Iterable[Example], *, vocabulary: int = 8192, longest: int = 256
    ) -> Codec:
        """Learn tokens from the ``examples`` of the train split.

        Args:
            examples: each a query, texts that do not answer it, and one to learn that does.
            vocabulary: how many tokens there shall be.
            longest: how many tokens of a text are read, its end included.
        """
        if longest < 2:
            raise ModelwrightError(
                f"codec.longest: {longest} leaves no room for a token and the end; raise it"
            )
        return cls(text.Codec.fit(examples, vocabulary=vocabulary), longest=longest)

    @classmethod
    def around(
        cls,
        text_codec: published_text.Codec,
        examples: Iterable[Example],  # noqa: ARG003 - a tokenizer is all there is
        *,
        longest: int = 256,
    ) -> Codec:
        """The same with a published tokenizer."""
        return cls(text_codec, longest=longest)

    def encode(self, example: Example) -> Encoded:
        """``tokens`` (T,), ``lengths`` (texts,) and ``answered`` (), as the module says."""
        query, *others = example.given or example.turns
        answers = [turn for turn in example.turns if turn.learn]
        small = np.uint16 if self.vocabulary <= 1 << 16 else np.uint32
        found, cut = [], False
        for turn in (query, *answers[-1:], *others):
            ids = self.text.tokens(turn.text)
            kept = self.text.framed(ids, self.longest)
            cut = cut or len(kept) < len(self.text.framed(ids, len(ids) + self.longest))
            found.append(np.array(kept, dtype=small))
        encoded = {
            "tokens": np.concatenate(found),
            "lengths": np.array([len(t) for t in found], dtype=np.int64),
            "answered": np.array(bool(answers), dtype=np.bool_),
        }
        return Shortened.where(cut, encoded)

    def example(self, encoded: Encoded) -> Example:
        """The example that ``encode`` was given, as far as its texts were read."""
        ends = np.cumsum(encoded["lengths"])
        query, *rest = [self._said(part) for part in np.split(encoded["tokens"], ends[:-1])]
        if not encoded["answered"]:
            return Example((text_turn("user", query), *map(_other, rest)))
        answer = Turn("assistant", (Text(rest[0]),), learn=True)
        return Example((text_turn("user", query), *map(_other, rest[1:]), answer))

    def _said(self, tokens: Array) -> str:
        before = len(getattr(self.text, "before", ()))
        after = len(getattr(self.text, "after", ())) or 1
        return self.text.text(tokens[before : len(tokens) - after].tolist())

    def tensors(self, columns: Columns) -> dict[str, Tensor]:
        """``tokens`` (N,) of all texts, their ``starts`` (texts + 1,), ``first`` (B,) and more.

        ``first`` is the text that is the query of a row, ``answered`` (B,) whether the next one is
        its answer, ``kinds`` (texts,) what each text is.
        """
        tokens, lengths = ragged_column(columns, "tokens"), ragged_column(columns, "lengths")
        return {
            "tokens": torch.from_numpy(np.asarray(tokens.values).astype(np.int64)),
            "starts": torch.from_numpy(np.concatenate([[0], np.cumsum(lengths.values)])),
            "first": torch.from_numpy(np.array(lengths.offsets[:-1])),
            "answered": torch.from_numpy(np.array(columns["answered"], dtype=np.bool_)),
            "kinds": torch.from_numpy(kinds_of(columns)),
        }

    def save(self) -> dict[str, bytes]:
        """``tokenizer.json`` and ``texts.json``."""
        return {**self.text.save(), "texts.json": json.dumps({"longest": self.longest}).encode()}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Codec:
        """Read what ``save`` wrote."""
        facts: dict[str, Any] = json.loads(files["texts.json"])
        kind = published_text if published_text.FACTS in files else text
        return cls(kind.Codec.load(files), longest=facts["longest"])


def _other(text_: str) -> Turn:
    """A text that does not answer the query."""
    return text_turn("document", text_)


def kinds_of(columns: Columns) -> Array:
    """QUERY, ANSWER or OTHER for every text of stored examples, (texts,) int64."""
    lengths = ragged_column(columns, "lengths")
    place = np.arange(len(lengths.values)) - np.repeat(lengths.offsets[:-1], lengths.lengths)
    answered = np.repeat(np.asarray(columns["answered"]), lengths.lengths)
    return np.where(place == 0, QUERY, np.where((place == 1) & answered, ANSWER, OTHER))


def beside(columns: Columns, most: int) -> Columns:
    """The columns, every row with the texts of up to ``most`` others, those that follow it.

    After the last row the first one follows. So that what a row costs depends on nothing but its
    own fields, whatever the rows are cut into afterwards. Texts of the same tokens get the same
    number in ``ids`` and ``beside_ids``.
    """
    rows, kinds = rows_in(columns), kinds_of(columns)
    tokens, lengths = ragged_column(columns, "tokens"), ragged_column(columns, "lengths")
    bounds = np.concatenate([[0], np.cumsum(lengths.values)])
    values = np.asarray(tokens.values)
    known: dict[bytes, int] = {}
    pieces = (values[a:b].tobytes() for a, b in pairwise(bounds))
    ids = np.array([known.setdefault(piece, len(known)) for piece in pieces], dtype=np.int64)
    count = min(most, rows - 1)

    def after(column: Ragged) -> Ragged:
        """Of every row what stands in the ``count`` rows that follow."""
        turned = Ragged.of([column[i] for i in (*range(rows), *range(count))])
        spans = [(turned.offsets[i + 1], turned.offsets[i + 1 + count]) for i in range(rows)]
        return Ragged.of([turned.values[a:b] for a, b in spans])

    of_texts = {"lengths": lengths.values, "kinds": kinds, "ids": ids}
    ragged = {name: Ragged(value, lengths.offsets) for name, value in of_texts.items()}
    return {
        **columns,
        "ids": ragged["ids"],
        "beside": after(Ragged(values, tokens.offsets)),
        **{f"beside_{name}": after(column) for name, column in ragged.items()},
    }
