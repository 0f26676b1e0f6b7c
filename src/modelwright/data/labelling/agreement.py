"""How far people agree beyond chance: Cohen's kappa, Fleiss' kappa, Krippendorff's alpha.

All are (observed - expected) / (1 - expected) agreement: 1 is perfect, 0 is chance. Where only
one label was ever used, agreement cannot be told from chance and they are not a number (nan).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from modelwright.data.labelling.votes import MISSING, Votes
from modelwright.errors import ModelwrightError

Scale = Literal["nominal", "ordinal"]
RESAMPLES = 1000


@dataclass(frozen=True)
class Interval:
    """A statistic and the percentile interval of its bootstrap (Efron 1979)."""

    value: float
    low: float
    high: float


def cohen_kappa(votes: Votes, first: int = 0, second: int = 1) -> float:
    """Agreement of two voters on the items both labelled (Cohen 1960).

    κ = (p_o - p_e) / (1 - p_e), p_o the share of equal labels, p_e = Σ_k p1(k) p2(k).

    Args:
        votes: the table.
        first: column of one voter.
        second: column of the other.
    """
    both = (votes.given[:, first] != MISSING) & (votes.given[:, second] != MISSING)
    if not both.any():
        return float("nan")
    pair = votes.given[both][:, [first, second]]
    share = [np.bincount(pair[:, i], minlength=len(votes.labels)) / len(pair) for i in (0, 1)]
    observed = float((pair[:, 0] == pair[:, 1]).mean())
    return _beyond_chance(observed, float(share[0] @ share[1]))


def fleiss_kappa(votes: Votes) -> float:
    """Agreement of n voters an item, not always the same ones (Fleiss 1971).

    P_i = (Σ_k n_ik² - n) / (n (n - 1)) for each item; p_e = Σ_k p_k². Items nobody labelled are
    left out.

    Raises:
        ModelwrightError: items differ in their number of votes, or have fewer than two.
    """
    counts = votes.counts
    counts = counts[counts.sum(axis=1) > 0]
    if not len(counts):
        return float("nan")
    sizes = counts.sum(axis=1)
    n = int(sizes[0])
    if n < 2 or (sizes != n).any():
        raise ModelwrightError(
            f"Fleiss' kappa: items have {int(sizes.min())} to {int(sizes.max())} votes; it needs"
            " the same number, at least 2, on each: use Krippendorff's alpha"
        )
    observed = float((((counts**2).sum(axis=1) - n) / (n * (n - 1))).mean())
    share = counts.sum(axis=0) / counts.sum()
    return _beyond_chance(observed, float(share @ share))


def krippendorff_alpha(votes: Votes, scale: Scale = "nominal") -> float:
    """Agreement of any number of voters with any votes missing (Krippendorff 2011).

    α = 1 - D_o / D_e, with D = Σ_ck o_ck δ²_ck over the coincidence matrix o, in which an item
    with m votes counts each of its pairs 1 / (m - 1). δ² is [c ≠ k] on a nominal scale, and
    (Σ_{g=c..k} n_g - (n_c + n_k) / 2)² on an ordinal one, whose order is that of the labels.
    """
    counts = votes.counts.astype(np.float64)
    sizes = counts.sum(axis=1)
    counts, sizes = counts[sizes > 1], sizes[sizes > 1]
    scaled = counts / (sizes - 1)[:, None] if len(counts) else counts
    coincidence = scaled.T @ counts - np.diag(scaled.sum(axis=0))
    number = coincidence.sum(axis=1)
    total = float(number.sum())
    if total <= 1:
        return float("nan")
    distance = _distance(number, scale)
    expected = float((np.outer(number, number) * distance).sum()) / (total - 1)
    if expected == 0:
        return float("nan")
    return 1.0 - float((coincidence * distance).sum()) / expected


def _distance(number: NDArray[np.float64], scale: Scale) -> NDArray[np.float64]:
    size = len(number)
    if scale == "nominal":
        return 1.0 - np.eye(size)
    if scale != "ordinal":
        raise ModelwrightError(f"agreement: no scale {scale!r}; known: nominal, ordinal")
    upto = np.cumsum(number)
    low = np.minimum.outer(np.arange(size), np.arange(size))
    high = np.maximum.outer(np.arange(size), np.arange(size))
    between = upto[high] - upto[low] + number[low]
    distance: NDArray[np.float64] = (between - (number[low] + number[high]) / 2) ** 2
    return distance


def _beyond_chance(observed: float, expected: float) -> float:
    return (observed - expected) / (1 - expected) if expected < 1 - 1e-12 else float("nan")


def bootstrap(
    statistic: Callable[[Votes], float],
    votes: Votes,
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """A statistic with its interval: items are drawn again with replacement.

    Resamples on which the statistic is not a number are left out of the interval.
    """
    value = statistic(votes)
    drawn = []
    generator = np.random.default_rng(seed)
    for _ in range(resamples if votes.items else 0):
        rows = generator.integers(0, len(votes.items), len(votes.items))
        items = [votes.items[i] for i in rows]
        drawn.append(statistic(Votes(items, votes.voters, votes.labels, votes.given[rows])))
    known = [d for d in drawn if not np.isnan(d)]
    if not known:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))
