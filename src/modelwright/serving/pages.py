"""Memory of a cache that is there only where something has been written.

Every row of a batch has a slot as long as the context, but a slot is no more than addresses: the
system puts a page behind them when the first token is written there, and takes all pages of a slot
back when its row leaves. So a short answer costs what a short answer needs, whatever the context,
and attention reads one tensor without a table of blocks (the idea is that of arXiv:2405.04437,
whose pages are a GPU's). Elsewhere than on a CPU under Linux the tensors are whole from the start.
"""

from __future__ import annotations

import math
import mmap
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from modelwright.models.attention import Cache

_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # not all of it is ever needed; Python 3.12 on


class Pages:
    """The memory behind the slots of one cache."""

    def __init__(self) -> None:
        self._maps: list[tuple[mmap.mmap, int]] = []  # and how many bytes a slot has of each

    def filled_in(self, cache: Cache, capacity: int) -> Cache:
        """The cache with room for ``capacity`` tokens a row in place of what it has."""
        cache.keys = [self.tensor(kept, capacity) for kept in cache.keys]
        cache.values = [self.tensor(kept, capacity) for kept in cache.values]
        return cache

    def tensor(self, like: Tensor, capacity: int) -> Tensor:
        """Zeros (B, heads, capacity, d) of the kind of ``like`` (B, heads, any, d)."""
        shape = (*like.shape[:2], capacity, *like.shape[3:])
        size = math.prod(shape) * like.element_size()
        if like.device.type != "cpu" or not size or sys.platform != "linux":
            return like.new_zeros(shape)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
        memory = mmap.mmap(-1, size, flags=flags)
        memory.madvise(mmap.MADV_NOHUGEPAGE)  # a token must not cost two megabytes
        self._maps.append((memory, size // shape[0]))
        return torch.frombuffer(memory, dtype=like.dtype).view(shape)

    def free(self, slots: Sequence[int]) -> None:
        """Give back what is behind some slots; they read as zero, or as before at their edges."""
        page = mmap.PAGESIZE
        for memory, size in self._maps:
            for slot in slots:
                first = -(-slot * size // page) * page
                length = (slot + 1) * size // page * page - first
                if length > 0:
                    memory.madvise(mmap.MADV_DONTNEED, first, length)
