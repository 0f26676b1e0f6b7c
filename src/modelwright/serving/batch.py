"""Continuous batching over one cache of keys and values: rows join, decode together, leave."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from modelwright.models.attention import Cache
from modelwright.serving.sampling import SamplingParams, sample
from modelwright.serving.spelling import TextStream
from modelwright.types import Turn

PREFILL_TOKENS = 2048  # prompts read in one step, padding included: bounds the wait of the others


class Generator(Protocol):
    """What a model offers to generate with a cache; see ``models.decoder``."""

    def new_cache(self, batch: int, capacity: int) -> Cache:
        """An empty cache for ``batch`` rows of at most ``capacity`` tokens."""
        ...

    def hidden(
        self, tokens: Tensor, cache: Cache | None = None, counts: Tensor | None = None
    ) -> Tensor:
        """The stream (B, T, width) for tokens (B, T) that continue the cache's rows."""
        ...

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (..., vocabulary)."""
        ...


class Speller(Protocol):
    """What a codec offers to generate text; see ``data.codecs.text``."""

    end: int
    special: frozenset[int]  # what ends an answer

    def prompt(self, turns: Sequence[Turn]) -> list[int]:
        """Tokens after which the answer follows."""
        ...

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text."""
        ...

    def spell(self, tokens: Iterable[int]) -> bytes:
        """The bytes that tokens spell."""
        ...


@dataclass(frozen=True)
class Request:
    """A prompt of token ids, or the source of an encoder-decoder, and how to go on from it."""

    tokens: Sequence[int]
    params: SamplingParams = field(default_factory=SamplingParams)


@dataclass(frozen=True)
class Completion:
    """A finished answer.

    ``tokens`` are those generated, without the special token that ended them; ``text`` ends
    before a stop text and drops half a character; ``finish_reason`` is "stop" (the model or a
    stop text ended it), "length" or "cancelled"; ``seconds`` run from the
    request to the last token.
    """

    tokens: list[int]
    text: str
    finish_reason: str
    prompt_tokens: int
    seconds: float


