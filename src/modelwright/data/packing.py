"""Pack documents into rows of one length: nothing dropped, little padded, few documents cut.

Documents longer than a row are split, and only those: whole rows of them stand alone, and what
is left over is packed like a document. Best fit decreasing (Johnson 1973): by falling length,
each piece goes to the fullest row that still has room for it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwright.errors import ModelwrightError

Int64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Packing:
    """A plan: row r holds the pieces ``first[r] : first[r + 1]``, one behind the other.

    Attributes:
        length: the room of a row, in tokens.
        first: (rows + 1,), the first piece of every row.
        documents: (pieces,), the document a piece is of.
        starts: (pieces,), where it begins in that document.
        sizes: (pieces,), how many tokens it has.
    """

    length: int
    first: Int64
    documents: Int64
    starts: Int64
    sizes: Int64

    def __len__(self) -> int:
        return len(self.first) - 1

    def row(self, number: int) -> list[tuple[int, int, int]]:
        """The pieces of a row: (document, start, size)."""
        at = slice(int(self.first[number]), int(self.first[number + 1]))
        columns = (self.documents[at], self.starts[at], self.sizes[at])
        return list(zip(*(c.tolist() for c in columns), strict=True))

    def report(self) -> dict[str, Any]:
        """``rows``, ``tokens``, the share of ``padding``, and of documents that are ``cut``."""
        tokens, room = int(self.sizes.sum()), len(self) * self.length
        _, pieces = np.unique(self.documents, return_counts=True)
        return {
            "length": self.length,
            "rows": len(self),
            "tokens": tokens,
            "padding": 1 - tokens / room if room else 0.0,
            "cut": float((pieces > 1).mean()) if len(pieces) else 0.0,
        }


def pack(lengths: Int64, length: int) -> Packing:
    """The plan for documents of ``lengths`` (documents,) tokens in rows of ``length``.

    The same lengths give the same plan. Time grows with documents times log(length).

    Raises:
        ModelwrightError: a row without room, or a negative length.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if length < 1 or (len(lengths) and int(lengths.min()) < 0):
        raise ModelwrightError(
            f"packing: rows of {length} tokens, or a document of fewer than 0; give 1 or more"
        )
    whole, rest = np.divmod(lengths, length)
    full = np.repeat(np.arange(len(lengths)), whole)
    before = np.repeat(np.cumsum(whole) - whole, whole)
    full_starts = (np.arange(len(full)) - before) * length
    left = np.flatnonzero(rest)
    order = left[np.argsort(-rest[left], kind="stable")]
    rows = _best_fit(rest[order].tolist(), length)
    packed = np.argsort(rows, kind="stable")  # pieces of a row together, the longest first
    pieces = order[packed]
    per_row = np.concatenate(
        [np.ones(len(full), np.int64), np.bincount(rows).astype(np.int64)[: len(rows)]]
    )
    return Packing(
        length,
        np.concatenate([[0], np.cumsum(per_row)]).astype(np.int64),
        np.concatenate([full, pieces]).astype(np.int64),
        np.concatenate([full_starts, whole[pieces] * length]).astype(np.int64),
        np.concatenate([np.full(len(full), length), rest[pieces]]).astype(np.int64),
    )


def _best_fit(sizes: list[int], length: int) -> Int64:
    """The row of every piece, whose sizes fall and are below ``length``."""
    rows = np.empty(len(sizes), dtype=np.int64)
    open_rows: dict[int, list[int]] = {}  # room left -> rows, the last one opened first
    rooms: list[int] = []  # the keys of open_rows, rising
    count = 0
    for i, size in enumerate(sizes):
        at = bisect_left(rooms, size)
        if at == len(rooms):
            row, room = count, length
            count += 1
        else:
            room = rooms[at]
            row = open_rows[room].pop()
            if not open_rows[room]:
                del open_rows[room]
                del rooms[at]
        rows[i] = row
        if room := room - size:
            if room not in open_rows:
                open_rows[room] = []
                insort(rooms, room)
            open_rows[room].append(row)
    return rows
