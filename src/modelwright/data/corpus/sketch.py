"""What deduplication and splits need to know of a read unit's kept rows: a few hundred bytes each.

A sketch is made while the rows pass by, so that no text is read again to find which rows could be
the same. It holds, row by row in the order of ``records.parquet``:

* ``exact``: BLAKE2b-128 of the content: of a text composed and with white space collapsed, of
  media their bytes;
* ``keys``/``key_rows``: the keys of the MinHash bands of every text, and one of its exact hash,
  all sorted, so that a range of keys is one slice of a memory-mapped file;
* ``image_keys``/``image_key_rows``/``image_hashes``: of every picture the keys of its perceptual
  hash, sorted in the same way, and the hash; see ``alike``;
* ``ids``: a hash of the row's id;
* ``links``/``link_rows``: hashes of group keys (even) and of parents' ids (odd), sorted;
* ``sides``: what the split goes by, where it goes by more: a label, a time, a given split.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwright.data.corpus import alike
from modelwright.data.corpus.unit import Facts, unit_folder
from modelwright.errors import CorruptError, ModelwrightError, did_you_mean
from modelwright.kernels.shingles import Hashes, band_keys, mix, sketch

READ = "read"  # the stage whose units have sketches
SPLITS = ("train", "validation", "test")
NEAR = 0.8  # Jaccard similarity from which texts are copies, where nothing else is said
_BATCH = 4 << 20  # characters hashed in one call of the kernel
_EXACT = np.uint64(0xD6E8FEB86659FD93)  # sets keys of exact hashes apart from keys of bands
_GIVEN = {"valid": "validation", "val": "validation", "dev": "validation"}

Rows = NDArray[np.int64]  # positions in the whole corpus: unit after unit, row after row


@dataclass(frozen=True)
class Wanted:
    """The settings of deduplication and split, read from the JSON that units are given.

    Attributes:
        seed: of hash functions and split.
        threshold: Jaccard similarity from which texts are near duplicates; 1: none are.
        drop: whether duplicates leave; else they only stay together in a split.
        by: group, random, stratified, time or given; see ``components``.
        validation: share of validation, 0..1.
        test: share of test, 0..1.
        column: ``label`` or the key of ``meta`` that stratified, time and given go by.
        folds: number of folds, of which ``fold`` (from 1) is test; None: shares decide.
        fold: see ``folds``.
        images: bits in which the perceptual hashes of copied pictures may differ; 0: only equal
            files are copies.
    """

    seed: int
    threshold: float
    drop: bool
    by: str
    validation: float
    test: float
    column: str
    folds: int | None
    fold: int
    images: int = alike.BITS

    @property
    def bands(self) -> tuple[int, int]:
        """Bands and minima a band; P(candidate) = 1 - (1 - s^rows)^bands.

        0.9999 at s = 0.8, 0.99 and more at every threshold of its range.
        """
        if self.threshold >= 1:
            return 0, 1
        if self.threshold >= 0.75:
            return 25, 5
        return (32, 4) if self.threshold >= 0.6 else (42, 3)


def wanted(settings: Mapping[str, Any]) -> Wanted:
    """Read ``{"seed", "deduplicate": {"threshold", "images"} or None, "split": {...}}``.

    Raises:
        ModelwrightError: a threshold below 0.5, where MinHash would need too many bands, or a
            distance of pictures' hashes that is not from 0 to 10.
    """
    copies = settings.get("deduplicate")
    split = settings.get("split") or {}
    threshold = float((copies or {}).get("threshold", NEAR))
    if not 0.5 <= threshold <= 1:
        raise ModelwrightError(
            f"deduplicate: threshold {threshold:g}: must be from 0.5 to 1; 0.8 is usual"
        )
    images = int((copies or {}).get("images", alike.BITS))
    if not 0 <= images <= alike.MOST:
        raise ModelwrightError(
            f"deduplicate: images {images}: must be from 0 to {alike.MOST}; 6 is usual"
        )
    by = str(split.get("by", "group"))
    column = split.get("column") or {"stratified": "label", "given": "split"}.get(by, "")
    return Wanted(
        int(settings.get("seed", 0)),
        threshold,
        copies is not None,
        by,
        float(split.get("validation", 0.05)),
        float(split.get("test", 0.05)),
        str(column),
        split.get("folds"),
        int(split.get("fold") or 1),
        images,
    )


class Sketcher:
    """Makes the sketch of one read unit: ``add`` every kept row, then ``save``."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._wanted = wanted(settings)
        self._exact: list[Hashes] = []  # of texts, batch by batch
        self._bands: list[Hashes] = []
        self._text_rows: list[int] = []
        self._near_rows: list[int] = []
        self._media: list[tuple[int, bytes]] = []
        self._pictures: list[tuple[int, int]] = []
        self._ids: list[bytes] = []
        self._links: list[tuple[int, int]] = []
        self._sides: list[float | int] = []
        self._texts: list[str] = []
        self._waiting = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Take a kept row; its text is held until some MB have come together."""
        number = len(self._ids)
        self._ids.append(_digest(b"row", row["id"]))
        links = {link_of("group", group) for group in row.get("groups") or ()}
        links |= {link_of("row", parent) for parent in row.get("parents") or ()}
        self._links += [(link, number) for link in links]
        if self._wanted.by in _SIDES:
            self._sides.append(_side(row, self._wanted))
        text, media = row.get("text"), row.get("media")
        if media is not None or not isinstance(text, str):
            self._media.append((number, _content(row)))
            if self._wanted.images and (hashed := alike.picture_hash(row)) is not None:
                self._pictures.append((number, hashed))
            return
        self._text_rows.append(number)
        if row.get("modality", "text") == "text" and self._wanted.bands[0]:
            self._near_rows.append(number)
        self._texts.append(text)
        self._waiting += len(text)
        if self._waiting >= _BATCH:
            self._hash()

    def _hash(self) -> None:
        if not self._texts:
            return
        bands, rows = self._wanted.bands
        exact, signature = sketch(self._texts, max(1, bands * rows), seed=self._wanted.seed)
        self._exact.append(exact)
        self._bands.append(band_keys(signature, bands))
        self._texts.clear()
        self._waiting = 0

    def save(self, out: Path) -> Facts:
        """Write the sketch into the unit's folder; numbers of rows, texts and links."""
        self._hash()
        rows, bands = len(self._ids), self._wanted.bands[0]
        exact = np.zeros((rows, 2), np.uint64)
        text_rows = np.array(self._text_rows, np.int64)
        if len(text_rows):
            exact[text_rows] = np.concatenate(self._exact)
        for number, digest in self._media:
            exact[number] = np.frombuffer(digest, "<u8")
        near = np.isin(text_rows, np.array(self._near_rows, np.int64))
        found = np.concatenate([np.empty((0, bands), np.uint64), *self._bands])[near]
        keys = np.concatenate([found.reshape(-1), exact_key(exact[:, 0])])
        owners = np.concatenate([np.repeat(text_rows[near], bands), np.arange(rows)])
        # By key, equal ones by row: pairs rely on it.
        order = np.lexsort((owners, keys))
        links = np.array(sorted(self._links), np.uint64).reshape(-1, 2)
        arrays = {
            "exact": exact,
            "keys": keys[order],
            "key_rows": owners[order].astype(np.uint32),
            "ids": np.frombuffer(b"".join(self._ids), "<u8").astype(np.uint64),
            "links": links[:, 0],
            "link_rows": links[:, 1].astype(np.uint32),
            "sides": np.array(self._sides, _SIDES.get(self._wanted.by, np.uint8)),
        }
        for name, array in (arrays | self._picture_keys()).items():
            save(out, name, array)
        return {"rows": rows, "texts": len(text_rows), "links": len(links)}

    def _picture_keys(self) -> dict[str, NDArray[Any]]:
        """The keys of all pictures in order, each with its row and the hash it is of."""
        rows = np.array([number for number, _ in self._pictures], np.int64)
        hashes = np.array([hashed for _, hashed in self._pictures], np.uint64)
        bands = len(alike.BANDS)
        keys = alike.keys(hashes, self._wanted.seed).reshape(-1)
        owners, hashed = np.repeat(rows, bands), np.repeat(hashes, bands)
        order = np.lexsort((owners, keys))
        return {
            "image_keys": keys[order],
            "image_key_rows": owners[order].astype(np.uint32),
            "image_hashes": hashed[order],
        }