Event = str | Completion | Exception  # a piece of text, the end, or what went wrong
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The listener of requests that are only read when finished."""


class Row:
    """One request on its way: what it has generated and where its tokens lie in the cache.

    ``prompt`` is what the decoder reads before it writes: the request's tokens, or where those are
    a source that an encoder reads, the codec's ``opening``.
    """

    def __init__(
        self, request: Request, max_tokens: int, codec: Speller, listener: Listener = ignore
    ) -> None:
        self.request, self.max_tokens, self.codec = request, max_tokens, codec
        self.listener = listener
        self.prompt: Sequence[int] = getattr(codec, "opening", request.tokens)
        self.generator = request.params.generator()
        self.tokens: list[int] = []
        self.cached = 0  # tokens of prompt and answer whose keys and values the cache holds
        self.finish_reason: str | None = None
        self.cancelled = False
        self._stream = TextStream(request.params.stop)
        self._pieces: list[str] = []
        self._start = time.perf_counter()

    def take(self, token: int) -> None:
        """Add a generated token; tell the listener what text it made certain."""
        if token in self.codec.special:
            self._finish("stop")
            return
        spelled = self.codec.spell([token])
        if not self.tokens and getattr(self.codec, "spaced", False):
            spelled = spelled.removeprefix(b" ")  # stands before a text, and is none of it
        self.tokens.append(token)
        self._say(self._stream.feed(spelled))
        if self._stream.stopped:
            self._finish("stop")
        elif len(self.tokens) >= self.max_tokens:
            self._finish("length")

    def read(self, position: int) -> int:
        """The token at a position of prompt and answer, -1 before the first."""
        if position < len(self.prompt):
            return self.prompt[position] if position >= 0 else -1
        return self.tokens[position - len(self.prompt)]

    def cancel(self) -> None:
        """Tell the listener that nothing more will come."""
        self._finish("cancelled")

    def end(self) -> None:
        """Finish as if the model had ended the answer, or as it is where it is full."""
        if self.finish_reason is None:
            self._finish("stop" if len(self.tokens) < self.max_tokens else "length")

    def _finish(self, reason: str) -> None:
        self.finish_reason = reason
        self._say(self._stream.close())
        self.listener(self.completion())

    def _say(self, piece: str) -> None:
        if piece:
            self._pieces.append(piece)
            self.listener(piece)

    def completion(self) -> Completion:
        """What the row has come to."""
        return Completion(
            tokens=self.tokens,
            text="".join(self._pieces),
            finish_reason=self.finish_reason or "length",
            prompt_tokens=len(self.request.tokens),
            seconds=time.perf_counter() - self._start,
        )


def next_group(waiting: deque[Row], free: int) -> list[Row]:
    """Take from ``waiting``, in order, the rows to read next: as fit the batch and one step."""
    group: list[Row] = []
    longest = 0
    while waiting and len(group) < free:
        longest = max(longest, len(waiting[0].request.tokens))
        if group and longest * (len(group) + 1) > PREFILL_TOKENS:
            break
        group.append(waiting.popleft())
    return group


class Batch:
    """The rows that decode together, each in its slot of one cache.

    Live rows fill the first slots without a gap, so a step computes on a view of exactly those;
    a row that leaves is replaced by the last one, the only copy ever made.
    """

    def __init__(self, model: Generator, size: int, capacity: int) -> None:
        self.model, self.size = model, size
        self.cache = self.new_cache(capacity)
        self.rows: list[Row] = []

    def new_cache(self, capacity: int) -> Cache:
        """An empty cache of as many rows as the batch may have."""
        return self.model.new_cache(self.size, capacity)

    @property
    def free(self) -> int:
        """How many rows can still join."""
        return self.size - len(self.rows)

    def join(self, group: Sequence[Row]) -> None:
        """Read the prompts of new rows into the cache and draw their first tokens."""
        if group:
            self._draw(group, self.read(group))

    def read(self, group: Sequence[Row]) -> Tensor:
        """Read the prompts of new rows into the cache: the stream (B, width) at their ends."""
        first = len(self.rows)
        self.rows.extend(group)
        counts = [len(row.prompt) for row in group]
        padded = torch.zeros(len(group), max(counts), dtype=torch.long)
        for i, row in enumerate(group):
            padded[i, : counts[i]] = torch.as_tensor(row.prompt)
        at = self.cache.lengths.device
        stream = self.model.hidden(
            padded.to(at), cache=self.view(first), counts=torch.tensor(counts, device=at)
        )
        for row, count in zip(group, counts, strict=True):
            row.cached = count
        ends = torch.tensor(counts, device=at) - 1
        return stream[torch.arange(len(group), device=at), ends]

    def step(self) -> None:
        """One more token for every row."""
        if not self.rows:
            return
        newest = [[row.tokens[-1]] for row in self.rows]
        tokens = torch.tensor(newest, device=self.cache.lengths.device)
        stream = self.model.hidden(tokens, cache=self.view(0))
        for row in self.rows:
            row.cached += 1
        self._draw(list(self.rows), stream[:, 0])

    def leave(self, rows: Collection[Row]) -> None:
        """Free the slots of some rows."""
        for row in rows:
            slot = self.rows.index(row)
            last = self.rows.pop()
            if last is not row:
                self.rows[slot] = last
                self._move(last, len(self.rows), slot)

    def _move(self, row: Row, origin: int, slot: int) -> None:
        """Copy what the cache holds of a row into another slot."""
        for stored in (*self.cache.keys, *self.cache.values):
            stored[slot, :, : row.cached] = stored[origin, :, : row.cached]

    def view(self, first: int) -> Cache:
        """The slots from ``first`` to the last live one, sharing memory with the whole cache."""
        slots = slice(first, len(self.rows))
        lengths = torch.tensor([row.cached for row in self.rows[slots]])
        previous = torch.tensor([row.read(row.cached - 1) for row in self.rows[slots]])
        at = self.cache.lengths.device
        return Cache(
            [k[slots] for k in self.cache.keys],
            [v[slots] for v in self.cache.values],
            lengths.to(at),
            previous.to(at),
        )

    def _draw(self, rows: Sequence[Row], stream: Tensor) -> None:
        """Draw a token for each row from its last position of the stream (B, width)."""
        params = [row.request.params for row in rows]
        chosen = sample(self.model.head(stream), params, [row.generator for row in rows])
        for row, token in zip(rows, chosen, strict=True):
            row.take(token)
        self.leave([row for row in rows if row.finish_reason])
