"""Mean and deviation of features in one pass over data of any size."""

from __future__ import annotations

import numpy as np

from modelwright.types import Array


class Moments:
    """Running mean and sum of squared deviations of every feature.

    Blocks are merged by mean' = mean + d n_b / n and M2' = M2 + M2_b + d^2 n_a n_b / n, with
    d = mean_b - mean (Chan, Golub, LeVeque 1983), which does not cancel as sums of squares do.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: Array = np.zeros(())
        self.squares: Array = np.zeros(())  # sum of squared deviations from the mean

    def add(self, block: Array) -> None:
        """Take in the rows of a block (rows, ...)."""
        block = np.asarray(block, dtype=np.float64)
        mean = block.mean(axis=0)
        squares = np.square(block - mean).sum(axis=0)
        total = self.count + len(block)
        shift = mean - self.mean
        self.mean = self.mean + shift * (len(block) / total)
        self.squares = self.squares + squares + np.square(shift) * (self.count * len(block) / total)
        self.count = total

    def pooled(self) -> Moments:
        """The moments of all values together, as if each were a row of its own."""
        pooled = Moments()
        pooled.count = self.count * self.mean.size
        pooled.mean = self.mean.mean()
        spread = np.square(self.mean - pooled.mean).sum() * self.count  # between features
        pooled.squares = self.squares.sum() + spread
        return pooled

    def scale(self) -> tuple[Array, Array]:
        """Mean and deviation as float32; the deviation of a constant feature counts as 1."""
        deviation = np.sqrt(self.squares / self.count)
        # Rounding leaves a constant column with a deviation near, not at, zero.
        constant = deviation <= 1e-7 * np.abs(self.mean)
        deviation = np.where(constant, 1.0, deviation)
        return np.asarray(self.mean, np.float32), np.asarray(deviation, np.float32)
