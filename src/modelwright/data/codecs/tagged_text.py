"""Tagged text: the tokens of one text, a tag for every word, and perhaps one label of the whole.

Tags are BIO (Ramshaw and Marcus 1995): B-x begins a span of kind x, I-x goes on with it, O is
outside. A word's tag stands at its first token; the others are read, but nothing is asked of them.
The label of the whole is asked at the last token. Batches are packed, nothing is padded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from modelwright.data.codecs import published_text, text
from modelwright.data.stored_text import restored, spelled, stored
from modelwright.data.word_bounds import overlapping, pieces, word_bounds
from modelwright.errors import ModelwrightError
from modelwright.types import (
    Array,
    Columns,
    Encoded,
    Example,
    Label,
    Shortened,
    Span,
    Turn,
    ragged_column,
    text_turn,
)

OUTSIDE = 0  # the number of the tag O
NONE = -1  # of a tag or label that is not known


class Codec:
    """A tokenizer, the kinds of spans, and the labels of whole texts, which may be none."""

    ragged = ("tokens", "first", "bounds", "tags", "source")
    packs = True
    head = "tokens"

    def __init__(
        self,
        text_codec: text.Codec | published_text.Codec,
        kinds: Sequence[str],
        wholes: Sequence[str],
        *,
        longest: int,
    ) -> None:
        if longest < 4:
            raise ModelwrightError(
                f"codec.longest: {longest} leaves no room for a token and the end; raise it"
            )
        self.text, self.longest = text_codec, longest
        self.kinds, self.wholes = list(kinds), list(wholes)
        self.tags = ["O", *(f"{mark}-{kind}" for kind in kinds for mark in "BI")]
        self.vocabulary = text_codec.vocabulary
        self.outputs = len(self.tags) + len(self.wholes)

    @classmethod
    def fit(
        cls, examples: Iterable[Example], *, vocabulary: int = 4096, longest: int = 256
    ) -> Codec:
        """Learn tokens, kinds of spans and labels from the ``examples`` of the train split.

        Args:
            examples: each with a text, and to learn Span parts of it and at most one Label.
            vocabulary: how many tokens there shall be.
            longest: how many tokens of a text are read, its end included.
        """
        kinds, wholes = set[str](), set[str]()

        def seen() -> Iterator[Example]:
            for example in examples:
                _note(example, kinds, wholes)
                yield example

        tokenizer = text.Codec.fit(seen(), vocabulary=vocabulary)
        return cls(tokenizer, *_sound(kinds, wholes), longest=longest)

    @classmethod
    def around(
        cls, text_codec: published_text.Codec, examples: Iterable[Example], *, longest: int = 256
    ) -> Codec:
        """The kinds and labels of the ``examples`` of train, with a published tokenizer."""
        kinds, wholes = set[str](), set[str]()
        for example in examples:
            _note(example, kinds, wholes)
        return cls(text_codec, *_sound(kinds, wholes), longest=longest)

    def encode(self, example: Example) -> Encoded:
        """An example as arrays.

        ``tokens`` (T,) with their frame; of the W words that were read ``first`` (W,), where the
        first token of each stands, ``bounds`` (W, 2), their characters, and ``tags`` (W,), -1 where
        nothing is to be learned; ``whole`` (), the label; ``source``, the example as JSON.

        Raises:
            ModelwrightError: the text has no word.
        """
        words, spans, label = _content(example)
        ids, places = pieces(self.text, words)
        framed = self.text.framed(ids, self.longest)
        before = len(getattr(self.text, "before", ()))
        kept = len(framed) - len(self.text.framed([], self.longest))
        first, bounds = _first_pieces(word_bounds(words), places, kept)
        if not len(first):
            raise ModelwrightError("no words to tag; write some")
        small = np.uint16 if self.vocabulary <= 1 << 16 else np.uint32
        encoded = {
            "tokens": np.array(framed, dtype=small),
            "first": (first + before).astype(np.int32),
            "bounds": bounds.astype(np.int32),
            "tags": self._tags(bounds, spans),
            "whole": np.array(_number(label, self.wholes), dtype=np.int64),
            "source": stored(words, spans, label),
        }
        return Shortened.where(kept < len(ids), encoded)

    def _tags(self, bounds: Array, spans: Sequence[tuple[int, int, str]] | None) -> Array:
        """The tag of every word; of spans of a kind that train lacks nothing is learned."""
        tags = np.full(len(bounds), NONE if spans is None else OUTSIDE, dtype=np.int32)
        for begin, end, kind in spans or ():
            a, b = overlapping(bounds, begin, end)
            number = _number(kind, self.kinds)
            tags[a:b] = NONE if number < 0 else 2 * number + 2
            if number >= 0 and b > a:
                tags[a] = 2 * number + 1
        return tags

    def example(self, encoded: Encoded) -> Example:
        """The example that ``encode`` was given, whole."""
        words, spans, label = restored(encoded["source"])
        given = text_turn("user", words)
        if spans is None:
            return Example((given,))
        parts = ([Label(label)] if label is not None else []) + [
            Span(begin, end, kind, text=words[begin:end]) for begin, end, kind in spans
        ]
        return Example((given, Turn("assistant", tuple(parts), learn=True)))

    def tensors(self, columns: Columns) -> dict[str, Tensor]:
        """Tensors of all texts, one after another: int64.

        ``tokens`` (N,) and ``starts`` (B + 1,); ``labels`` (N,): what each token is to say, -1 for
        nothing; ``first`` (W,) of all words, ``bounds`` (W, 2) and ``words`` (B + 1,).
        """
        tokens, first = ragged_column(columns, "tokens"), ragged_column(columns, "first")
        begins = np.repeat(tokens.offsets[:-1], first.lengths)
        places = begins + np.asarray(first.values, dtype=np.int64)
        labels = np.full(len(tokens.values), NONE, dtype=np.int64)
        labels[places] = ragged_column(columns, "tags").values
        whole = np.asarray(columns["whole"])
        known = whole >= 0
        labels[tokens.offsets[1:][known] - 1] = whole[known] + len(self.tags)
        found = {
            "tokens": np.asarray(tokens.values),
            "starts": tokens.offsets,
            "labels": labels,
            "first": places,
            "bounds": np.asarray(ragged_column(columns, "bounds").values),
            "words": first.offsets,
        }
        return {name: torch.from_numpy(value.astype(np.int64)) for name, value in found.items()}

    def read(self, logits: Tensor, targets: Mapping[str, Tensor], starts: Tensor) -> Tensor:
        """What logits (N, outputs) of a batch say, float64 (B, 1 + words of the longest, 4).

        First the label of the whole, then every word: its number (-1: none), its probability, and
        its two bounds. Tags are the likeliest sequence in which I-x follows B-x or I-x alone.
        """
        logits = logits.detach().float().cpu()
        tags = logits[:, : len(self.tags)].log_softmax(1).double().numpy()
        first, words = targets["first"].cpu().numpy(), targets["words"].tolist()
        bounds = targets["bounds"].cpu().numpy()
        longest = max(b - a for a, b in pairwise(words))
        found = np.full((len(words) - 1, 1 + longest, 4), NONE, dtype=np.float64)
        if self.wholes:
            shares = logits[starts[1:].cpu() - 1, len(self.tags) :].softmax(1)
            best = shares.max(1)
            found[:, 0, 0], found[:, 0, 1] = best.indices.numpy(), best.values.numpy()
        for row, (a, b) in enumerate(pairwise(words)):
            said = tags[first[a:b]]
            chosen = likeliest(said)
            found[row, 1 : 1 + b - a, 0] = chosen
            found[row, 1 : 1 + b - a, 1] = np.exp(said[np.arange(b - a), chosen])
            found[row, 1 : 1 + b - a, 2:] = bounds[a:b]
        return torch.from_numpy(found)

    def decode(self, outputs: Tensor) -> list[Turn]:
        """What ``read`` found, as turns; a span is as sure as its least sure word."""
        turns = []
        for whole, *words in outputs.tolist():
            parts: list[Label | Span] = []
            if whole[0] >= 0:
                parts.append(Label(self.wholes[int(whole[0])]))
            parts += self._spans([word for word in words if word[0] >= 0])
            turns.append(Turn("assistant", tuple(parts)))
        return turns

    def _spans(self, words: Sequence[Sequence[float]]) -> list[Span]:
        spans: list[Span] = []
        for tag, share, begin, end in words:
            if tag == OUTSIDE:
                continue
            kind = self.kinds[(int(tag) - 1) // 2]
            if tag % 2:
                spans.append(Span(int(begin), int(end), kind, share))
            else:
                last = spans.pop()
                spans.append(Span(last.begin, int(end), kind, min(last.score, share)))
        return spans

    def spelled(self, turns: Sequence[Turn], columns: Columns) -> list[Turn]:
        """The turns with the words of their spans, which stand in the stored texts."""
        return spelled(turns, columns)

    def save(self) -> dict[str, bytes]:
        """The tokenizer's files and ``tagged_text.json``."""
        facts = {"kinds": self.kinds, "wholes": self.wholes, "longest": self.longest}
        return {**self.text.save(), "tagged_text.json": json.dumps(facts).encode()}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Codec:
        """Read what ``save`` wrote."""
        facts = json.loads(files["tagged_text.json"])
        kind = published_text if published_text.FACTS in files else text
        return cls(kind.Codec.load(files), **facts)


