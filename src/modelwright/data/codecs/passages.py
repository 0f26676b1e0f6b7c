"""A question about a passage, and where in the passage its answer stands.

A passage that is longer than what a model reads is read in windows that share ``stride`` tokens,
the question before each of them (Devlin et al. 2018, section 4.2). The answer of a window without
the answer is its first token, which means none. Batches are packed, nothing is padded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modelwright.data import overlap
from modelwright.data.codecs import published_text, text
from modelwright.data.stored_text import restored, spelled, stored
from modelwright.data.word_bounds import overlapping, pieces
from modelwright.errors import ModelwrightError
from modelwright.types import (
    Array,
    Column,
    Columns,
    Encoded,
    Example,
    Shortened,
    Span,
    Turn,
    ragged_column,
    text_turn,
)

NO_ANSWER, UNKNOWN = -1, -2  # in the column ``answer``


class Codec:
    """A tokenizer, how much is read at once, and whether some questions have no answer.

    ``types`` is how many kinds of tokens are told apart: with a tokenizer of its own what a word of
    the passage is to the question (``overlap.levels``), with a published one question and passage.
    Of questions an end may be left out, of passages never.
    """

    ragged = ("tokens", "kinds", "bounds", "question", "source")
    packs = True
    head = "span"
    outputs = 2
    any_length = True  # what a model cannot read at once is read in windows

    def __init__(self, text_codec: text.Codec | published_text.Codec, **facts: Any) -> None:
        self.text, self.facts = text_codec, facts
        self.longest: int = facts["longest"]
        self.stride: int = facts["stride"]
        self.asked: int = facts["question"]
        self.span: int = facts["span"]
        self.types: int = facts["types"]
        self.unanswerable: bool = facts["unanswerable"]
        self.vocabulary = text_codec.vocabulary
        self.before: list[int] = list(getattr(text_codec, "before", ()))
        self.after: list[int] = list(getattr(text_codec, "after", ())) or [text_codec.end]
        self.room = self.longest - len(self.before) - 2 * len(self.after) - self.asked
        if not 0 <= self.stride < self.room:
            raise ModelwrightError(
                f"codec.longest: {self.longest} tokens, {self.asked} of them of a question, leave"
                f" {self.room} of a passage, which must be more than codec.stride, {self.stride}"
            )

    @classmethod
    def fit(
        cls,
        examples: Iterable[Example],
        *,
        vocabulary: int = 8192,
        longest: int = 384,
        stride: int = 128,
        question: int = 64,
        span: int = 30,
    ) -> Codec:
        """Learn tokens from the ``examples`` of the train split.

        Args:
            examples: each with a passage (role "document"), a question, and spans of the passage.
            vocabulary: how many tokens there shall be.
            longest: how many tokens are read at once, question and passage.
            stride: how many tokens two windows of a passage share.
            question: how many tokens of a question are read.
            span: how many tokens an answer may have.
        """
        unanswerable = False

        def seen() -> Iterator[Example]:
            nonlocal unanswerable
            for example in examples:
                unanswerable = unanswerable or not example.answer.spans
                yield example

        tokenizer = text.Codec.fit(seen(), vocabulary=vocabulary)
        facts = {"longest": longest, "stride": stride, "question": question, "span": span}
        return cls(tokenizer, **facts, types=overlap.KINDS, unanswerable=unanswerable)

    @classmethod
    def around(
        cls,
        text_codec: published_text.Codec,
        examples: Iterable[Example],
        *,
        types: int = 2,
        longest: int = 384,
        stride: int = 128,
        question: int = 64,
        span: int = 30,
    ) -> Codec:
        """The same with a published tokenizer, whose model knows so many ``types`` of tokens."""
        facts = {"longest": longest, "stride": stride, "question": question, "span": span}
        unanswerable = any(not example.answer.spans for example in examples)
        return cls(text_codec, **facts, types=min(types, 2), unanswerable=unanswerable)

    def encode(self, example: Example) -> Encoded:
        """An example as arrays.

        ``tokens`` (P,) of the whole passage, their ``kinds`` (P,) and characters ``bounds``
        (P, 2); ``question`` (Q,); ``answer`` (2,), its first and last token, -1 for no answer and
        -2 where it is not known; ``source``, the example as JSON.

        Raises:
            ModelwrightError: there is not a passage and a question, or the passage is empty.
        """
        passage, question, spans = _content(example)
        ids, places = pieces(self.text, passage)
        asked = self.text.tokens(question)
        if not ids or not asked:
            raise ModelwrightError("a passage and a question are needed, neither of them empty")
        small = np.uint16 if self.vocabulary <= 1 << 16 else np.uint32
        kinds = np.ones(len(ids), dtype=np.uint8)
        if self.types == overlap.KINDS:
            kinds = overlap.levels(passage, question, places)
        answer = (UNKNOWN, UNKNOWN)
        if spans is not None:
            answer = _tokens_of(spans, places)
        encoded = {
            "tokens": np.array(ids, dtype=small),
            "kinds": kinds,
            "bounds": places.astype(np.int32),
            "question": np.array(asked[: self.asked], dtype=small),
            "answer": np.array(answer, dtype=np.int32),
            "source": stored(passage, question, spans),
        }
        return Shortened.where(len(asked) > self.asked, encoded)

    def example(self, encoded: Encoded) -> Example:
        """The example that ``encode`` was given."""
        passage, question, spans = restored(encoded["source"])
        given = (text_turn("document", passage), text_turn("user", question))
        if spans is None:
            return Example(given)
        parts = tuple(Span(a, b, text=passage[a:b]) for a, b in spans)
        return Example((*given, Turn("assistant", parts, learn=True)))

    def windows(self, length: int, asked: int) -> list[tuple[int, int]]:
        """First token and the one after the last of every window of a passage."""
        room = self.room + self.asked - asked
        begins = list(range(0, max(1, length - self.stride), room - self.stride))
        return [(a, min(a + room, length)) for a in begins]

    def tensors(self, columns: Columns) -> dict[str, Tensor]:
        """Tensors of all windows, one after another.

        ``tokens``, ``types`` (N,), where there are some, and ``starts`` (windows + 1,) int64;
        ``allowed`` bool and ``wanted`` float32 (N, 2), where an answer may begin and end and where
        it does; ``bounds`` (N, 2), characters of the passage; ``rows`` (windows,), the example of
        each; ``known`` (windows,) bool.
        """
        found: dict[str, list[Array]] = {
            name: [] for name in ("tokens", "types", "allowed", "wanted", "bounds")
        }
        lengths, rows = [], []
        for row in range(len(ragged_column(columns, "tokens"))):
            one = {name: _row(columns[name], row) for name in columns}
            for a, b in self.windows(len(one["tokens"]), len(one["question"])):
                window = self._window(one, a, b)
                for name, value in window.items():
                    found[name].append(value)
                lengths.append(len(window["tokens"]))
                rows.append(row)
        number = np.array(rows, dtype=np.int64)
        joined = {name: torch.from_numpy(np.concatenate(v)) for name, v in found.items()}
        if self.types < 2:
            del joined["types"]
        return {
            **joined,
            "starts": torch.from_numpy(np.append(0, np.cumsum(lengths)).astype(np.int64)),
            "rows": torch.from_numpy(number),
            "known": torch.from_numpy(np.asarray(columns["answer"])[number, 0] > UNKNOWN),
        }

    def _window(self, one: Mapping[str, Array], a: int, b: int) -> dict[str, Array]:
        """One window of an example: question, passage, and where the answer stands in it."""
        lead = [*self.before, *one["question"].tolist(), *self.after]
        tokens = np.array([*lead, *one["tokens"][a:b].tolist(), *self.after], dtype=np.int64)
        at = slice(len(lead), len(lead) + b - a)
        types = np.zeros(len(tokens), dtype=np.int64)
        types[at] = one["kinds"][a:b]
        allowed = np.zeros((len(tokens), 2), dtype=np.bool_)
        allowed[at] = allowed[0] = True
        wanted = np.zeros((len(tokens), 2), dtype=np.float32)
        first, last = one["answer"].tolist()
        if first >= a and last < b:
            wanted[len(lead) + first - a, 0] = wanted[len(lead) + last - a, 1] = 1
        elif first > UNKNOWN:
            wanted[0] = 1
        bounds = np.full((len(tokens), 2), -1, dtype=np.int64)
        bounds[at] = one["bounds"][a:b]
        return {
            "tokens": tokens,
            "types": types,
            "allowed": allowed,
            "wanted": wanted,
            "bounds": bounds,
        }

    def read(self, logits: Tensor, targets: Mapping[str, Tensor], starts: Tensor) -> Tensor:
        """The best span of every example by logits (N, 2), float64 (B, 3).

        First character, the one after the last, and a probability; -1, -1 for no answer. Spans of a
        window cost its begin and end less those of its first token, and the best of all windows is
        taken; where train has no question without an answer, there always is one.
        """
        z = logits.detach().double().cpu().numpy()
        at, rows = starts.tolist(), targets["rows"].tolist()
        bounds = targets["bounds"].cpu().numpy()
        found = np.full((max(rows) + 1, 3), -1.0)
        best = np.full(len(found), -np.inf)
        for row, a, b in zip(rows, at, at[1:], strict=False):
            inside = a + np.flatnonzero(bounds[a:b, 0] >= 0)
            first, last, value = _best(z[inside, 0], z[inside, 1], self.span)
            none = float(z[a].sum())
            if value - none <= best[row]:
                continue
            best[row] = value - none
            share = np.exp(value - sum(_total(z[[a, *inside], side]) for side in (0, 1)))
            found[row] = (bounds[inside[first], 0], bounds[inside[last], 1], share)
            if self.unanswerable and value < none:
                share = np.exp(none - sum(_total(z[[a, *inside], side]) for side in (0, 1)))
                found[row] = (-1, -1, share)
        return torch.from_numpy(found)

    def decode(self, outputs: Tensor) -> list[Turn]:
        """What ``read`` found as turns: a span, or none."""
        return [
            Turn("assistant", (Span(int(a), int(b), score=p),) if a >= 0 else ())
            for a, b, p in outputs.tolist()
        ]

    def spelled(self, turns: Sequence[Turn], columns: Columns) -> list[Turn]:
        """The turns with the words of their spans."""
        return spelled(turns, columns)

    def save(self) -> dict[str, bytes]:
        """The tokenizer's files and ``passages.json``."""
        return {**self.text.save(), "passages.json": json.dumps(self.facts).encode()}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Codec:
        """Read what ``save`` wrote."""
        kind = published_text if published_text.FACTS in files else text
        return cls(kind.Codec.load(files), **json.loads(files["passages.json"]))


