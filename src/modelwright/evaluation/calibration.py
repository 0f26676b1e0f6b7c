"""Whether a classifier is right as often as it says.

Answers are sorted into bins by the probability of what was answered; in each the mean of these
probabilities stands beside the share that was right. The expected calibration error
(arXiv:1706.04599) is sum over bins of n_b / n * |mean probability - share right|.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from modelwright.errors import ModelwrightError
from modelwright.types import Array

BINS = 15  # of equal width in 0..1


class Bin(NamedTuple):
    """Answers of one range of probabilities: their mean, the share that was right, how many."""

    said: float
    right: float
    answers: int


def bins(said: Array, right: Array, count: int = BINS) -> list[Bin]:
    """The bins that have answers, from the least sure to the surest.

    Args:
        said: probability of every answer, (N,), 0 to 1.
        right: whether it was right, (N,).
        count: bins of equal width.

    Raises:
        ModelwrightError: no answers, or a probability outside of 0..1.
    """
    values, hits = np.asarray(said, np.float64), np.asarray(right, bool)
    if not len(values) or len(values) != len(hits) or not ((values >= 0) & (values <= 1)).all():
        raise ModelwrightError(
            "calibration: one probability in 0..1 is meant for each of at least one answer"
        )
    place = np.minimum((values * count).astype(int), count - 1)
    chosen = [place == number for number in range(count)]
    return [
        Bin(float(values[of].mean()), float(hits[of].mean()), int(of.sum()))
        for of in chosen
        if of.any()
    ]


def expected_error(found: list[Bin]) -> float:
    """The expected calibration error of ``bins``, 0 to 1."""
    total = sum(b.answers for b in found)
    return sum(b.answers * abs(b.said - b.right) for b in found) / total
