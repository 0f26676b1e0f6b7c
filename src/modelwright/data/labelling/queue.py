"""What to label next: the rows a classifier is least sure of, and not all of them alike.

Uncertainty sampling (Lewis and Gale 1994; Settles 2009, section 3.1). Pure uncertainty asks about
ten copies of one hard row in a row; so within each batch rows are chosen far from each other
(farthest-first traversal, Gonzalez 1985) out of the most uncertain that are left.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from modelwright.errors import ModelwrightError, did_you_mean

Floats = NDArray[np.float64]
Measure = Literal["margin", "entropy", "least_confidence"]
MEASURES: tuple[Measure, ...] = ("margin", "entropy", "least_confidence")
BATCH = 20
POOL = 4  # times the batch: how many of the most uncertain a batch is chosen from


def uncertainty(probabilities: Floats, measure: Measure = "margin") -> Floats:
    """How unsure each row is, in [0, 1], shape (rows,).

    margin: 1 - (p1 - p2) of the two most probable labels; entropy: -Σ p ln p / ln(labels);
    least_confidence: (1 - p1) · labels / (labels - 1).

    Raises:
        ModelwrightError: an unknown measure.
    """
    if measure not in MEASURES:
        raise ModelwrightError(
            f"queue: no measure {measure!r}{did_you_mean(measure, MEASURES)};"
            f" known: {', '.join(MEASURES)}"
        )
    labels = probabilities.shape[1]
    if labels < 2:
        return np.zeros(len(probabilities))
    if measure == "entropy":
        logs = np.log(np.maximum(probabilities, 1e-300))
        result: Floats = -(probabilities * logs).sum(axis=1) / np.log(labels)
    elif measure == "margin":
        top = np.partition(probabilities, labels - 2, axis=1)[:, -2:]
        result = 1 - (top[:, 1] - top[:, 0])
    else:
        result = (1 - probabilities.max(axis=1)) * labels / (labels - 1)
    return np.clip(result, 0.0, 1.0)


def queue(
    probabilities: Floats,
    measure: Measure = "margin",
    *,
    features: NDArray[np.float32] | None = None,
    batch: int = BATCH,
) -> NDArray[np.int64]:
    """The order in which to ask, the most useful first: a permutation of the rows.

    Args:
        probabilities: (rows, labels).
        measure: of the uncertainty.
        features: (rows, width), anything in which near means alike; without them the order is
            that of uncertainty alone. Equal uncertainty keeps the order of the rows.
        batch: rows that are chosen apart from each other, from POOL times as many.

    Raises:
        ModelwrightError: an unknown measure, or features of another number of rows.
    """
    order = np.argsort(-uncertainty(probabilities, measure), kind="stable")
    if features is None:
        return order
    if len(features) != len(order):
        raise ModelwrightError(
            f"queue: features of {len(features)} rows, probabilities of {len(order)};"
            " give both for each row"
        )
    left = order
    chosen: list[NDArray[np.int64]] = []
    while len(left):
        pool = left[: batch * POOL]
        taken = _apart(features[pool], min(batch, len(pool)))
        chosen.append(pool[taken])
        left = np.concatenate([np.delete(pool, taken), left[batch * POOL :]])
    return np.concatenate(chosen) if chosen else order


def _apart(points: NDArray[np.float32], many: int) -> NDArray[np.int64]:
    """The first point, then each time the one farthest from all taken."""
    taken = [0]
    nearest = ((points - points[0]) ** 2).sum(axis=1)
    for _ in range(many - 1):
        nearest[taken[-1]] = -1.0
        taken.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, ((points - points[taken[-1]]) ** 2).sum(axis=1))
        nearest[taken] = -1.0
    return np.array(taken, dtype=np.int64)