def likeliest(shares: Array) -> Array:
    """The tags (W,) of the greatest product, of log probabilities (W, tags), in which BIO holds.

    Tags are O, B-1, I-1, B-2, I-2, ...; I-x stands after B-x or I-x alone (Viterbi 1967).
    """
    words, tags = shares.shape
    inside = np.arange(2, tags, 2)
    best = shares[0].copy()
    best[inside] = -np.inf  # nothing can go on yet
    back = np.zeros((words, tags), dtype=np.int64)
    for at in range(1, words):
        back[at] = best.argmax()
        back[at, inside] = np.where(best[inside - 1] >= best[inside], inside - 1, inside)
        best = best[back[at]] + shares[at]
    chosen = np.zeros(words, dtype=np.int64)
    chosen[-1] = best.argmax()
    for at in range(words - 1, 0, -1):
        chosen[at - 1] = back[at, chosen[at]]
    return chosen


def _first_pieces(words: Array, places: Array, kept: int) -> tuple[Array, Array]:
    """The first token of every word that was read, int64 (W,), and the word's bounds (W, 2).

    Words that begin in one token are one.
    """
    first = np.searchsorted(places[:, 1], words[:, 0], side="right")
    seen = first < min(kept, len(places))
    first, words = first[seen], words[seen]
    if not len(first):
        return first, words
    new = np.append(True, first[1:] != first[:-1])
    begins = np.flatnonzero(new)
    ends = np.append(begins[1:], len(first)) - 1
    return first[new], np.stack([words[begins, 0], words[ends, 1]], axis=1)


