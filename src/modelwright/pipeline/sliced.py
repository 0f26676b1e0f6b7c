"""Slices of graded answers: what they are cut by, and how sure the mean of each is.

A column of more than a few numbers is cut into bins of equally many answers, years into decades.
Where a row gave several answers, as a game does for its positions, they are much alike; so an
interval draws whole rows again, and all answers of a row with it (cluster bootstrap).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from modelwright.tasks import resampling
from modelwright.types import Array

KINDS = 20  # slices at most, of names those of the most answers
BINS = 5  # of a column of numbers
FEW = 2 * BINS  # numbers that are shown each, such as stars
NAME = 80  # characters of a name that are kept
YEAR = "year"  # how a column of years ends


def kept(value: Any) -> Any:
    """A value of a row as it is written down: a number, None, or a short text."""
    plain = value.item() if isinstance(value, np.generic) else value
    if plain is None or (isinstance(plain, int | float) and not isinstance(plain, bool)):
        return plain if plain is None or math.isfinite(plain) else None
    return str(plain)[:NAME]


def parts_of(column: str, values: Sequence[Any]) -> list[tuple[str, Array]]:
    """The slices of a column in their order: a name, and which answers (n,) belong to it."""
    known = np.array([isinstance(v, int | float) for v in values])
    numbers = np.array([v if isinstance(v, int | float) else math.nan for v in values], np.float64)
    texts = any(isinstance(v, str) for v in values)
    if not texts and column.endswith(YEAR) and known.any():
        found = _decades(numbers, known)
    elif not texts and len(np.unique(numbers[known])) > FEW:
        found = _bins(numbers, known)
    else:
        names = ["" if v is None else str(v) for v in values]
        several = [(name, np.array([n == name for n in names])) for name in dict.fromkeys(names)]
        return sorted(several, key=lambda part: (-int(part[1].sum()), part[0]))[:KINDS]
    return [*found, *([] if known.all() else [("", ~known)])]


def _decades(years: Array, known: Array) -> list[tuple[str, Array]]:
    """The decades of the most answers, the first ones first."""
    decades = np.where(known, years // 10 * 10, -1)
    names, counts = np.unique(decades[known], return_counts=True)
    chosen = np.sort(names[np.argsort(-counts, kind="stable")[:KINDS]])
    return [(f"{decade:.0f}s", decades == decade) for decade in chosen]


def _bins(numbers: Array, known: Array) -> list[tuple[str, Array]]:
    """Bins of about equally many answers, each named by its smallest and its largest number."""
    ordered = np.sort(numbers[known])
    edges = np.unique(ordered[[-(-len(ordered) * i // BINS) - 1 for i in range(1, BINS)]])
    which = np.where(known, np.searchsorted(edges, numbers, side="left"), -1)
    found = []
    for number in np.unique(which[known]):
        inside = which == number
        low, high = numbers[inside].min(), numbers[inside].max()
        found.append((_said(low) if low == high else f"{_said(low)} to {_said(high)}", inside))
    return found


def _said(number: float) -> str:
    return f"{number:.0f}" if number == int(number) else f"{number:g}"


def interval(grades: Array, rows: Array | None) -> tuple[float, float]:
    """The 95 % interval of a mean grade; ``rows`` (n,) tell which answers are drawn together."""
    counts = np.stack([grades, np.ones(len(grades))], axis=1)
    return resampling.interval(summed(counts, rows), resampling.ratio)


def summed(counts: Array, rows: Array | None) -> Array:
    """The sums (rows, k) over the answers (n, k) of each row; as they are where none is told."""
    if rows is None:
        return counts
    _, which = np.unique(rows, return_inverse=True)
    sums = np.zeros((int(which.max(initial=-1)) + 1, counts.shape[1]))
    np.add.at(sums, which, counts)
    return sums