def _row(column: Column, row: int) -> Array:
    return np.asarray(column[row])


def _best(begins: Array, ends: Array, longest: int) -> tuple[int, int, float]:
    """The span of at most ``longest`` tokens with the greatest begins[i] + ends[j], i <= j."""
    number = len(begins)
    value, first, last = -np.inf, 0, 0
    for more in range(min(longest, number)):
        sums = begins[: number - more] + ends[more:]
        at = int(sums.argmax())
        if sums[at] > value:
            value, first, last = float(sums[at]), at, at + more
    return first, last, value


def _total(values: Array) -> float:
    most = values.max()
    return float(most + np.log(np.exp(values - most).sum()))


def _tokens_of(spans: Sequence[tuple[int, int]], places: Array) -> tuple[int, int]:
    """First and last token of the first span, NO_ANSWER where there is none."""
    if not spans:
        return NO_ANSWER, NO_ANSWER
    first, last = overlapping(places, *spans[0])
    return (first, last - 1) if last > first else (NO_ANSWER, NO_ANSWER)


def _content(example: Example) -> tuple[str, str, list[tuple[int, int]] | None]:
    """Passage, question, and the spans of the answer (None: a question)."""
    given = {turn.role: turn.text for turn in example.turns if not turn.learn}
    if given.keys() != {"document", "user"}:
        raise ModelwrightError("a passage and a question are needed, neither of them empty")
    answer = next((turn for turn in example.turns if turn.learn), None)
    spans = None if answer is None else [(span.begin, span.end) for span in answer.spans]
    return given["document"], given["user"], spans
