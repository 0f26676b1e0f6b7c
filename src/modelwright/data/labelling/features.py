"""What a quick classifier sees of a row: hashed words of a text, learned patches of an image."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwright.data.labelling.out_of_fold import Sparse

Float32 = NDArray[np.float32]
BITS = 18
_WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_]+|[!?]+")
PATCH, STRIDE, SIDE = 6, 2, 32
CENTRES = 256
SAMPLED = 40_000  # patches the centres are learned from
BATCH = 64  # images at once


def hashed_ngrams(texts: Sequence[str], *, bits: int = BITS) -> Sparse:
    """TF-IDF of words and pairs of words, hashed to 2^bits columns (Weinberger et al. 2009).

    Words are runs of letters and digits in lower case; of Chinese and Japanese, which have no
    borders between words, characters. A feature that stands tf times in a row and in df of the N
    rows weighs (1 + ln tf) · (ln((1 + N) / (1 + df)) + 1); rows have length 1.
    """
    size = 1 << bits
    known: dict[str, int] = {}
    columns, times, offsets = [], [], [0]
    for text in texts:
        words = np.array([_hash(w, known) for w in _WORDS.findall(text.lower())], dtype=np.uint64)
        pairs = words[:-1] * np.uint64(0x9E3779B97F4A7C15) + words[1:] + np.uint64(1)
        pairs = (pairs ^ (pairs >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9) >> np.uint64(40)
        both = np.concatenate([words, pairs]) & np.uint64(size - 1)
        found, count = np.unique(both.astype(np.int64), return_counts=True)
        columns.append(found)
        times.append(count)
        offsets.append(offsets[-1] + len(found))
    column = np.concatenate(columns) if columns else np.zeros(0, dtype=np.int64)
    count = np.concatenate(times) if times else np.zeros(0, dtype=np.int64)
    idf = np.log((1 + len(texts)) / (1 + np.bincount(column, minlength=size))) + 1
    weight = (1 + np.log(np.maximum(count, 1))) * idf[column]
    starts = np.array(offsets, dtype=np.int64)
    rows = np.repeat(np.arange(len(texts)), np.diff(starts))
    norm = np.sqrt(np.bincount(rows, weight * weight, minlength=max(len(texts), 1)))
    return Sparse(column, (weight / norm[rows]).astype(np.float32), starts, size)


def _hash(word: str, known: dict[str, int]) -> int:
    value = known.get(word)
    if value is None:
        value = known[word] = zlib.crc32(word.encode("utf-8", "surrogatepass"))
    return value


def sketches(texts: Sequence[str], *, width: int = 64) -> Float32:
    """Small vectors (rows, width) of texts, near where the texts are alike.

    A random projection of `hashed_ngrams` (Johnson and Lindenstrauss 1984): every column adds
    its weight to one place with one sign.
    """
    found = hashed_ngrams(texts)
    generator = np.random.default_rng(0)
    sign = generator.choice(np.array([-1.0, 1.0]), found.width)
    place = generator.integers(0, width, found.width)
    rows = np.repeat(np.arange(len(texts)), np.diff(found.offsets))
    cell = rows * width + place[found.columns]
    total = np.bincount(cell, found.values * sign[found.columns], minlength=len(texts) * width)
    return total.reshape(len(texts), width).astype(np.float32)


def scaled(vectors: Float32) -> Float32:
    """Vectors (rows, width) with every column of mean 0 and deviation 1."""
    spread = vectors.std(axis=0)
    result: Float32 = ((vectors - vectors.mean(axis=0)) / np.where(spread > 0, spread, 1)).astype(
        np.float32
    )
    return result


def image_features(images: Sequence[NDArray[np.uint8]], *, seed: int = 0) -> Float32:
    """Features (rows, 4 · CENTRES) of images by the method of Coates, Lee and Ng (2011).

    Patches of 6 x 6 pixels are normalised and whitened; k-means finds their centres without any
    label; a patch activates a centre by max(0, mean distance - its distance); the activations
    are added up over each quarter of the image. Images of other sizes are resampled to 32 x 32
    (of less than that, left); those below 6 x 6 give their pixels.

    Args:
        images: uint8 (height, width) or (height, width, 3).
        seed: of the sampled patches and the first centres.
    """
    stack = _same_size(images)
    if min(stack.shape[1:3]) < PATCH:
        return scaled(stack.reshape(len(stack), -1).astype(np.float32))
    generator = np.random.default_rng(seed)
    each = max(1, SAMPLED // max(len(stack), 1))
    chosen = generator.permutation(len(stack))[:SAMPLED]
    sample = np.concatenate(
        [
            all_patches[generator.integers(0, len(all_patches), each)]
            for all_patches in (_patches(stack[i : i + 1])[0] for i in chosen)
        ]
    )
    sample = _contrast(sample)
    mean = sample.mean(axis=0)
    values, axes = np.linalg.eigh(np.cov(sample - mean, rowvar=False))
    whiten = (axes / np.sqrt(np.maximum(values, 0) + 0.1)) @ axes.T
    whiten = whiten.astype(np.float32)
    centres = _centres((sample - mean) @ whiten, generator)
    found = [
        _activations(stack[i : i + BATCH], mean, whiten, centres)
        for i in range(0, len(stack), BATCH)
    ]
    return scaled(np.concatenate(found))


def _same_size(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """uint8 (rows, height, width, channels), at most SIDE a side."""
    shapes = {image.shape for image in images}
    (height, width) = images[0].shape[:2]
    if len(shapes) == 1 and max(height, width) <= SIDE:
        stack = np.stack(images)
        return stack if stack.ndim == 4 else stack[..., None]
    coloured = any(len(shape) == 3 for shape in shapes)
    return np.stack([_resampled(image, coloured) for image in images])


def _resampled(image: NDArray[np.uint8], coloured: bool) -> NDArray[np.uint8]:
    """The mean of equal blocks, or the nearest pixel where the image is smaller."""
    pixels = image if image.ndim == 3 else image[..., None]
    if coloured and pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    values: NDArray[np.floating[Any]] = pixels[..., :3].astype(np.float32)
    for axis in (0, 1):
        size = values.shape[axis]
        edges = (np.arange(SIDE) * size) // SIDE
        width = np.diff(np.append(edges, max(size, SIDE))) if size >= SIDE else np.ones(SIDE)
        if size >= SIDE:
            total = np.add.reduceat(values, edges, axis=axis)
            shape = [1, 1, 1]
            shape[axis] = SIDE
            values = total / width.reshape(shape)
        else:
            values = values.take(edges, axis=axis)
    result: NDArray[np.uint8] = np.rint(values).astype(np.uint8)
    return result


def _patches(images: NDArray[np.uint8]) -> Float32:
    """All patches, float32 (images, places, values)."""
    windows = np.lib.stride_tricks.sliding_window_view(images, (PATCH, PATCH), axis=(1, 2))
    windows = windows[:, ::STRIDE, ::STRIDE]
    count, down, across = windows.shape[:3]
    return windows.reshape(count, down * across, -1).astype(np.float32)


def _contrast(patches: Float32) -> Float32:
    mean = patches.mean(axis=-1, keepdims=True)
    spread = np.sqrt(patches.var(axis=-1, keepdims=True) + 10.0)
    result: Float32 = (patches - mean) / spread
    return result


def _centres(points: Float32, generator: np.random.Generator) -> Float32:
    """K-means (Lloyd 1982), ten rounds; a centre without points takes a new point."""
    many = min(CENTRES, len(points))
    centres = points[generator.permutation(len(points))[:many]]
    for _ in range(10):
        nearest = (points @ centres.T - 0.5 * (centres**2).sum(axis=1)).argmax(axis=1)
        sizes = np.bincount(nearest, minlength=many)
        order = np.argsort(nearest, kind="stable")
        full = np.flatnonzero(sizes)
        starts = (np.cumsum(sizes) - sizes)[full]
        centres = points[generator.integers(0, len(points), many)]
        centres[full] = np.add.reduceat(points[order], starts, axis=0) / sizes[full][:, None]
    result: Float32 = centres.astype(np.float32)
    return result


def _activations(
    images: NDArray[np.uint8], mean: Float32, whiten: Float32, centres: Float32
) -> Float32:
    patches = _patches(images)
    points = ((_contrast(patches) - mean) @ whiten).astype(np.float32)
    squares = (points**2).sum(axis=2, keepdims=True)
    distance = np.sqrt(np.maximum(squares - 2 * (points @ centres.T) + (centres**2).sum(axis=1), 0))
    active = np.maximum(distance.mean(axis=2, keepdims=True) - distance, 0)
    down = (images.shape[1] - PATCH) // STRIDE + 1
    across = (images.shape[2] - PATCH) // STRIDE + 1
    grid = active.reshape(len(images), down, across, -1)
    top, left = (down + 1) // 2, (across + 1) // 2
    quarters = [
        grid[:, rows, columns].sum(axis=(1, 2))
        for rows in (slice(None, top), slice(top, None))
        for columns in (slice(None, left), slice(left, None))
    ]
    return np.concatenate(quarters, axis=1)
