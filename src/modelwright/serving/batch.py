"""Continuous batching over one cache of keys and values: rows join, decode together, leave."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import torch
from torch import Tensor

from modelwright.errors import ModelwrightError
from modelwright.models.attention import Cache
from modelwright.models.routed import routed
from modelwright.serving.pages import Pages
from modelwright.serving.prefixes import BLOCK, Prefixes
from modelwright.serving.row import (
    Completion,
    Event,
    Listener,
    Request,
    Row,
    Score,
    Scored,
    Speller,
    ignore,
)
from modelwright.serving.sampling import check_finite, sample
from modelwright.serving.waiting import PREFILL_TOKENS

__all__ = [
    "Batch",
    "Completion",
    "Event",
    "Generator",
    "Listener",
    "Request",
    "Row",
    "Scored",
    "Speller",
    "ignore",
]

BESIDE_TOKENS = PREFILL_TOKENS // 4  # read in one step while others wait for their next token
HEAD_ROWS = 256  # positions of a prompt whose logits are in memory at once


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


class Batch:
    """The rows that decode together, each in its slot of one cache.

    A slot takes the memory of what is in it (``pages``).
    Live rows fill the first slots without a gap, first the ``ready`` ones whose prompts are read,
    so a step computes on a view of exactly those; a row that leaves is replaced by the last one.
    A long prompt is read in chunks between the tokens of the others, and prompts take turns.

    Args:
        model: what is asked.
        size: how many rows there may be.
        capacity: tokens of the longest.
        prefixes: beginnings of prompts to share; None shares none.
        alone: compute every row by itself and prompts in blocks of one size, so that not one
            rounding depends on the other rows, or on what is shared (law 5 bit for bit).
    """

    def __init__(
        self,
        model: Generator,
        size: int,
        capacity: int,
        *,
        prefixes: Prefixes | None = None,
        alone: bool = False,
    ) -> None:
        self.model, self.size, self.capacity = model, size, capacity
        self.prefixes, self.alone = prefixes, alone
        self._pages = Pages()
        self.cache = self._pages.filled_in(self.new_cache(), capacity)
        self.rows: list[Row] = []
        self.ready = 0
        self._steps = 0

    def new_cache(self) -> Cache:
        """A cache of as many rows as the batch may have, with room for a token each."""
        return self.model.new_cache(self.size, 1)

    @property
    def free(self) -> int:
        """How many rows can still join."""
        return self.size - len(self.rows)

    @property
    def held(self) -> int:
        """Tokens in the cache."""
        return sum(row.cached for row in self.rows)

    @property
    def promised(self) -> int:
        """Tokens that the rows may come to hold."""
        return sum(row.room for row in self.rows)

    # Rows that come and go -------------------------------------------------------------------

    def join(self, group: Sequence[Row]) -> None:
        """Give new rows their slots; ``step`` reads their prompts."""
        for row in group:
            slot = len(self.rows)
            self.rows.append(row)
            # A prompt whose own likelihood is asked for must be read as a whole.
            if self.prefixes is not None and not row.request.params.echo:
                self.prefixes.restore(row, self.cache, slot)

    def leave(self, rows: Collection[Row]) -> None:
        """Free the slots of some rows."""
        for row in rows:
            slot = self.rows.index(row)
            if slot < self.ready:
                self.ready -= 1
                self._fill(slot, self.ready)
                slot = self.ready
            self._fill(slot, len(self.rows) - 1)
            self.rows.pop()
            self._free([len(self.rows)])

    def clear(self) -> list[Row]:
        """Free all slots: the rows that had them."""
        rows, self.rows[:], self.ready = list(self.rows), [], 0
        self._free(range(len(rows)))
        return rows

    def _free(self, slots: Sequence[int]) -> None:
        """Give back the memory of slots that no row has."""
        self._pages.free(slots)

    def _fill(self, slot: int, origin: int) -> None:
        if slot != origin:
            self._free([slot])  # who leaves may have had more than who comes
            self.rows[slot] = self.rows[origin]
            self._move(self.rows[slot], origin, slot)

    def _swap(self, one: int, other: int) -> None:
        """Exchange the rows of two slots."""
        if one == other:
            return
        a, b = self.rows[one], self.rows[other]
        kept = [(stored, stored[one, :, :length].clone()) for stored, length in self._parts(a)]
        self._free([one])
        self._move(b, other, one)
        self._free([other])
        for stored, part in kept:
            stored[other, :, : part.shape[1]] = part
        self.rows[one], self.rows[other] = b, a

    def _move(self, row: Row, origin: int, slot: int) -> None:
        """Copy what the cache holds of a row into another slot."""
        for stored, length in self._parts(row):
            stored[slot, :, :length] = stored[origin, :, :length]

    def _parts(self, row: Row) -> list[tuple[Tensor, int]]:
        """The tensors (size, heads, positions, d) that hold a row, and how much of them is its."""
        return [(stored, row.cached) for stored in (*self.cache.keys, *self.cache.values)]

    def view(self, first: int, last: int | None = None) -> Cache:
        """The slots from ``first`` to the last live one, sharing memory with the whole cache."""
        slots = slice(first, len(self.rows) if last is None else last)
        lengths = torch.tensor([row.cached for row in self.rows[slots]])
        previous = torch.tensor([row.read(row.cached - 1) for row in self.rows[slots]])
        at = self.cache.lengths.device
        return Cache(
            [k[slots] for k in self.cache.keys],
            [v[slots] for v in self.cache.values],
            lengths.to(at),
            previous.to(at),
        )

    # Reading prompts -------------------------------------------------------------------------

    def read(self, group: Sequence[Row]) -> Tensor:
        """Read the prompts of new rows as a whole: the stream (B, width) at their ends."""
        first = len(self.rows)
        self.join(group)
        counts = [row.unread for row in group]
        stream = self._hidden(first, len(self.rows), [row.prompt for row in group])
        self.ready = len(self.rows)
        ends = torch.tensor(counts, device=stream.device) - 1
        return stream[torch.arange(len(group), device=stream.device), ends]

    def _hidden(self, first: int, last: int, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Read on with the rows of some slots: the stream (B, T, width) of their tokens."""
        counts = [len(part) for part in tokens]
        padded = torch.zeros(len(tokens), max(counts), dtype=torch.long)
        for i, part in enumerate(tokens):
            padded[i, : counts[i]] = torch.as_tensor(part)
        at = self.cache.lengths.device
        with routed([row.adapter for row in self.rows[first:last]]):
            stream = self.model.hidden(
                padded.to(at), cache=self.view(first, last), counts=torch.tensor(counts, device=at)
            )
        for row, count in zip(self.rows[first:last], counts, strict=True):
            row.cached += count
        return stream

    def _readers(self) -> tuple[list[Row], int]:
        """Whose prompts are read on in this step, and how many tokens of each at most.

        Who has waited longest comes first; prompts that can be finished with it go along.
        """
        reading = sorted(self.rows[self.ready :], key=lambda row: row.served)
        budget = BLOCK if self.alone else BESIDE_TOKENS if self.ready else PREFILL_TOKENS
        group = reading[:1]
        if self.alone or group[0].unread > budget:
            return group, budget
        longest, furthest = group[0].unread, group[0].cached
        for row in reading[1:]:
            wide, far = max(longest, row.unread), max(furthest, row.cached)
            if wide * (len(group) + 1) <= budget and far + wide <= self.capacity:
                group.append(row)
                longest, furthest = wide, far
        return group, budget

    def _read_on(self) -> None:
        """Read a chunk of the prompts that are not read yet; draw first tokens where that ends."""
        if self.ready == len(self.rows):
            return
        group, most = self._readers()
        self._steps += 1
        for place, row in enumerate(group):
            row.served = self._steps
            self._swap(self.ready + place, self.rows.index(row))
        first, last = self.ready, self.ready + len(group)
        chunks = [row.prompt[row.cached : row.cached + min(row.unread, most)] for row in group]
        stream = self._hidden(first, last, chunks)
        for row, chunk, part in zip(group, chunks, stream, strict=True):
            if row.request.params.echo and row.scored:
                self._score_prompt(row, part[: len(chunk)])
        if group[0].unread:
            return
        self.ready = last
        if self.prefixes is not None:
            for slot, row in enumerate(group, first):
                self.prefixes.keep(row, self.cache, slot)
        ends = torch.tensor([len(chunk) - 1 for chunk in chunks], device=stream.device)
        at_ends = stream[torch.arange(len(group), device=stream.device), ends]
        whole = [row for row in group if row.max_tokens == 0]
        for row in whole:
            row.end()
        drawn = [i for i, row in enumerate(group) if row.max_tokens]
        if drawn:
            self._draw([group[i] for i in drawn], self._head(at_ends[drawn]))
        self.leave([row for row in group if row.finish_reason])

    def _score_prompt(self, row: Row, stream: Tensor) -> None:
        """Note the log-probabilities of the tokens after those that were read (T, width)."""
        if not row.prompt_scores:
            row.prompt_scores.append(Score(row.codec.spell([row.prompt[0]]), None))
        for part in torch.split(stream, HEAD_ROWS):
            logprobs = self._head(part).double().log_softmax(dim=-1).cpu()
            for one in logprobs:
                at = len(row.prompt_scores)
                if at < len(row.prompt):
                    row.prompt_scores.append(row.score(row.prompt[at], one))

    # Writing answers -------------------------------------------------------------------------

    def step(self) -> None:
        """Read on in some prompts, then one more token for every row that is ready, or several."""
        self._read_on()
        together = 1 if self.alone else self.ready
        for first in range(0, self.ready, together or 1):
            self._write(first, first + together)
        self.leave([row for row in self.rows[: self.ready] if row.finish_reason])

    def _write(self, first: int, last: int) -> None:
        """One more token for the rows of some slots, and what their drafts add."""
        rows = self.rows[first:last]
        # Padding is written behind a row's tokens, so the fullest row bounds what all may draft.
        room = self.capacity - max(row.cached for row in rows) - 1
        drafts = [row.draft(room) for row in rows]
        newest = [[row.tokens[-1], *draft] for row, draft in zip(rows, drafts, strict=True)]
        stream = self._hidden(first, last, newest)
        for row, draft in zip(rows, drafts, strict=True):
            row.cached -= len(draft)
        going = list(range(len(rows)))
        for place in range(stream.shape[1]):
            logits = self._head(stream[going, place])
            self._draw([rows[i] for i in going], logits)
            # A draft holds as far as it is what would have been drawn without it.
            going = [
                i
                for i in going
                if place < len(drafts[i])
                and not rows[i].finish_reason
                and rows[i].tokens[-1] == drafts[i][place]
            ]
            if not going:
                break
            for i in going:
                rows[i].cached += 1

    def _head(self, stream: Tensor) -> Tensor:
        logits = self.model.head(stream)
        check_finite(logits)
        return logits

    def _draw(self, rows: Sequence[Row], logits: Tensor) -> None:
        """Draw a token for each row from its logits (B, vocabulary)."""
        logprobs = {
            i: logits[i].double().log_softmax(dim=-1).cpu()
            for i, row in enumerate(rows)
            if row.scored
        }
        kept = []
        for i, row in enumerate(rows):
            try:
                if row.steering is not None:
                    logits[i] = row.steering.steered(logits[i])
                kept.append(i)
            except ModelwrightError as error:
                row.fail(error)
        if not kept:
            return
        params = [rows[i].request.params for i in kept]
        chosen = sample(logits[kept], params, [rows[i].generator for i in kept])
        for i, token in zip(kept, chosen, strict=True):
            try:
                rows[i].take(token, logprobs.get(i))
            except ModelwrightError as error:
                rows[i].fail(error)