def save(out: Path, name: str, array: NDArray[Any]) -> None:
    """Write one array of a unit."""
    np.save(out / f"sketch-{name}.npy", np.ascontiguousarray(array))


def load(folder: Path, name: str) -> NDArray[Any]:
    """One array of a unit, memory-mapped.

    Raises:
        CorruptError: it is missing or damaged.
    """
    path = folder / f"sketch-{name}.npy"
    try:
        found: NDArray[Any] = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise CorruptError(
            f"{path}: missing or damaged; delete its folder and run again"
        ) from error
    return found


def sketch_of(corpus: Path, unit: str, name: str) -> NDArray[Any]:
    """An array of a read unit's sketch, memory-mapped."""
    return load(unit_folder(corpus, READ, unit), name)


def starts(corpus: Path, read_units: Sequence[str]) -> Rows:
    """The position of each unit's first row in the corpus, and the number of all rows behind."""
    counts = [len(sketch_of(corpus, unit, "exact")) for unit in read_units]
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.array(counts, np.int64))])


def exact_key(exact: Hashes) -> Hashes:
    """The key under which rows of one exact hash meet, from its first half."""
    return mix(exact ^ _EXACT)


def link_of(kind: str, name: str) -> int:
    """The 64-bit link of a group key (even) or of a row's id (odd)."""
    value = int.from_bytes(_digest(kind.encode(), name), "little")
    return value | 1 if kind == "row" else value & ~1


