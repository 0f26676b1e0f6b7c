"""Beginnings of prompts that were read before: their keys and values, block by block.

A block is BLOCK tokens of a prompt. Its name is a hash over all tokens up to its end, the client
and the adapter, so that an equal name means an equal past: requests that begin with the same system
prompt read it once. Nobody can find out by the time an answer takes what another client has asked.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor

from modelwright.models.attention import Cache
from modelwright.serving.row import Row

BLOCK = 32  # tokens


class Prefixes:
    """The blocks used last, of at most ``capacity`` bytes together."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.bytes = 0
        self.asked = 0  # tokens of prompts that were looked for
        self.found = 0  # and that were here
        self._blocks: OrderedDict[bytes, list[Tensor]] = OrderedDict()

    def restore(self, row: Row, cache: Cache, slot: int) -> None:
        """Copy what is known of a row's prompt into its slot; at least a token is left to read."""
        tokens = row.prompt
        self.asked += len(tokens)
        for number, name in enumerate(_names(row.past, tokens[: len(tokens) - 1])):
            block = self._blocks.get(name)
            if block is None:
                break
            self._blocks.move_to_end(name)
            span = slice(number * BLOCK, (number + 1) * BLOCK)
            for stored, kept in zip((*cache.keys, *cache.values), block, strict=True):
                stored[slot, :, span] = kept
            row.cached = span.stop
        row.restored = row.cached
        self.found += row.restored

    def keep(self, row: Row, cache: Cache, slot: int) -> None:
        """Remember the whole blocks of a prompt that has been read."""
        for number, name in enumerate(_names(row.past, row.prompt)):
            if name in self._blocks:
                self._blocks.move_to_end(name)
                continue
            span = slice(number * BLOCK, (number + 1) * BLOCK)
            block = [stored[slot, :, span].clone() for stored in (*cache.keys, *cache.values)]
            self._blocks[name] = block
            self.bytes += _size(block)
        while self.bytes > self.capacity:
            self.bytes -= _size(self._blocks.popitem(last=False)[1])


def _size(block: Sequence[Tensor]) -> int:
    return sum(part.nbytes for part in block)


def _names(past: str, tokens: Sequence[int]) -> list[bytes]:
    """The names of the whole blocks of a prompt."""
    state = hashlib.blake2b(past.encode(), digest_size=16)
    names = []
    for first in range(0, len(tokens) - BLOCK + 1, BLOCK):
        state.update(array("q", tokens[first : first + BLOCK]).tobytes())
        names.append(state.copy().digest())
    return names
