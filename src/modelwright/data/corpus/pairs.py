"""Which rows of a corpus are the same, or nearly: candidates by band keys, then the true Jaccard.

Three stages, every one of units with bounded memory:

* ``pairs``: a unit takes a range of the band keys of all sketches. Rows that share a key are
  candidates, each with the first few of them only, so a key that k rows share costs a multiple
  of k, not k squared. Rows of equal content count once here: their pairs are exact by the hash.
* ``gather``: a unit writes the sets of word n-grams of its read unit's candidates.
* ``verify``: a unit compares the sets of all pairs that begin in its read unit.

What is found does not depend on the number of units, for a pair is a property of its two rows and
of the rows that share a key with them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwright.data.corpus import records
from modelwright.data.corpus.sketch import (
    READ,
    Rows,
    exact_key,
    load,
    save,
    sketch_of,
    starts,
    wanted,
)
from modelwright.data.corpus.unit import CORPUS, Facts, Unit, unit_folder
from modelwright.errors import CorruptError
from modelwright.kernels.shingles import Hashes, common, sets

PAIRS, GATHER, VERIFY = "pairs", "gather", "verify"
FIRST = 8  # candidates of a row under one key: the first of those that share it
MEMORY = 256 << 20  # bytes that a unit of pairs may take
_ENTRY_BYTES = 160  # of a key while it is sorted
_BATCH = 4 << 20  # characters whose n-grams are made at a time
_CHUNK = 1 << 16  # pairs compared at a time
_GROUPED = 1 << 19  # entries whose pairs are made at a time


def plan_pairs(folder: Path, read_units: Sequence[str], memory: int = MEMORY) -> list[Unit]:
    """Units of the stage ``pairs``: as many as keep each below ``memory`` bytes.

    Args:
        folder: the corpus, whose read units are done.
        read_units: their names, in the order that decides which of two copies is the earlier.
        memory: bytes a unit may take.
    """
    entries = sum(len(sketch_of(folder, unit, "keys")) for unit in read_units)
    buckets = max(1, math.ceil(entries * _ENTRY_BYTES / memory))
    reads = tuple(
        f"{READ}/{unit}:sketch-{name}.npy"
        for unit in read_units
        for name in ("keys", "key_rows", "exact")
    )
    return [
        Unit(
            PAIRS,
            f"{i:05d}-of-{buckets:05d}",
            f"{__name__}:pairs",
            {"read": list(read_units), "bucket": i, "buckets": buckets},
            reads,
        )
        for i in range(buckets)
    ]


def plan_gather(folder: Path, read_units: Sequence[str], pair_units: Sequence[str]) -> list[Unit]:
    """Units of the stage ``gather``, one a read unit; the stage ``pairs`` must be done."""
    first = starts(folder, read_units).tolist()
    found = tuple(f"{PAIRS}/{unit}:sketch-rows.npy" for unit in pair_units)
    return [
        Unit(
            GATHER,
            unit,
            f"{__name__}:gather",
            {"read": unit, "first": first[i], "end": first[i + 1], "pairs": list(pair_units)},
            (*found, f"{READ}/{unit}:{records.RECORDS}"),
        )
        for i, unit in enumerate(read_units)
    ]


def plan_verify(
    folder: Path, read_units: Sequence[str], pair_units: Sequence[str], settings: Mapping[str, Any]
) -> list[Unit]:
    """Units of the stage ``verify``, one a read unit; the stage ``gather`` must be done."""
    given = {
        "read": list(read_units),
        "first": starts(folder, read_units).tolist(),
        "pairs": list(pair_units),
        "threshold": wanted(settings).threshold,
    }
    done = [f"{PAIRS}/{unit}:sketch-near.npy" for unit in pair_units]
    done += [f"{GATHER}/{unit}" for unit in read_units]
    return [
        Unit(VERIFY, unit, f"{__name__}:verify", given | {"index": i}, tuple(done))
        for i, unit in enumerate(read_units)
    ]


def pairs(arguments: dict[str, Any], out: Path) -> Facts:
    """Find the candidates among the keys of one bucket.

    Writes ``exact``, int64 (n, 2): the earliest row of a content and another of it; ``near``,
    int64 (n, 2): candidates, the earlier row first, both the earliest of their content, sorted;
    and ``rows``, sorted: all rows of ``near``.
    """
    corpus = Path(arguments[CORPUS])
    keys, rows = _entries(corpus, arguments["read"], arguments["bucket"], arguments["buckets"])
    hashes = _exact_of(corpus, arguments["read"], rows)
    order = np.lexsort((rows, hashes[:, 0], keys))
    keys, rows, hashes = keys[order], rows[order], hashes[order]
    same = (keys[1:] == keys[:-1]) & (hashes[1:, 0] == hashes[:-1, 0])
    fresh = np.concatenate([np.ones(min(1, len(keys)), bool), ~same])
    earliest = np.maximum.accumulate(np.where(fresh, np.arange(len(keys)), 0))
    by_hash = keys == exact_key(hashes[:, 0])
    copies = np.flatnonzero(~fresh & by_hash)
    copies = copies[hashes[copies, 1] == hashes[earliest[copies], 1]]
    exact = np.stack([rows[earliest[copies]], rows[copies]], axis=1)
    near = _candidates(keys[fresh & ~by_hash], rows[fresh & ~by_hash])
    save(out, "exact", _sorted(exact))
    save(out, "near", near)
    save(out, "rows", np.unique(near))
    return {"keys": len(keys), "exact": len(exact), "candidates": len(near)}


def _entries(
    corpus: Path, read_units: Sequence[str], bucket: int, buckets: int
) -> tuple[Hashes, Rows]:
    """Keys of the bucket that more than one row has, with the rows."""
    bounds = [math.ceil((bucket + i) * 2**64 / buckets) for i in (0, 1)]
    first = starts(corpus, read_units)
    found_keys, found_rows = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for unit, start in zip(read_units, first.tolist(), strict=False):
        keys = sketch_of(corpus, unit, "keys")
        low = int(np.searchsorted(keys, np.uint64(bounds[0])))
        high = len(keys)
        if bucket + 1 < buckets:
            high = int(np.searchsorted(keys, np.uint64(bounds[1])))
        found_keys.append(np.array(keys[low:high]))
        rows = sketch_of(corpus, unit, "key_rows")[low:high]
        found_rows.append(rows.astype(np.int64) + start)
    keys = np.concatenate(found_keys)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    same = keys[1:] == keys[:-1]
    shared = np.zeros(len(keys), bool)
    shared[1:] |= same
    shared[:-1] |= same
    return keys[shared], np.concatenate(found_rows)[order[shared]]


def _exact_of(corpus: Path, read_units: Sequence[str], rows: Rows) -> Hashes:
    """The exact hashes of rows, uint64 (rows, 2)."""
    first = starts(corpus, read_units)
    result = np.empty((len(rows), 2), np.uint64)
    order = np.argsort(rows, kind="stable")
    cuts = np.searchsorted(rows[order], first)
    for i, unit in enumerate(read_units):
        here = order[cuts[i] : cuts[i + 1]]
        if len(here):
            result[here] = sketch_of(corpus, unit, "exact")[rows[here] - first[i]]
    return result


def _candidates(keys: Hashes, rows: Rows) -> NDArray[np.int64]:
    """Pairs of rows that share a key, each with the first rows of that key; sorted, once each."""
    order = np.lexsort((rows, keys))
    keys, rows = keys[order], rows[order]
    new = np.concatenate([np.ones(min(1, len(keys)), bool), keys[1:] != keys[:-1]])
    begins = np.flatnonzero(new)
    found = [np.empty((0, 2), np.int64)]
    ends = np.append(begins[1:], len(keys))
    cut = 0
    while cut < len(begins):  # whole keys at a time
        last = max(cut + 1, int(np.searchsorted(ends, begins[cut] + _GROUPED, "right")))
        low, high = int(begins[cut]), int(ends[last - 1])
        place = np.arange(low, high)
        begin = np.repeat(begins[cut:last], ends[cut:last] - begins[cut:last])
        pieces = []
        for k in range(FIRST):
            later = place[place - begin > k]
            pieces.append(np.stack([rows[begin[later - low] + k], rows[later]], axis=1))
        found.append(_sorted(np.concatenate(pieces)))
        cut = last
    return _sorted(np.concatenate(found))


def _sorted(pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """The distinct pairs in order."""
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    new = np.ones(len(pairs), bool)
    new[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    return pairs[new]


def gather(arguments: dict[str, Any], out: Path) -> Facts:
    """Write the n-gram sets of a read unit's candidates.

    ``rows``: their numbers in the unit, ascending; ``offsets``; and ``sets.bin``: uint64 values,
    those of row i from offsets[i] to offsets[i + 1].
    """
    corpus, low, high = Path(arguments[CORPUS]), arguments["first"], arguments["end"]
    involved = [np.empty(0, np.int64)]
    for unit in arguments["pairs"]:
        rows = load(unit_folder(corpus, PAIRS, unit), "rows")
        involved.append(np.array(rows[np.searchsorted(rows, low) : np.searchsorted(rows, high)]))
    chosen = np.unique(np.concatenate(involved)) - low
    counts = [np.zeros(1, np.int64)]
    with (out / "sets.bin").open("wb") as file:
        for batch in _texts(corpus, arguments["read"], chosen):
            values, offsets = sets(batch)
            values.astype("<u8", copy=False).tofile(file)
            counts.append(np.diff(offsets))
    offsets = np.cumsum(np.concatenate(counts))
    save(out, "rows", chosen)
    save(out, "offsets", offsets)
    return {"texts": len(chosen), "ngrams": int(offsets[-1])}


def _texts(corpus: Path, unit: str, chosen: Rows) -> Iterator[list[str]]:
    """The texts of the chosen rows of a read unit, some MB at a time."""
    if not len(chosen):
        return
    batch: list[str] = []
    size = begin = 0
    for table in records.groups(unit_folder(corpus, READ, unit) / records.RECORDS, ("text",)):
        here = chosen[np.searchsorted(chosen, begin) : np.searchsorted(chosen, begin + len(table))]
        for at in (here - begin).tolist():
            text = table.column(0)[at].as_py()
            batch.append(text)
            size += len(text)
            if size >= _BATCH:
                yield batch
                batch, size = [], 0
        begin += len(table)
    if begin <= chosen[-1]:
        raise CorruptError(
            f"{unit}: {records.RECORDS} has {begin} rows, its sketch more; delete its folder and"
            " run again"
        )
    if batch:
        yield batch


class _Sets:
    """The n-gram sets of one read unit's candidates; read, not mapped, so memory stays small."""

    def __init__(self, folder: Path) -> None:
        self._rows = np.array(load(folder, "rows"))
        self._offsets = np.array(load(folder, "offsets"))
        self._file = os.open(folder / "sets.bin", os.O_RDONLY)

    def __enter__(self) -> _Sets:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def sizes(self, rows: Rows) -> NDArray[np.int64]:
        """The number of distinct n-grams of rows of the unit."""
        at = np.searchsorted(self._rows, rows)
        sizes: NDArray[np.int64] = self._offsets[at + 1] - self._offsets[at]
        return sizes

    def read(self, row: int) -> Hashes:
        """The n-grams of a row of the unit, ascending."""
        at = int(np.searchsorted(self._rows, row))
        low, high = int(self._offsets[at]), int(self._offsets[at + 1])
        content = os.pread(self._file, 8 * (high - low), 8 * low)
        return np.frombuffer(content, "<u8")


