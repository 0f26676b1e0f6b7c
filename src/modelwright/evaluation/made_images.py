"""How good made pictures are: how alike as a crowd, how unlike each other, and not copies.

Fréchet distance of two sets of features, as if both were normal (arXiv:1706.08500):

    |mu1 - mu2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2)

It depends on the features and on how many pictures there are, so it compares only where both
are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelwright.types import Array

BLOCK = 4096  # pictures compared at once
PAIRED = 100  # pictures of a class whose distances are all taken


def frechet_distance(one: Array, other: Array) -> float:
    """The Fréchet distance of features (N, D) and (M, D), at least two rows each."""
    first, second = (np.asarray(f, dtype=np.float64) for f in (one, other))
    c1, c2 = (np.atleast_2d(np.cov(f, rowvar=False)) for f in (first, second))
    root = _root(c1)
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ c2 @ root), 0, None)).sum()
    apart = np.square(first.mean(axis=0) - second.mean(axis=0)).sum()
    return max(0.0, float(apart + np.trace(c1) + np.trace(c2) - 2 * cross))


def _root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The symmetric root of a symmetric matrix without negative eigenvalues."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T)


def diversity(features: Array, numbers: Array) -> float:
    """The mean distance of two pictures of one class: features (N, D), class numbers (N,).

    Of a class its first ``PAIRED`` pictures; 0 where no class has two.
    """
    found = []
    for number in np.unique(numbers):
        chosen = np.asarray(features, dtype=np.float64)[np.asarray(numbers) == number][:PAIRED]
        if len(chosen) > 1:
            squares = np.square(chosen).sum(axis=1)
            apart = squares[:, None] + squares[None] - 2 * chosen @ chosen.T
            upper = np.triu_indices(len(chosen), 1)
            found.append(float(np.sqrt(np.clip(apart, 0, None))[upper].mean()))
    return float(np.mean(found)) if found else 0.0


@dataclass(frozen=True)
class Nearest:
    """Of every picture the nearest known one: its row, and the distance (root mean square)."""

    rows: NDArray[np.int64]
    distances: NDArray[np.float64]


def nearest(pictures: Array, known: Array) -> Nearest:
    """The nearest of ``known`` (M, ...) for each of ``pictures`` (N, ...), in levels 0..255.

    Both uint8; ``known`` may be mapped from disk, it is read in blocks.
    """
    asked = _flat(pictures)
    squares = np.square(asked).sum(axis=1)
    best = np.full(len(asked), np.inf)
    rows = np.zeros(len(asked), np.int64)
    for first, block in _blocks(known):
        apart = squares[:, None] + np.square(block).sum(axis=1)[None] - 2 * asked @ block.T
        at = apart.argmin(axis=1)
        found = apart[np.arange(len(asked)), at]
        closer = found < best
        best[closer], rows[closer] = found[closer], first + at[closer]
    # Once more from the pixels: of a copy the difference above is rounding, not 0.
    apart = asked - _flat(np.asarray(known)[rows])
    return Nearest(rows, np.sqrt(np.square(apart, dtype=np.float64).mean(axis=1)))


def _blocks(known: Array) -> Iterator[tuple[int, Array]]:
    for first in range(0, len(known), BLOCK):
        yield first, _flat(known[first : first + BLOCK])


def _flat(pictures: Array) -> Array:
    return np.asarray(pictures).reshape(len(pictures), -1).astype(np.float32)


@dataclass(frozen=True)
class MeanImages:
    """The trivial maker of pictures: the class's mean pixel with noise of its deviation."""

    means: NDArray[np.float32]  # (classes, *shape)
    deviations: NDArray[np.float32]

    @classmethod
    def fit(cls, pictures: Array, numbers: Array) -> MeanImages:
        """Means and deviations of every class; number -1, no classes, counts as class 0."""
        classes = np.maximum(np.asarray(numbers), 0)
        found = [np.asarray(pictures)[classes == c] for c in range(int(classes.max()) + 1)]
        zero = np.zeros(np.shape(pictures)[1:], np.float32)
        means = [f.mean(axis=0, dtype=np.float32) if len(f) else zero for f in found]
        deviations = [f.std(axis=0, dtype=np.float32) if len(f) else zero for f in found]
        return cls(np.stack(means), np.stack(deviations))

    def draw(self, numbers: Array, seed: int = 0) -> NDArray[np.uint8]:
        """A picture of each class number."""
        chosen = np.maximum(np.asarray(numbers), 0)
        noise = np.random.default_rng(seed).standard_normal(
            (len(chosen), *self.means.shape[1:]), dtype=np.float32
        )
        pixels = self.means[chosen] + self.deviations[chosen] * noise
        found: NDArray[np.uint8] = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
        return found
