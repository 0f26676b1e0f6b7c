"""Which rows of a corpus are the same, or nearly: candidates by keys, then the contents compared.

Three stages, every one of units with bounded memory:

* ``pairs``: a unit takes a range of the band keys of all sketches. Rows that share a key are
  candidates, each with the first few of them only, so a key that k rows share costs a multiple
  of k, not k squared. Rows of equal content count once here: their pairs are exact by the hash.
* ``gather``: a unit writes the sets of word n-grams of its read unit's candidates.
* ``verify``: a unit compares the sets of all pairs that begin in its read unit.

Pictures take the same road with keys of their perceptual hashes, and small pictures in place of
sets (``alike``).

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

from modelwright.data.corpus import alike, records
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
_TEXTS = ("keys", "key_rows")
_PICTURES = ("image_keys", "image_key_rows", "image_hashes")
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
    entries = sum(
        len(sketch_of(folder, unit, name)) for unit in read_units for name in ("keys", "image_keys")
    )
    buckets = max(1, math.ceil(entries * _ENTRY_BYTES / memory))
    reads = tuple(
        f"{READ}/{unit}:sketch-{name}.npy"
        for unit in read_units
        for name in (*_TEXTS, *_PICTURES, "exact")
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
    found = tuple(
        f"{PAIRS}/{unit}:sketch-{name}.npy"
        for unit in pair_units
        for name in ("rows", "image_rows")
    )
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
    of = wanted(settings)
    given = {
        "read": list(read_units),
        "first": starts(folder, read_units).tolist(),
        "pairs": list(pair_units),
        "threshold": of.threshold,
        "images": of.images,
    }
    done = [
        f"{PAIRS}/{unit}:sketch-{name}.npy" for unit in pair_units for name in ("near", "images")
    ]
    done += [f"{GATHER}/{unit}" for unit in read_units]
    return [
        Unit(VERIFY, unit, f"{__name__}:verify", given | {"index": i}, tuple(done))
        for i, unit in enumerate(read_units)
    ]


def pairs(arguments: dict[str, Any], out: Path) -> Facts:
    """Find the candidates among the keys of one bucket.

    Writes ``exact``, int64 (n, 2): the earliest row of a content and another of it; ``near``,
    int64 (n, 2): candidates, the earlier row first, both the earliest of their content, sorted;
    ``images``, int64 (n, 3): the same of pictures, and the distance of their hashes; and ``rows``
    and ``image_rows``, sorted: all rows of the two.
    """
    corpus = Path(arguments[CORPUS])
    bucket = arguments["bucket"], arguments["buckets"]
    keys, rows = _entries(corpus, arguments["read"], *bucket, _TEXTS)
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
    images = _alike(corpus, arguments["read"], *bucket)
    save(out, "images", images)
    save(out, "image_rows", np.unique(images[:, :2]))
    found = {"exact": len(exact), "candidates": len(near), "images": len(images)}
    return {"keys": len(keys)} | found


def _alike(corpus: Path, read_units: Sequence[str], bucket: int, buckets: int) -> Rows:
    """The candidates among the pictures of one bucket; of equal files the earliest counts."""
    keys, rows, hashes = _entries(corpus, read_units, bucket, buckets, _PICTURES)
    exact = _exact_of(corpus, read_units, rows)[:, 0]
    order = np.lexsort((rows, exact, keys))
    same = (keys[order][1:] == keys[order][:-1]) & (exact[order][1:] == exact[order][:-1])
    fresh = order[np.concatenate([np.ones(min(1, len(keys)), bool), ~same])]
    fresh = fresh[np.lexsort((rows[fresh], keys[fresh]))]
    return _sorted(alike.candidates(keys[fresh], rows[fresh], hashes[fresh]))


def _entries(
    corpus: Path, read_units: Sequence[str], bucket: int, buckets: int, names: Sequence[str]
) -> list[NDArray[Any]]:
    """Keys of the bucket that more than one row has, with the rows and what else is named."""
    bounds = [math.ceil((bucket + i) * 2**64 / buckets) for i in (0, 1)]
    first = starts(corpus, read_units)
    found: list[list[NDArray[Any]]] = [[np.empty(0, np.uint64)] for _ in names]
    found[1] = [np.empty(0, np.int64)]
    for unit, start in zip(read_units, first.tolist(), strict=False):
        keys = sketch_of(corpus, unit, names[0])
        low = int(np.searchsorted(keys, np.uint64(bounds[0])))
        high = len(keys)
        if bucket + 1 < buckets:
            high = int(np.searchsorted(keys, np.uint64(bounds[1])))
        for at, name in enumerate(names):
            part = sketch_of(corpus, unit, name)[low:high]
            found[at].append(part.astype(np.int64) + start if at == 1 else np.array(part))
    joined = [np.concatenate(parts) for parts in found]
    order = np.argsort(joined[0], kind="stable")
    keys = joined[0][order]
    same = keys[1:] == keys[:-1]
    shared = np.zeros(len(keys), bool)
    shared[1:] |= same
    shared[:-1] |= same
    return [part[order[shared]] for part in joined]


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
    those of row i from offsets[i] to offsets[i + 1]. Of pictures: ``image_rows`` and ``small``,
    uint8 (n, 768).
    """
    corpus = Path(arguments[CORPUS])
    chosen = _involved(corpus, arguments, "rows")
    counts = [np.zeros(1, np.int64)]
    with (out / "sets.bin").open("wb") as file:
        for batch in _texts(corpus, arguments["read"], chosen):
            values, offsets = sets(batch)
            values.astype("<u8", copy=False).tofile(file)
            counts.append(np.diff(offsets))
    offsets = np.cumsum(np.concatenate(counts))
    save(out, "rows", chosen)
    save(out, "offsets", offsets)
    images = _involved(corpus, arguments, "image_rows")
    shown = np.zeros((len(images), alike.SIDE**2 * 3), np.uint8)
    for at, content in enumerate(_cells(corpus, arguments["read"], images, "media")):
        shown[at] = alike.small(content)
    save(out, "image_rows", images)
    save(out, "small", shown)
    return {"texts": len(chosen), "ngrams": int(offsets[-1]), "images": len(images)}


