"""Labels that look wrong: confident learning.

Northcutt, Jiang and Chuang (2021), "Confident Learning: Estimating Uncertainty in Dataset
Labels", arXiv:1911.00068. A classifier that never saw a row's label gives its probabilities; the
rows that it confidently puts elsewhere are counted by pairs (given, likely), and as many rows of
each pair as the count says are listed, the surest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelwright.errors import ModelwrightError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Suspect:
    """A row whose label looks wrong.

    Attributes:
        id: the row.
        given: its label.
        suggested: the label the classifier finds most likely.
        given_probability: out-of-fold probability of ``given``.
        suggested_probability: out-of-fold probability of ``suggested``.
    """

    id: str
    given: str
    suggested: str
    given_probability: float
    suggested_probability: float

    @property
    def margin(self) -> float:
        """How much more likely the suggestion is, in (0, 1]: the order of the list."""
        return self.suggested_probability - self.given_probability


def check_probabilities(probabilities: Floats, rows: int, labels: int, where: str) -> Floats:
    """The probabilities, once they are known to be some.

    Raises:
        ModelwrightError: another shape, not finite, negative, or rows that do not add up to 1.
    """
    if probabilities.shape != (rows, labels):
        raise ModelwrightError(
            f"{where}: probabilities of shape {probabilities.shape} for {rows} rows and {labels}"
            " labels; give one for each row and label"
        )
    bad = ~np.isfinite(probabilities).all(axis=1) | (probabilities < 0).any(axis=1)
    bad |= ~(np.abs(probabilities.sum(axis=1) - 1) < 1e-3)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ModelwrightError(
            f"{where}: the probabilities of row {row} are not shares that add up to 1; give"
            " softmax outputs, not scores"
        )
    return probabilities


def confident_joint(given: Ints, probabilities: Floats) -> Floats:
    """Estimated number of rows by (given label, true label), float64 (labels, labels).

    A row counts for true label j if p_j reaches t_j, the mean of p_j over the rows given j; if
    several do, for the most probable of them. Rows of the table are then scaled to the number of
    rows given each label (equations 1 to 3 of the paper).

    Args:
        given: int64 (rows,).
        probabilities: (rows, labels), out of fold.
    """
    labels = probabilities.shape[1]
    sizes = np.bincount(given, minlength=labels)
    own = np.bincount(given, probabilities[np.arange(len(given)), given], minlength=labels)
    threshold = np.divide(own, sizes, out=np.full(labels, np.inf), where=sizes > 0)
    above = probabilities >= threshold - 1e-6
    rows = np.flatnonzero(above.any(axis=1))
    likely = np.where(above[rows], probabilities[rows], -1.0).argmax(axis=1)
    joint = np.bincount(given[rows] * labels + likely, minlength=labels * labels)
    table: Floats = joint.reshape(labels, labels).astype(np.float64)
    # A label none of whose rows is confident would otherwise lose them all.
    diagonal = np.arange(labels)
    table[diagonal, diagonal] = np.maximum(table[diagonal, diagonal], 1.0)
    table *= (sizes / table.sum(axis=1))[:, None]
    return table


def label_errors(given: Ints, probabilities: Floats) -> Ints:
    """Positions of the rows whose label looks wrong, the surest first ("prune by noise rate").

    Of the rows given i, those with the largest p_j - p_i are listed for each other label j, as
    many as the confident joint holds for (i, j); none whose own label is the most probable. One
    row of every label is always left.

    Raises:
        ModelwrightError: the arrays do not fit each other, or are no probabilities.
    """
    labels = probabilities.shape[1] if probabilities.ndim == 2 else 0
    check_probabilities(probabilities, len(given), labels, "label errors")
    if not len(given):
        return np.zeros(0, dtype=np.int64)
    if given.min() < 0 or given.max() >= labels:
        raise ModelwrightError(
            f"label errors: a label outside 0 .. {labels - 1}; give every row one of the labels"
        )
    joint = _whole(confident_joint(given, probabilities))
    listed = np.zeros(len(given), dtype=bool)
    own = probabilities[np.arange(len(given)), given]
    for i in range(labels):
        rows = np.flatnonzero(given == i)
        for j in range(labels):
            many = min(int(joint[i, j]), len(rows) - 1)
            if i != j and many > 0:
                margin = probabilities[rows, j] - own[rows]
                listed[rows[np.argsort(-margin, kind="stable")[:many]]] = True
    listed &= probabilities.argmax(axis=1) != given
    for i in range(labels):
        rows = np.flatnonzero(given == i)
        if len(rows) and listed[rows].all():
            listed[rows[own[rows].argmax()]] = False
    found = np.flatnonzero(listed)
    margin = probabilities[found].max(axis=1) - own[found]
    return found[np.argsort(-margin, kind="stable")]


def _whole(joint: Floats) -> Ints:
    """Whole numbers with the same sums of rows: the largest remainders are rounded up."""
    low = np.floor(joint + 1e-9)
    short = np.rint((joint - low).sum(axis=1)).astype(np.int64)
    order = np.argsort(np.argsort(-(joint - low), axis=1, kind="stable"), axis=1)
    result: Ints = low.astype(np.int64) + (order < short[:, None])
    return result


def suspects(
    ids: Sequence[str], given: Ints, probabilities: Floats, labels: Sequence[str]
) -> list[Suspect]:
    """The list of `label_errors` with names: what a person looks through."""
    best = probabilities.argmax(axis=1)
    return [
        Suspect(
            ids[row],
            labels[given[row]],
            labels[best[row]],
            float(probabilities[row, given[row]]),
            float(probabilities[row, best[row]]),
        )
        for row in label_errors(given, probabilities).tolist()
    ]
