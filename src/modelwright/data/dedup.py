"""Finding texts that are the same, or nearly.

Near-duplicates are found by MinHash (Broder 1997) with locality-sensitive banding (Leskovec,
Rajaraman and Ullman, Mining of Massive Datasets, ch. 3) over word 5-grams, and every candidate
is verified by its true Jaccard similarity |A & B| / |A | B|. A row leaves only for being a
duplicate of a row that stays: likeness is not transitive, so chains are never followed.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwright.data.waterfall import Dropped, Note, drop
from modelwright.errors import ModelwrightError
from modelwright.kernels import shingles as kernel
from modelwright.kernels.shingles import SHINGLE_WORDS, Hashes, band_keys
from modelwright.types import Row

NEAR = 0.8  # Jaccard similarity from which two texts count as the same
BANDS = 25
BAND_ROWS = 5  # P(candidate) = 1 - (1 - s^5)^25: 0.9999 at s = 0.8, 0.55 at 0.5
_SLACK = 0.16  # four standard deviations of the similarity that 125 minima estimate, at 0.8


def content_key(row: Row, ignore: Sequence[str] = ("id", "group", "split")) -> bytes:
    """A 128-bit BLAKE2 hash of what a row says: equal for exact duplicates.

    Of a text, composed (NFC) and with white space collapsed; of other rows, all columns but
    ``ignore`` and notes.
    """
    digest = hashlib.blake2b(digest_size=16)
    text = row.get("text")
    if isinstance(text, str):
        plain = " ".join(kernel.composed(text).split())
        digest.update(plain.encode("utf-8", "surrogatepass"))
        return digest.digest()
    for name in sorted(row):
        value: Any = row[name]
        if name not in ignore and not isinstance(value, Note):
            if isinstance(value, np.ndarray):
                head = f"{name} {value.dtype} {value.shape}\n"
                digest.update(head.encode() + np.ascontiguousarray(value).tobytes())
            else:
                digest.update(f"{name} {value!r}\n".encode("utf-8", "backslashreplace"))
    return digest.digest()


@dataclass(frozen=True)
class Shingles:
    """The distinct hashed word n-grams of many texts, sorted within each.

    Text i owns values[offsets[i]:offsets[i+1]]; offsets has one entry more than there are texts.
    """

    values: Hashes
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> Hashes:
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def jaccard(self, i: int, j: int) -> float:
        """True Jaccard similarity of texts i and j, 0..1."""
        a, b = self[i], self[j]
        both = kernel.common(a, b)
        return both / (len(a) + len(b) - both)


def shingles(texts: Iterable[str], words: int = SHINGLE_WORDS, *, whole: bool = True) -> Shingles:
    """Hash the word n-grams of ``texts``; case and punctuation do not count.

    A text of fewer than ``words`` words is one shingle, all it has, if ``whole``, else none. A
    text without any word is its characters'.
    """
    return Shingles(*kernel.sets(list(texts), words, whole=whole))


def signatures(sets: Shingles, seed: int = 0) -> NDArray[np.uint32]:
    """MinHash signatures, uint32 of shape (texts, BANDS * BAND_ROWS); no set may be empty.

    Two texts agree in a column with a probability equal to their Jaccard similarity.
    """
    return kernel.minima(sets.values, sets.offsets, BANDS * BAND_ROWS, seed=seed)


class NearIndex:
    """Finds the near-duplicates among texts, given once.

    Args:
        texts: The texts; later methods name them by their position.
        threshold: True Jaccard similarity from which two texts are near-duplicates.
        seed: Of the hash functions.
    """

    def __init__(self, texts: Sequence[str], *, threshold: float = NEAR, seed: int = 0) -> None:
        if not 0.5 <= threshold <= 1:
            raise ModelwrightError(
                f"near-duplicate threshold {threshold}: must be from 0.5 to 1; 0.8 is usual"
            )
        self.threshold = threshold
        self.sets = shingles(texts)
        self._signatures = signatures(self.sets, seed)
        self._lengths = np.diff(self.sets.offsets)
        self._bands = self._shared_bands()
        self._buckets: dict[int, list[int]] = defaultdict(list)

    def _shared_bands(self) -> list[list[int]]:
        """For each text, its band keys that some other text has too."""
        rows = len(self.sets)
        keys = band_keys(self._signatures, BANDS)
        _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
        shared = (counts > 1)[inverse].reshape(rows, BANDS)
        numbers = inverse.reshape(rows, BANDS)
        return [numbers[i, shared[i]].tolist() for i in range(rows)]

    def add(self, i: int) -> None:
        """Make text i one that `near` may find."""
        for key in self._bands[i]:
            self._buckets[key].append(i)

    def near(self, i: int) -> Iterator[tuple[int, float]]:
        """Yield (j, Jaccard) for the added texts near text i, the first added first."""
        found = {j for key in self._bands[i] for j in self._buckets.get(key, ())} - {i}
        if not found:
            return
        others = np.array(sorted(found))
        short = np.minimum(self._lengths[others], self._lengths[i])
        long = np.maximum(self._lengths[others], self._lengths[i])
        agree = (self._signatures[others] == self._signatures[i]).mean(axis=1)
        likely = (short >= self.threshold * long) & (agree >= self.threshold - _SLACK)
        for j in others[likely].tolist():
            similarity = self.sets.jaccard(i, j)
            if similarity >= self.threshold:
                yield j, similarity


def drop_duplicates(
    rows: Sequence[Row], *, threshold: float = NEAR, seed: int = 0
) -> tuple[list[Row], list[Dropped]]:
    """Keep the earliest of rows that are exactly or nearly the same.

    Rows with ``text`` are compared exactly and nearly, others exactly by all their columns.

    Returns:
        The kept rows in order, and the dropped with the id of the kept row and the similarity.
    """
    dropped: dict[str, Dropped] = {}
    first: dict[bytes, Row] = {}
    for row in rows:
        kept = first.setdefault(content_key(row), row)
        if kept is not row:
            dropped[row["id"]] = drop(row, "exact duplicate", kept["id"], 1.0)
    texts = [row for row in first.values() if isinstance(row.get("text"), str)]
    index = NearIndex([row["text"] for row in texts], threshold=threshold, seed=seed)
    for i, row in enumerate(texts):
        twin = next(index.near(i), None)
        if twin is None:
            index.add(i)
        else:
            dropped[row["id"]] = drop(row, "near-duplicate", texts[twin[0]]["id"], twin[1])
    for row in rows:  # copies of a row that has left go with it, for the row that stays
        gone = dropped.get(row["id"])
        if gone and (further := dropped.get(gone.kept_id or "")):
            dropped[row["id"]] = drop(row, "near-duplicate", further.kept_id, further.similarity)
    return [row for row in rows if row["id"] not in dropped], list(dropped.values())
