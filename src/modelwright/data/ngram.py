"""An n-gram model of bytes, or of any symbols of which there are at most 256."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from modelwright.errors import ModelwrightError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

BYTES = 256
BEGIN = 256  # stands before a document; it is seen in contexts and never predicted
BITS = 9  # of one symbol, 0..256, in a packed n-gram


class NGram:
    """A byte n-gram with interpolated modified Kneser-Ney smoothing.

    For a byte w after a context h of n - 1 symbols, with h' the context less its first symbol,

        p_n(w | h) = max(c(hw) - D(c(hw)), 0) / c(h) + γ(h) p_{n-1}(w | h'),
        γ(h) = Σ_w D(c(hw)) / c(h),    p_0 = 1/256,    p_n = p_{n-1} after an unseen context.

    At the highest order c counts occurrences; below it, the distinct symbols seen to the left.
    D takes one of three values, for counts of 1, of 2, and of 3 or more, estimated from the
    numbers n_k of n-grams with count k (Chen and Goodman 1998, equations 26 to 28).

    A document is read from its border: order - 1 begin symbols stand before it and nothing of
    another document is seen. There is no end symbol: only the bytes are predicted and paid for,
    so the bits per byte compare with those of gzip and of a model on the same bytes.

    An n-gram is packed into one integer of 9 bits a symbol, so a table is a sorted array.
    """

    def __init__(self, order: int = 5) -> None:
        if not 1 <= order <= 63 // BITS:
            raise ModelwrightError(f"n-gram baseline: order {order} is not in 1 to {63 // BITS}")
        self.order = order
        self._tables: list[_Table] = []
        self.counted: tuple[Ints, Ints] | None = None

    def fit(self, documents: Iterable[bytes]) -> Self:
        """Count the n-grams of the documents, which replace any seen before."""
        return self.restored(*_counted(self._packed(list(documents))))

    def restored(self, grams: Ints, counts: Ints) -> Self:
        """The model of the n-grams of the highest order, packed and sorted, as ``counted`` has."""
        self.counted = (grams, counts)
        tables = []
        for length in range(self.order, 0, -1):
            tables.append(_Table(grams, counts))
            # One shorter, each distinct longer n-gram counts once: Kneser-Ney's diversity.
            grams, counts = _counted(grams & _mask(length - 1))
        self._tables = tables[::-1]
        return self

    def bits_per_byte(self, documents: Iterable[bytes]) -> float:
        """-Σ log2 p(byte | its document so far) / number of bytes."""
        grams, counts = _counted(self._packed(list(documents)))
        bits = -np.log2(self._probabilities(grams))
        return float((bits * counts).sum() / counts.sum())

    def distribution(self, context: bytes) -> Floats:
        """Probabilities (256,) of the next byte of a document that began with ``context``."""
        packed = 0
        for symbol in [*[BEGIN] * (self.order - 1), *context][len(context) :]:
            packed = packed << BITS | symbol
        return self._probabilities((packed << BITS) + np.arange(BYTES, dtype=np.int64))

    def _probabilities(self, grams: Ints) -> Floats:
        """Probabilities (N,) of the last symbol of each packed n-gram after the others."""
        if not self._tables:
            raise ModelwrightError("n-gram baseline: nothing was counted yet; call fit first")
        p = np.full(len(grams), 1 / BYTES)
        for length, table in enumerate(self._tables, start=1):
            p = table.interpolate(grams & _mask(length), p)
        return p

    def _packed(self, documents: Sequence[bytes]) -> Ints:
        """The n-gram that ends at each byte of the documents, (bytes,)."""
        pad = self.order - 1
        total = sum(map(len, documents))
        if not total:
            raise ModelwrightError("n-gram baseline: the documents are empty; give some bytes")
        stream = np.full(total + pad * len(documents), BEGIN, dtype=np.uint16)
        place = 0
        for document in documents:
            place += pad
            stream[place : place + len(document)] = np.frombuffer(document, dtype=np.uint8)
            place += len(document)
        width = len(stream) - pad
        grams = np.zeros(width, dtype=np.int64)
        for i in range(self.order):  # in place: the stream may be tens of megabytes long
            grams <<= BITS
            grams |= stream[i : i + width]
        packed: Ints = grams[stream[pad:] != BEGIN]
        return packed


class _Table:
    """One order of the model: its n-grams and contexts, sorted, with what interpolation needs."""

    def __init__(self, grams: Ints, counts: Ints) -> None:
        discount = _discounts(counts)[np.minimum(counts, 3)]
        self.grams = grams
        self.contexts, first = np.unique(grams >> BITS, return_index=True)
        mass = np.add.reduceat(counts, first)  # c(h)
        self.gamma = np.add.reduceat(discount, first) / mass
        widths = np.diff(np.append(first, len(grams)))
        self.direct = (counts - discount) / np.repeat(mass, widths)

    def interpolate(self, grams: Ints, lower: Floats) -> Floats:
        """p_n from p_{n-1}, (N,) each."""
        place, seen = _find(self.grams, grams)
        direct = np.where(seen, self.direct[place], 0.0)
        place, known = _find(self.contexts, grams >> BITS)
        return np.where(known, direct + self.gamma[place] * lower, lower)


def _mask(length: int) -> int:
    """The bits of the last ``length`` symbols."""
    return (1 << BITS * length) - 1


def _counted(grams: Ints) -> tuple[Ints, Ints]:
    """Sorted distinct n-grams and how often each occurs."""
    distinct, counts = np.unique(grams, return_counts=True)
    return distinct, counts.astype(np.int64)


def _find(table: Ints, wanted: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """A place in the sorted table for each wanted integer, and whether it is really there."""
    place = np.minimum(np.searchsorted(table, wanted), len(table) - 1)
    return place, table[place] == wanted


def _discounts(counts: Ints) -> Floats:
    """(4,): what is taken from a count of 0, 1, 2, and 3 or more."""
    n1, n2, n3, n4 = (int((counts == k).sum()) for k in range(1, 5))
    fallback = np.array([0.0, 0.5, 1.0, 1.5])
    if not (n1 and n2 and n3):
        return fallback  # too few n-grams to estimate from: short orders, tiny texts
    y = n1 / (n1 + 2 * n2)
    d = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    # A discount of 0 would leave unseen bytes no mass; one above the count is no discount.
    return np.where((d > 0) & (d <= np.arange(4)), d, fallback)
