"""How sure a measure is: the bootstrap over examples, and over pairs of answers to the same ones.

A measure of many answers is a function of sums over the examples (right answers, lengths, found and
meant spans). The bootstrap (Efron 1979) draws as many examples again, with replacement, and takes
the measure of each draw; the middle 95 % of the draws is its percentile interval. Two sets of
answers are compared on the same draws (Koehn 2004, paired bootstrap).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelwright.errors import ModelwrightError
from modelwright.types import Array

DRAWS = 1000
_AT_ONCE = 1 << 24  # numbers drawn at once
Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]  # sums (draws, k) to the measure (draws,)


class Difference(NamedTuple):
    """Of two measures: the second less the first, its 95 % interval, and how likely chance is.

    ``chance`` is the share of draws in which the difference is zero or has the other sign, doubled,
    at most 1: a two-sided p-value.
    """

    value: float
    low: float
    high: float
    chance: float


def resampled(counts: Array, draws: int = DRAWS, seed: int = 0) -> Floats:
    """Sums (draws, k) of examples drawn again from counts (n, k); the same seed draws the same.

    Raises:
        ModelwrightError: there is no example.
    """
    counts = np.asarray(counts, dtype=np.float64)
    number = len(counts)
    if number == 0:
        raise ModelwrightError("bootstrap: nothing to draw from; give at least one example")
    rng = np.random.default_rng(seed)
    parts = []
    size = max(1, _AT_ONCE // number)
    for begin in range(0, draws, size):
        wanted = min(size, draws - begin)
        times = rng.multinomial(number, np.full(number, 1 / number), size=wanted)
        parts.append(times @ counts)
    return np.concatenate(parts)


def interval(
    counts: Array, statistic: Statistic, *, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """The 95 % percentile interval of a measure of examples with ``counts`` (n, k)."""
    low, high = np.percentile(statistic(resampled(counts, draws, seed)), (2.5, 97.5))
    return float(low), float(high)


def difference(
    first: Array, second: Array, statistic: Statistic, *, draws: int = DRAWS, seed: int = 0
) -> Difference:
    """How the measure of the second answers differs from that of the first, on the same examples.

    Args:
        first: counts (n, k) of the first answers.
        second: counts (n, k) of the second answers to the same examples.
        statistic: sums to the measure.
        draws: how often all examples are drawn again.
        seed: of the draws.

    Raises:
        ModelwrightError: they do not answer equally many examples.
    """
    if np.shape(first) != np.shape(second):
        raise ModelwrightError(
            f"comparison: {len(first)} answers beside {len(second)}; both must answer the same"
            " examples"
        )
    both = resampled(np.concatenate([first, second], axis=1), draws, seed)
    width = np.shape(first)[1]
    drawn = statistic(both[:, width:]) - statistic(both[:, :width])
    sums = (np.asarray(x, dtype=np.float64).sum(axis=0, keepdims=True) for x in (first, second))
    whole = [statistic(x)[0] for x in sums]
    low, high = np.percentile(drawn, (2.5, 97.5))
    value = float(whole[1] - whole[0])
    against = float(np.mean(drawn * np.sign(value) <= 0)) if value else 1.0
    return Difference(value, float(low), float(high), min(1.0, 2 * against))


def ratio(sums: Floats) -> Floats:
    """The first sum by the second, 0 where that is 0: a mean, a share."""
    found: Floats = np.divide(
        sums[:, 0], sums[:, 1], out=np.zeros(len(sums)), where=sums[:, 1] != 0
    )
    return found


def f1(sums: Floats) -> Floats:
    """2 right / (said + meant) of sums (draws, 3) in this order; 1 where there is neither."""
    total = sums[:, 1] + sums[:, 2]
    found: Floats = np.divide(2 * sums[:, 0], total, out=np.ones(len(sums)), where=total != 0)
    return found


def said(low: float, high: float, digits: int = 3) -> str:
    """An interval in words."""
    return f"95 % interval {low:.{digits}f} to {high:.{digits}f}, by bootstrap"