def row_hash(id_: str) -> int:
    """The hash of a row's id, as the array ``ids`` holds it."""
    return int.from_bytes(_digest(b"row", id_), "little")


def _digest(kind: bytes, name: str) -> bytes:
    content = name.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=8, person=kind).digest()


def _content(row: Mapping[str, Any]) -> bytes:
    """16 bytes that are equal for rows of equal content other than text.

    Media by their bytes alone; a table's row by label and meta; else no two rows are equal.
    """
    if row.get("media") is not None:
        return hashlib.blake2b(row["media"], digest_size=16, person=b"media").digest()
    said = [row.get("label"), row.get("meta") or row["id"]]
    content = json.dumps(said, sort_keys=True, ensure_ascii=False, default=str)
    content_bytes = content.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content_bytes, digest_size=16, person=b"row").digest()


_SIDES: Mapping[str, Any] = {"stratified": np.uint64, "time": np.float64, "given": np.uint8}


def _side(row: Mapping[str, Any], settings: Wanted) -> float | int:
    """What the split goes by, as a number: a label's hash, seconds, or the index of a split."""
    meta = row.get("meta") or {}
    value = row.get("label") if settings.column == "label" else meta.get(settings.column)
    if settings.by == "stratified":
        return int.from_bytes(_digest(b"label", str(value)), "little")
    if value is None:
        raise ModelwrightError(
            f"split by {settings.by}: row {row['id']!r} has no {settings.column!r} in its meta"
            f"{did_you_mean(settings.column, meta)}; it has: {', '.join(meta) or 'nothing'}"
        )
    if settings.by == "time":
        return _seconds(value, row["id"], settings.column)
    name = _GIVEN.get(str(value), str(value))
    if name not in SPLITS:
        raise ModelwrightError(
            f"split by given: row {row['id']!r} is in split {name!r}{did_you_mean(name, SPLITS)};"
            f" possible: {', '.join(SPLITS)}"
        )
    return SPLITS.index(name)


def _seconds(value: Any, row: str, column: str) -> float:
    """A number as it is, a date of ISO 8601 as seconds since 1970, UTC where it names no zone."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    try:
        time = datetime.fromisoformat(str(value))
    except ValueError:
        raise ModelwrightError(
            f"split by time: row {row!r}: {column} {value!r} is neither a number nor a date such as"
            " 2024-05-31 or 2024-05-31T12:00:00Z"
        ) from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
