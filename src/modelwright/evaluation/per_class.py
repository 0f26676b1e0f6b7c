"""F1 of every class, with how sure it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from modelwright.errors import ModelwrightError
from modelwright.tasks.resampling import DRAWS, Floats
from modelwright.types import Array


class ClassScore(NamedTuple):
    """F1 of a class, its 95 % interval, and how many examples mean it."""

    name: str
    f1: float
    low: float
    high: float
    meant: int


def per_class(
    references: Sequence[str], answers: Sequence[str], *, draws: int = DRAWS, seed: int = 0
) -> list[ClassScore]:
    """F1 = 2 right / (answered + meant) of every class, the mean of all last, as "macro-F1".

    Intervals are by bootstrap over the examples. Drawing n examples again is drawing from the cells
    of the confusion matrix, a multinomial. A class that a draw neither means nor answers is left
    out of that draw's mean.

    Raises:
        ModelwrightError: no answers, or not one to each reference.
    """
    if len(references) != len(answers) or not references:
        raise ModelwrightError(
            f"per class: {len(references)} references and {len(answers)} answers; give one answer"
            " to each of at least one"
        )
    names = sorted({*references, *answers})
    number = {name: i for i, name in enumerate(names)}
    pairs = Counter(
        (number[reference], number[answer])
        for reference, answer in zip(references, answers, strict=True)
    )
    cells = np.array(sorted(pairs))  # of the confusion matrix, (cells, 2): meant and answered
    counts = np.array([pairs[one, other] for one, other in cells.tolist()], dtype=np.float64)
    drawn = np.random.default_rng(seed).multinomial(len(answers), counts / len(answers), size=draws)
    whole = _f1(cells, counts, len(names))
    many = np.stack([_f1(cells, one, len(names)) for one in drawn])
    values = np.append(whole, np.nanmean(whole))
    spread = np.concatenate([many, np.nanmean(many, axis=1, keepdims=True)], axis=1)
    low, high = np.nanpercentile(spread, (2.5, 97.5), axis=0)
    meant = np.append(np.bincount(cells[:, 0], counts, len(names)), len(answers)).tolist()
    every = zip([*names, "macro-F1"], values, low, high, meant, strict=True)
    return [
        ClassScore(name, float(value), float(a), float(b), int(count))
        for name, value, a, b, count in every
    ]


def _f1(cells: Array, counts: Array, classes: int) -> Floats:
    """F1 (classes,) of the counts of a confusion matrix's cells; NaN where nothing is there."""
    same = cells[:, 0] == cells[:, 1]
    right = np.bincount(cells[same, 0], counts[same], classes)
    total = sum(np.bincount(cells[:, side], counts, classes) for side in (0, 1))
    found: Floats = np.divide(2 * right, total, out=np.full(classes, np.nan), where=total > 0)
    return found