def _involved(corpus: Path, arguments: Mapping[str, Any], name: str) -> Rows:
    """The rows of a read unit that are in a pair, numbered within it."""
    low, high = arguments["first"], arguments["end"]
    involved = [np.empty(0, np.int64)]
    for unit in arguments["pairs"]:
        rows = load(unit_folder(corpus, PAIRS, unit), name)
        involved.append(np.array(rows[np.searchsorted(rows, low) : np.searchsorted(rows, high)]))
    found: Rows = np.unique(np.concatenate(involved)) - low
    return found


def _texts(corpus: Path, unit: str, chosen: Rows) -> Iterator[list[str]]:
    """The texts of the chosen rows of a read unit, some MB at a time."""
    batch: list[str] = []
    size = 0
    for text in _cells(corpus, unit, chosen, "text"):
        batch.append(text)
        size += len(text)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _cells(corpus: Path, unit: str, chosen: Rows, column: str) -> Iterator[Any]:
    """One column of the chosen rows of a read unit."""
    if not len(chosen):
        return
    begin = 0
    for table in records.groups(unit_folder(corpus, READ, unit) / records.RECORDS, (column,)):
        here = chosen[np.searchsorted(chosen, begin) : np.searchsorted(chosen, begin + len(table))]
        for at in (here - begin).tolist():
            yield table.column(0)[at].as_py()
        begin += len(table)
    if begin <= chosen[-1]:
        raise CorruptError(
            f"{unit}: {records.RECORDS} has {begin} rows, its sketch more; delete its folder and"
            " run again"
        )


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
    threshold on and their Jaccard similarity, or of pictures the correlation.
    """
    corpus, index = Path(arguments[CORPUS]), int(arguments["index"])
    threshold = float(arguments["threshold"])
    candidates = _beginning(corpus, arguments, "near", 2)
    similarity = np.zeros(len(candidates))
    if len(candidates):
        with _Sets(unit_folder(corpus, GATHER, arguments["read"][index])) as ours:
            for name, here, pair in _by_other(arguments, candidates):
                with _Sets(unit_folder(corpus, GATHER, name)) as theirs:
                    similarity[here] = _jaccard(pair, ours, theirs, threshold)
    images = _beginning(corpus, arguments, "images", 3)
    close = images[images[:, 2] <= int(arguments["images"]), :2]
    likeness = np.zeros(len(close))
    for name, here, pair in _by_other(arguments, close):
        shown = (
            _shown(unit_folder(corpus, GATHER, unit), pair[:, side])
            for side, unit in enumerate((arguments["read"][index], name))
        )
        likeness[here] = alike.likeness(*shown)
    kept, copied = similarity >= threshold, likeness > 0
    near = np.concatenate([candidates[kept], close[copied]])
    both = np.concatenate([similarity[kept], likeness[copied]])
    order = np.lexsort((near[:, 1], near[:, 0]))
    save(out, "near", near[order])
    save(out, "similarity", both[order])
    shares, _ = np.histogram(similarity, bins=20, range=(0, 1))
    return {
        "candidates": len(candidates),
        "near": int(kept.sum()),
        "similarity": shares.tolist(),  # those that differ too much in length count as 0
        "images": {"candidates": len(images), "close": len(close), "near": int(copied.sum())},
    }


def _beginning(corpus: Path, arguments: Mapping[str, Any], name: str, width: int) -> Rows:
    """The distinct candidates whose earlier row is in the read unit, (n, width), in order."""
    index, found = int(arguments["index"]), [np.empty((0, width), np.int64)]
    for unit in arguments["pairs"]:
        near = load(unit_folder(corpus, PAIRS, unit), name)
        low, high = np.searchsorted(near[:, 0], arguments["first"][index : index + 2])
        found.append(np.array(near[low:high]))
    return _sorted(np.concatenate(found))


def _by_other(arguments: Mapping[str, Any], pairs: Rows) -> Iterator[tuple[str, Rows, Rows]]:
    """By the unit of the other row, so that one file is open beside our own.

    Yields:
        The unit's name, which of the pairs, and these as numbers within the two units.
    """
    first, index = np.array(arguments["first"], np.int64), int(arguments["index"])
    other = np.searchsorted(first, pairs[:, 1], "right") - 1
    for number in np.unique(other).tolist():
        here = np.flatnonzero(other == number)
        yield arguments["read"][number], here, pairs[here] - [first[index], first[number]]


def _shown(folder: Path, rows: Rows) -> alike.Small:
    """The small pictures of rows of a unit."""
    at = np.searchsorted(load(folder, "image_rows"), rows)
    found: alike.Small = load(folder, "small")[at]
    return found


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
