"""The sentences of a text, of which some are to be chosen.

The sentences are read together, each ended by a token of its own, and a sentence is scored at that
token. What is learned is a share of every sentence: a softmax of how good each is at temperature
TEMPERATURE, so that the second best is not as wrong as the worst.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from modelwright.data.codecs import published_text, text
from modelwright.data.stored_text import restored, spelled, stored
from modelwright.errors import ModelwrightError
from modelwright.types import (
    Array,
    Columns,
    Encoded,
    Example,
    Shortened,
    Span,
    Text,
    Turn,
    ragged_column,
)

TEMPERATURE = 0.05  # of scores between 0 and 1
CHOSEN = "chosen"  # the label of the sentences that a reference is best made of


class Codec:
    """A tokenizer, and how many sentences an answer has."""

    ragged = ("tokens", "ends", "bounds", "scores", "source")
    packs = True
    head = "tokens"
    outputs = 1

    def __init__(
        self, text_codec: text.Codec | published_text.Codec, *, longest: int, take: int
    ) -> None:
        if longest < 4:
            raise ModelwrightError(
                f"codec.longest: {longest} leaves no room for a token and the end; raise it"
            )
        self.text, self.longest, self.take = text_codec, longest, take
        self.vocabulary = text_codec.vocabulary
        self.before: list[int] = list(getattr(text_codec, "before", ()))
        self.after: list[int] = list(getattr(text_codec, "after", ())) or [text_codec.end]

    @classmethod
    def fit(
        cls, examples: Iterable[Example], *, vocabulary: int = 8192, longest: int = 512
    ) -> Codec:
        """Learn tokens and how many sentences are chosen from the ``examples`` of train.

        Args:
            examples: each with a given turn of sentences, a Text part each, and to learn a Span
                for each of them with its score, those to choose labelled CHOSEN.
            vocabulary: how many tokens there shall be.
            longest: how many tokens of a text are read.
        """
        counts: list[int] = []

        def seen() -> Iterator[Example]:
            for example in examples:
                counts.append(_chosen(example))
                yield example

        tokenizer = text.Codec.fit(seen(), vocabulary=vocabulary)
        return cls(tokenizer, longest=longest, take=_usual(counts))

    @classmethod
    def around(
        cls, text_codec: published_text.Codec, examples: Iterable[Example], *, longest: int = 512
    ) -> Codec:
        """The same with a published tokenizer."""
        return cls(text_codec, longest=longest, take=_usual([_chosen(e) for e in examples]))

    def encode(self, example: Example) -> Encoded:
        """An example as arrays.

        ``tokens`` (T,); of the S sentences that were read ``ends`` (S,), the token at which each is
        scored, ``bounds`` (S, 2), its characters, and ``scores`` (S,), -1 where they are not known;
        ``source``, the example as JSON.

        Raises:
            ModelwrightError: no sentence is given.
        """
        sentences = [
            p.text for t in example.turns if not t.learn for p in t.parts if isinstance(p, Text)
        ]
        if not sentences:
            raise ModelwrightError("no sentence to choose; write some text")
        answer = next((turn for turn in example.turns if turn.learn), None)
        spans = None if answer is None else answer.spans
        tokens, ends = [*self.before], list[int]()
        for sentence in sentences:
            room = self.longest - len(tokens) - len(self.after)
            found = self.text.tokens(sentence)
            if len(found) > room and (ends or room < 1):
                break
            tokens += [*found[:room], *self.after]
            ends.append(len(tokens) - 1)
        at = np.cumsum([0, *map(len, sentences)])
        scores = np.full(len(ends), -1.0, dtype=np.float32)
        if spans is not None:
            of = {span.begin: span.score for span in spans}
            scores[:] = [of.get(int(begin), 0.0) for begin in at[: len(ends)]]
        small = np.uint16 if self.vocabulary <= 1 << 16 else np.uint32
        encoded = {
            "tokens": np.array(tokens, dtype=small),
            "ends": np.array(ends, dtype=np.int32),
            "bounds": np.stack([at[:-1], at[1:]], axis=1)[: len(ends)].astype(np.int32),
            "scores": scores,
            "source": stored("".join(sentences), sentences, _plain(answer)),
        }
        return Shortened.where(len(ends) < len(sentences), encoded)

    def example(self, encoded: Encoded) -> Example:
        """The example that ``encode`` was given."""
        whole, sentences, said = restored(encoded["source"])
        given = Turn("user", tuple(map(Text, sentences)))
        if said is None:
            return Example((given,))
        texts, spans = said
        parts = [Span(a, b, kind, score, whole[a:b]) for a, b, kind, score in spans]
        return Example((given, Turn("assistant", (*map(Text, texts), *parts), learn=True)))

    def tensors(self, columns: Columns) -> dict[str, Tensor]:
        """Tensors of all texts, one after another.

        ``tokens`` (N,) and ``starts`` (B + 1,) int64; ``allowed`` bool and ``wanted`` float32
        (N, 1), at the ends of sentences; ``known`` (B,) bool; ``ends`` (S,), ``sentences`` (B + 1,)
        and ``bounds`` (S, 2) int64.
        """
        tokens, ends = ragged_column(columns, "tokens"), ragged_column(columns, "ends")
        scores = ragged_column(columns, "scores")
        places = np.repeat(tokens.offsets[:-1], ends.lengths) + ends.values
        allowed = np.zeros((len(tokens.values), 1), dtype=np.bool_)
        wanted = np.zeros(allowed.shape, dtype=np.float32)
        allowed[places] = True
        shares = [_shares(np.asarray(scores[row])) for row in range(len(scores))]
        wanted[places, 0] = np.concatenate(shares)
        known = [float(np.min(scores[row])) >= 0 for row in range(len(scores))]
        bounds = np.asarray(ragged_column(columns, "bounds").values)
        return {
            "tokens": torch.from_numpy(np.asarray(tokens.values).astype(np.int64)),
            "starts": torch.from_numpy(np.array(tokens.offsets, dtype=np.int64)),
            "allowed": torch.from_numpy(allowed),
            "wanted": torch.from_numpy(wanted),
            "known": torch.tensor(known),
            "ends": torch.from_numpy(places.astype(np.int64)),
            "sentences": torch.from_numpy(np.array(ends.offsets, dtype=np.int64)),
            "bounds": torch.from_numpy(bounds.astype(np.int64)),
        }

    def read(self, logits: Tensor, targets: Mapping[str, Tensor], starts: Tensor) -> Tensor:  # noqa: ARG002
        """The best ``take`` sentences by logits (N, 1), in their order, float64 (B, take, 3).

        First character, the one after the last, and the share of the softmax; -1 where a text has
        fewer sentences.
        """
        z = logits.detach().double().cpu()[targets["ends"].cpu(), 0]
        bounds = targets["bounds"].cpu()
        of = targets["sentences"].tolist()
        found = torch.full((len(of) - 1, self.take, 3), -1.0, dtype=torch.float64)
        for row, (a, b) in enumerate(pairwise(of)):
            shares = z[a:b].softmax(0)
            order = shares.argsort(descending=True, stable=True)  # of equals the first
            best = order[: self.take].sort().values
            found[row, : len(best), :2] = bounds[a:b][best].double()
            found[row, : len(best), 2] = shares[best]
        return found

    def decode(self, outputs: Tensor) -> list[Turn]:
        """What ``read`` found as turns, a span for every sentence."""
        return [
            Turn("assistant", tuple(Span(int(a), int(b), score=p) for a, b, p in row if a >= 0))
            for row in outputs.tolist()
        ]

    def spelled(self, turns: Sequence[Turn], columns: Columns) -> list[Turn]:
        """The turns with the words of their sentences."""
        return spelled(turns, columns)

    def save(self) -> dict[str, bytes]:
        """The tokenizer's files and ``sentences.json``."""
        facts = {"longest": self.longest, "take": self.take}
        return {**self.text.save(), "sentences.json": json.dumps(facts).encode()}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Codec:
        """Read what ``save`` wrote."""
        kind = published_text if published_text.FACTS in files else text
        return cls(kind.Codec.load(files), **json.loads(files["sentences.json"]))


def _chosen(example: Example) -> int:
    return sum(span.label == CHOSEN for turn in example.turns if turn.learn for span in turn.spans)


def _usual(counts: Sequence[int]) -> int:
    """The usual number of chosen sentences, at least one."""
    return max(1, round(statistics.fmean(counts))) if counts else 1


def _shares(scores: Array) -> Array:
    """The wanted share of every sentence; zero where the scores are not known."""
    if scores.min() < 0:
        return np.zeros(len(scores))
    raised = np.exp((scores - scores.max()) / TEMPERATURE)
    shares: Array = raised / raised.sum()
    return shares


def _plain(answer: Turn | None) -> list[object] | None:
    """An answer as plain values: its texts, and its spans."""
    if answer is None:
        return None
    texts = [part.text for part in answer.parts if isinstance(part, Text)]
    return [texts, [[s.begin, s.end, s.label, s.score] for s in answer.spans]]
