"""Pictures that look alike: copies encoded again, in another size, brighter, or a little cropped.

A picture has a perceptual hash of 64 bits (``pictures.phash``). Its keys are the 28 pairs of the
hash's 8 bytes: two hashes that differ in at most 6 bits have at least two bytes in common, so no
pair within that distance is missed; at 8 bits some 6 % are, at 10 some 28 %. Hashes alone are too
coarse for what is drawn, written or photographed always in the same way, so the pictures
themselves are compared as well: the correlation of 16 x 16 pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwright.data import pictures
from modelwright.kernels.shingles import Hashes, mix

BITS = 6  # of 64 in which hashes of copies may differ, where nothing else is said
MOST = 10  # the largest number that can be asked for
SIDE = 16  # of the small pictures that are compared
COLOURED, GREY = 0.95, 0.99  # correlation of copies; digits and scans are alike by nature
BANDS = tuple(combinations(range(8), 2))
_TINT = 4.0  # levels between the channels' means from which a picture is coloured
_FLAT = 1.0  # standard deviation, in levels, below which nothing is to be seen
_PARTNERS = 8  # earlier copies that a row is paired with under one key
_REACH = 2048  # rows of one key that are looked back at
_CHUNK = 1 << 14

Small = NDArray[np.uint8]


def picture_hash(row: Mapping[str, Any]) -> int | None:
    """The perceptual hash of a row's picture; None where it has none that can be decoded.

    The attribute ``images.phash`` is taken where the step ``images`` has written it.
    """
    if row.get("modality") != "image" or row.get("media") is None:
        return None
    known = (row.get("attributes") or {}).get("images.phash")
    if isinstance(known, str):
        return int(known, 16)
    try:
        return pictures.phash(pictures.decode(row["media"])[0])
    except pictures.Undecodable:
        return None


def keys(hashes: Hashes, seed: int) -> Hashes:
    """The keys of hashes (n,), (n, 28): spread evenly, so that a range of them is a share."""
    found = [
        mix(_bytes(hashes, a) << np.uint64(8) | _bytes(hashes, b) | np.uint64((band + 1) << 16))
        for band, (a, b) in enumerate(BANDS)
    ]
    return mix(np.stack(found, axis=1) ^ mix(np.full(1, seed, np.uint64)))


def _bytes(hashes: Hashes, at: int) -> Hashes:
    return (hashes >> np.uint64(8 * at)) & np.uint64(255)


def distances(a: Hashes, b: Hashes) -> NDArray[np.int64]:
    """In how many bits hashes differ."""
    bits = np.unpackbits((a ^ b).view(np.uint8).reshape(len(a), 8), axis=1)
    apart: NDArray[np.int64] = bits.sum(axis=1, dtype=np.int64)
    return apart


def candidates(keys: Hashes, rows: NDArray[np.int64], hashes: Hashes) -> NDArray[np.int64]:
    """Pairs of rows with a common key whose hashes differ in at most ``MOST`` bits.

    Args:
        keys: (n,), ascending; rows of one key ascending.
        rows: (n,).
        hashes: (n,), of the rows.

    Returns:
        (m, 3): the earlier row, the later one, and their distance. A row is paired with the
        first 8 of its earlier copies under a key, so that many copies of one picture cost little.
    """
    new = np.concatenate([np.ones(min(1, len(keys)), bool), keys[1:] != keys[:-1]])
    place = np.arange(len(keys))
    depth = place - np.maximum.accumulate(np.where(new, place, 0))
    partners = np.zeros(len(keys), np.int8)
    found = [np.empty((0, 3), np.int64)]
    for back in range(min(int(depth.max(initial=-1)) + 1, _REACH)):
        # The row at ``back`` of a key with all behind it: the earliest first.
        later = np.flatnonzero((depth > back) & (partners < _PARTNERS))
        if not len(later):
            break
        earlier = later - depth[later] + back
        apart = distances(hashes[earlier], hashes[later])
        near = apart <= MOST
        partners[later[near]] += 1
        found.append(np.stack([rows[earlier], rows[later], apart], axis=1)[near])
    return np.concatenate(found)


def small(content: bytes) -> Small:
    """The picture in 16 x 16 pixels of three channels, uint8 (768,); zeros if it is damaged."""
    try:
        pixels, _ = pictures.decode(content)
    except pictures.Undecodable:
        return np.zeros(SIDE * SIDE * 3, np.uint8)
    found = pictures.resized(pixels, SIDE, SIDE)
    if found.ndim == 2:
        found = np.repeat(found[..., None], 3, axis=2)
    return found.reshape(-1)


def likeness(a: Small, b: Small) -> NDArray[np.float64]:
    """How alike small pictures (n, 768) are, (n,): their correlation, 0 where they are no copies.

    From ``COLOURED`` on they are copies, and from ``GREY`` on where one is without colour. Flat
    pictures have no correlation: they are copies where their mean is the same.
    """
    result = np.zeros(len(a))
    for begin in range(0, len(a), _CHUNK):
        x, y = (part[begin : begin + _CHUNK].astype(np.float64) for part in (a, b))
        grey = _tint(x) < _TINT
        grey |= _tint(y) < _TINT
        means = x.mean(axis=1, keepdims=True), y.mean(axis=1, keepdims=True)
        x, y = x - means[0], y - means[1]
        spread = np.sqrt((x * x).mean(axis=1)), np.sqrt((y * y).mean(axis=1))
        flat = np.minimum(*spread) < _FLAT
        found = (x * y).mean(axis=1) / np.maximum(spread[0] * spread[1], _FLAT * _FLAT)
        same = (np.abs(means[0] - means[1])[:, 0] <= _FLAT) & (np.maximum(*spread) < _FLAT)
        found = np.where(flat, same.astype(np.float64), found)
        bar = np.where(grey, GREY, COLOURED)
        result[begin : begin + _CHUNK] = np.where(found >= bar, np.minimum(found, 1.0), 0.0)
    return result


def _tint(pictures_: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over pixels of the difference between the highest and the lowest channel."""
    spread: NDArray[np.float64] = np.ptp(pictures_.reshape(len(pictures_), -1, 3), axis=2)
    tint: NDArray[np.float64] = spread.mean(axis=1)
    return tint
