"""A batch of an encoder-decoder: every row has a source of its own, read once when it joins."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol, cast

import torch
from torch import Tensor

from modelwright.models.attention import Cache
from modelwright.models.encoder_decoder import PairCache
from modelwright.serving.batch import Batch, Row
from modelwright.serving.pages import Pages


class _Reader(Protocol):
    def new_cache(
        self, sources: Tensor, capacity: int, source_starts: Tensor | None = None
    ) -> PairCache: ...


class PairBatch(Batch):
    """Slots that also hold keys and values of the rows' sources, which never change.

    A request's tokens are its source; what its decoder reads first is the codec's opening.
    """

    cache: PairCache
    _sources: Pages | None = None

    def new_cache(self) -> Cache:
        """A cache whose sources are a token each, to be written over."""
        blank = torch.zeros(self.size, 1, dtype=torch.long, device=self._device)
        return cast(_Reader, self.model).new_cache(blank, 1)

    @property
    def _device(self) -> torch.device:
        return next(cast(torch.nn.Module, self.model).parameters()).device

    def join(self, group: Sequence[Row]) -> None:
        """Read the sources of new rows and give them their slots."""
        for part in [[row] for row in group] if self.alone else [group] * bool(group):
            self._read_sources(part)
            super().join(part)

    def _read_sources(self, group: Sequence[Row]) -> None:
        lengths = [len(row.request.tokens) for row in group]
        flat = [token for row in group for token in row.request.tokens]
        starts = torch.tensor([0, *accumulate(lengths)], device=self._device)
        sources = torch.tensor(flat, device=self._device)
        made = cast(_Reader, self.model).new_cache(sources, 1, starts)
        slots = slice(len(self.rows), len(self.rows) + len(group))
        longest = max(lengths)
        if longest > self.cache.cross[0][0].shape[2]:
            self._widen(max(longest, self.capacity))
        for stored, new in zip(self.cache.cross, made.cross, strict=True):
            for ours, theirs in zip(stored, new, strict=True):
                ours[slots, :, :longest] = theirs

    def _widen(self, longest: int) -> None:
        """Room for sources of ``longest`` tokens, which takes memory where one is read."""
        pages, count = Pages(), len(self.rows)

        def wider(kept: Tensor) -> Tensor:
            made = pages.tensor(kept, longest)
            made[:count, :, : kept.shape[2]] = kept[:count]
            return made

        self.cache.cross = [(wider(k), wider(v)) for k, v in self.cache.cross]
        self._sources = pages

    def _free(self, slots: Sequence[int]) -> None:
        super()._free(slots)
        if self._sources is not None:
            self._sources.free(slots)

    def _parts(self, row: Row) -> list[tuple[Tensor, int]]:
        length = len(row.request.tokens)
        sources = [(stored, length) for pair in self.cache.cross for stored in pair]
        return [*super()._parts(row), *sources]

    def view(self, first: int, last: int | None = None) -> PairCache:
        """Some slots of live rows, no wider than their longest source."""
        own = super().view(first, last)
        slots = slice(first, len(self.rows) if last is None else last)
        lengths = [len(row.request.tokens) for row in self.rows[slots]]
        span = max(lengths)
        return PairCache(
            own.keys,
            own.values,
            own.lengths,
            own.previous,
            cross=[(k[slots, :, :span], v[slots, :, :span]) for k, v in self.cache.cross],
            source_lengths=torch.tensor(lengths, device=self._device),
        )