def verify(arguments: dict[str, Any], out: Path) -> Facts:
    """Compare the pairs whose earlier row is in one read unit.

    Writes ``near``, int64 (n, 2), sorted, and ``similarity``, float64: the pairs from the
    threshold on and their Jaccard similarity.
    """
    corpus, index = Path(arguments[CORPUS]), int(arguments["index"])
    first = np.array(arguments["first"], np.int64)
    threshold = float(arguments["threshold"])
    found = [np.empty((0, 2), np.int64)]
    for unit in arguments["pairs"]:
        near = load(unit_folder(corpus, PAIRS, unit), "near")
        low, high = np.searchsorted(near[:, 0], first[index : index + 2])
        found.append(np.array(near[low:high]))
    candidates = _sorted(np.concatenate(found))
    # By the unit of the other row, so that one file of sets is open beside our own.
    other = np.searchsorted(first, candidates[:, 1], "right") - 1
    similarity = np.zeros(len(candidates))
    if len(candidates):
        with _Sets(unit_folder(corpus, GATHER, arguments["read"][index])) as ours:
            for unit_number in np.unique(other).tolist():
                here = np.flatnonzero(other == unit_number)
                pair = candidates[here] - [first[index], first[unit_number]]
                name = arguments["read"][unit_number]
                with _Sets(unit_folder(corpus, GATHER, name)) as theirs:
                    similarity[here] = _jaccard(pair, ours, theirs, threshold)
    kept = similarity >= threshold
    save(out, "near", candidates[kept])
    save(out, "similarity", similarity[kept])
    shares, _ = np.histogram(similarity, bins=20, range=(0, 1))
    return {
        "candidates": len(candidates),
        "near": int(kept.sum()),
        "similarity": shares.tolist(),  # those that differ too much in length count as 0
    }


def _jaccard(pairs: Rows, ours: _Sets, theirs: _Sets, threshold: float) -> NDArray[np.float64]:
    """The Jaccard similarity of every pair, 0 where the sizes alone keep it below the threshold."""
    result = np.zeros(len(pairs))
    for begin in range(0, len(pairs), _CHUNK):
        chunk = pairs[begin : begin + _CHUNK]
        a, b = ours.sizes(chunk[:, 0]), theirs.sizes(chunk[:, 1])
        likely = np.flatnonzero(np.minimum(a, b) >= threshold * np.maximum(a, b))
        last, held = -1, np.empty(0, np.uint64)
        for i in likely.tolist():
            row, twin = int(chunk[i, 0]), int(chunk[i, 1])
            if row != last:
                last, held = row, ours.read(row)
            both = common(held, theirs.read(twin))
            result[begin + i] = both / (a[i] + b[i] - both)
    return result
