"""Copies that the gate has found across the split: told to ``resolve``, which decides again.

MinHash misses a pair at the threshold once in some ten thousand, so among millions of copies a few
stay on two sides by chance. The gate looks with other hash functions and finds them; they are then
pairs like any other. Views of train rows may equal a held-out row as well, such as a board turned
round; then the row that the view was made of goes where the other one is.

What was found is kept in ``missed.json`` with a mark of what ``resolve`` reads, so that a run that
is gone on with, on whatever engine, decides what a run that nobody disturbed decides.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwright.data.corpus.sketch import Rows, row_hash
from modelwright.files import replace_file
from modelwright.kernels.shingles import Hashes

MISSED = "missed.json"
ROUNDS = 5  # of looking and deciding again; each needs copies that no round before has found

Pair = list[Any]  # id, id, similarity; None: they only have to stay on one side


def stored(folder: Path, mark: str) -> list[Pair]:
    """What was missed by the deduplication of this mark, as far as it is known."""
    try:
        found: dict[str, Any] = json.loads((folder / MISSED).read_bytes())
        return list(found["pairs"]) if found["mark"] == mark else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def store(folder: Path, mark: str, pairs: Sequence[Pair]) -> None:
    """Keep what was missed; where nothing was, there is no file."""
    path = folder / MISSED
    if not pairs:
        path.unlink(missing_ok=True)
        return
    content = json.dumps({"mark": mark, "pairs": list(pairs)}, indent=1).encode() + b"\n"
    if not path.exists() or path.read_bytes() != content:
        replace_file(path, content)


def placed(
    pairs: Sequence[Pair], names: Hashes
) -> tuple[NDArray[np.int64], NDArray[np.float64], Rows]:
    """Near duplicates, (n, 2), their similarity, and further rows to keep together, (m, 2).

    Args:
        pairs: what was missed. A view, "ID~1", stands for the row that it was made of, which is
            no copy itself.
        names: hashes of the ids of all rows.
    """
    near: list[tuple[int, int]] = []
    together: list[tuple[int, int]] = []
    similarity: list[float] = []
    order = np.argsort(names, kind="stable") if pairs else np.empty(0, np.int64)

    def place(id_: str) -> int | None:
        hashed = np.uint64(row_hash(id_))
        at = int(np.searchsorted(names, hashed, sorter=order))
        return int(order[at]) if at < len(order) and names[order[at]] == hashed else None

    for one, two, likeness in pairs:
        exact = [place(one), place(two)]
        rows = [p if p is not None else place(i.rpartition("~")[0]) for p, i in
                zip(exact, (one, two), strict=True)]  # fmt: skip
        if None in rows or rows[0] == rows[1]:
            continue
        low, high = sorted(row for row in rows if row is not None)
        if likeness is None or None in exact:
            together.append((low, high))
        else:
            near.append((low, high))
            similarity.append(likeness)
    return (
        np.array(near, np.int64).reshape(-1, 2),
        np.array(similarity),
        np.array(together, np.int64).reshape(-1, 2),
    )
