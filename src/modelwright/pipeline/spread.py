"""How sure a mean over folds is: spread, standard error and two 95 % intervals.

The folds share most of their training rows, so their results are not independent and the plain
interval is too narrow; no unbiased estimate of the true variance exists (Bengio and Grandvalet
2004). The corrected interval allows for the sharing as Nadeau and Bengio (2003) do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from modelwright.evaluation.metrics import Mean


@dataclass(frozen=True)
class Spread:
    """A measure over k folds; what needs two folds is None where there is one.

    ``deviation`` is the sample deviation s, ``error`` is s / sqrt(k), ``interval`` is
    mean ± t s / sqrt(k) and ``corrected`` is mean ± t s sqrt(1/k + ratio), with t the 97.5 %
    quantile of Student's distribution with k - 1 degrees of freedom, and ``ratio`` the held-out
    rows over the training rows of a fold.
    """

    count: int
    mean: float
    deviation: float | None = None
    error: float | None = None
    interval: tuple[float, float] | None = None
    corrected: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def spread(values: Sequence[float], ratio: float) -> Spread:
    """The spread of one finite value a fold; ``ratio`` is held-out rows over training rows."""
    found = Mean(values)
    k, mean, s = found.count, found.value, found.spread
    if s is None:
        return Spread(k, mean)
    t = student_quantile(0.975, k - 1)
    half, wide = t * s / math.sqrt(k), t * s * math.sqrt(1 / k + ratio)
    return Spread(
        k, mean, s, s / math.sqrt(k), (mean - half, mean + half), (mean - wide, mean + wide)
    )


def student_quantile(p: float, freedom: int) -> float:
    """The t below which Student's distribution has the share ``p`` of its mass, 0.5 <= p < 1."""
    low, high = 0.0, 1.0
    while 0.5 + student_mass(high, freedom) / 2 < p:
        high *= 2
    for _ in range(200):  # halving, until the interval is one float wide
        middle = (low + high) / 2
        if middle in (low, high):
            break
        below = 0.5 + student_mass(middle, freedom) / 2 < p
        low, high = (middle, high) if below else (low, middle)
    return high


def student_mass(t: float, freedom: int) -> float:
    """The mass within ±t, for whole degrees of freedom (Abramowitz and Stegun 26.7.3, 26.7.4)."""
    angle = math.atan2(t, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for n in range(2 + odd, freedom - 1, 2):
        term *= cosine * cosine * (n - 1) / n
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
