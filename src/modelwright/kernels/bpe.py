"""Byte-level BPE in C++; see ``bpe.cpp``."""

from __future__ import annotations

import ctypes
import functools
import threading
import weakref
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from modelwright.kernels.build import library

UNKNOWN = 255
POINTS = 0x110000
Uint32 = NDArray[np.uint32]
Int64 = NDArray[np.int64]


@functools.cache
def _kernel() -> ctypes.CDLL | None:
    kernel = library("bpe", ())
    if kernel is not None:
        pointer, whole = ctypes.c_void_p, ctypes.c_long
        kernel.bpe_new.argtypes = [pointer, whole, pointer, pointer, pointer]
        kernel.bpe_new.restype = pointer
        kernel.bpe_free.argtypes = [pointer]
        kernel.bpe_free.restype = None
        kernel.bpe_encode.argtypes = [
            pointer, ctypes.c_char_p, whole, pointer, ctypes.c_int, pointer
        ]  # fmt: skip
        kernel.bpe_encode.restype = whole
        kernel.bpe_encode_many.argtypes = [
            *(pointer, pointer, pointer, whole, pointer, ctypes.c_int, ctypes.c_uint32),
            *(pointer, pointer, pointer),
        ]
        kernel.bpe_encode_many.restype = whole
    return kernel


def native() -> bool:
    """Whether the kernel can be compiled and loaded here."""
    return _kernel() is not None


class Encoder:
    """One tokenizer; threads that share it wait for each other.

    ``classes(first)`` gives the classes of the 256 code points from ``first``: 1 letter,
    2 number, 4 white space, 0 none of them; uint8, (256,).

    Attributes:
        odd: the first turn whose own bytes come to other turns, or None.
    """

    def __init__(
        self,
        merges: Uint32,
        byte_turns: Uint32,
        ids: Uint32,
        *,
        pattern: int,
        classes: Callable[[int], NDArray[np.uint8]],
    ) -> None:
        """A tokenizer.

        Args:
            merges: (merges, 2): the turns, made before, that each joins to turn 256 + its number.
            byte_turns: (256,), the turn of every byte, below 256.
            ids: (256 + merges,), the token id of every turn.
            pattern: 0 ours, 1 GPT-2's, 2 GPT-4's, 3 the same with single digits.
            classes: see above; asked once for every block of text that comes up.
        """
        kernel = _kernel()
        if kernel is None:
            raise RuntimeError("bpe: no kernel; ask native() first")
        self._encode, self._encode_many = kernel.bpe_encode, kernel.bpe_encode_many
        self._pattern, self._classes = pattern, classes
        self._one = threading.Lock()  # a call leaves words and ids in memory of the tokenizer's
        given = [np.ascontiguousarray(a, dtype=np.uint32) for a in (merges, byte_turns, ids)]
        places = [a.ctypes.data for a in given]
        odd = ctypes.c_long()
        self._made = kernel.bpe_new(
            places[0], len(merges), places[1], places[2], ctypes.addressof(odd)
        )
        self.odd = None if odd.value < 0 else odd.value
        self._free = weakref.finalize(self, kernel.bpe_free, self._made)
        self._table = np.full(POINTS, UNKNOWN, dtype=np.uint8)
        self._table_at = self._table.ctypes.data
        self._room(1 << 12)

    def _room(self, size: int) -> None:
        self._out = np.empty(size, dtype=np.uint32)
        self._out_at = self._out.ctypes.data  # asked for once: it costs more than a short text

    def encode(self, text: bytes) -> Uint32:
        """Ids (T,) of valid UTF-8."""
        with self._one:
            if len(text) > len(self._out):
                self._room(2 * len(text))
            while True:
                count = self._encode(
                    self._made, text, len(text), self._table_at, self._pattern, self._out_at
                )
                if count >= 0:
                    return self._out[:count].copy()
                self._learn(count)

    def encode_many(
        self, data: NDArray[np.uint8], begins: Int64, ends: Int64, end: int
    ) -> tuple[Uint32, Int64]:
        """Ids (T,) of many texts behind one another, each ended by ``end``, and how many of each.

        Args:
            data: (bytes,), where the texts lie, each valid UTF-8.
            begins: (texts,), where each begins in it.
            ends: (texts,), where each ends.
            end: the id that ends a text.
        """
        data = np.ascontiguousarray(data)
        bounds = np.array([begins, ends], dtype=np.int64)
        rows = len(begins)
        out = np.empty(int((bounds[1] - bounds[0]).sum()) + rows, dtype=np.uint32)
        counts, done = np.empty(rows, dtype=np.int64), np.zeros(2, dtype=np.int64)
        with self._one:
            while missed := self._encode_many(
                *(self._made, data.ctypes.data, bounds.ctypes.data, rows, self._table_at),
                *(self._pattern, end, out.ctypes.data, counts.ctypes.data, done.ctypes.data),
            ):
                self._learn(missed)
        return out[: int(done[1])], counts

    def _learn(self, missed: int) -> None:
        """Ask for the classes that a call has stopped for."""
        first = (-1 - missed) // 256 * 256
        self._table[first : first + 256] = self._classes(first)