def _content(
    example: Example,
) -> tuple[str, list[tuple[int, int, str]] | None, str | None]:
    """The text of an example, its spans (None: a question), and its label."""
    words = "".join(turn.text for turn in example.turns if not turn.learn)
    answer = next((turn for turn in example.turns if turn.learn), None)
    if answer is None:
        return words, None, None
    spans = [(span.begin, span.end, span.label) for span in answer.spans]
    return words, spans, answer.labels[0] if answer.labels else None


def _note(example: Example, kinds: set[str], wholes: set[str]) -> None:
    _, spans, label = _content(example)
    kinds.update(kind for _, _, kind in spans or ())
    wholes.update([label] if label is not None else ())


def _sound(kinds: set[str], wholes: set[str]) -> tuple[list[str], list[str]]:
    """Both in order, or a refusal of what teaches nothing."""
    if not kinds:
        raise ModelwrightError(
            "spans: no text of the train split has one, so there is nothing to find; check the"
            " columns of the task and how the data are split"
        )
    if len(wholes) == 1:
        raise ModelwrightError(
            f"labels: only {wholes.pop()!r} in the train split; there is nothing to choose, leave"
            " train.options.label out"
        )
    return sorted(kinds), sorted(wholes)


def _number(name: str | None, known: list[str]) -> int:
    return known.index(name) if name in known else NONE
