"""Who said what about which item: the table that label models and agreement start from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelwright.errors import ModelwrightError, did_you_mean

MISSING = -1  # an annotator who was not asked, a labelling function that abstained


@dataclass(frozen=True, eq=False)
class Votes:
    """Labels that several voters (people or labelling functions) gave to the same items.

    Attributes:
        items: ids of the items.
        voters: names of the voters.
        labels: names of the labels; their order is the scale where labels are ordinal.
        given: int64 (items, voters), a position in ``labels``, or MISSING.
    """

    items: list[str]
    voters: list[str]
    labels: list[str]
    given: NDArray[np.int64]

    def __post_init__(self) -> None:
        shape = (len(self.items), len(self.voters))
        if self.given.shape != shape:
            raise ModelwrightError(
                f"votes: an array of shape {self.given.shape} for {shape[0]} items and"
                f" {shape[1]} voters; give one row an item and one column a voter"
            )
        if self.given.size and not MISSING <= self.given.min() <= self.given.max() < len(
            self.labels
        ):
            raise ModelwrightError(
                f"votes: a number outside -1 .. {len(self.labels) - 1}; -1 is no vote, the"
                " others are positions in the list of labels"
            )

    @property
    def counts(self) -> NDArray[np.int64]:
        """How often every item was given every label, int64 (items, labels)."""
        flat = np.zeros(len(self.items) * len(self.labels), dtype=np.int64)
        item, voter = np.nonzero(self.given != MISSING)
        np.add.at(flat, item * len(self.labels) + self.given[item, voter], 1)
        return flat.reshape(len(self.items), len(self.labels))


def votes_of(
    given: Iterable[tuple[str, str, str]], labels: Sequence[str], items: Sequence[str] = ()
) -> Votes:
    """The table of (item, voter, label) records; a later record replaces an earlier one.

    Args:
        given: the records.
        labels: the closed set of labels.
        items: items in the wanted order; those that only the records name follow.

    Raises:
        ModelwrightError: a label is not one of ``labels``.
    """
    number = {label: i for i, label in enumerate(labels)}
    row = {item: i for i, item in enumerate(dict.fromkeys(items))}
    column: dict[str, int] = {}
    cells: dict[tuple[int, int], int] = {}
    for item, voter, label in given:
        if label not in number:
            raise ModelwrightError(
                f"votes: {voter!r} gives {item!r} the label {label!r}, which is not among the"
                f" labels{did_you_mean(label, labels)}; known: {', '.join(labels)}"
            )
        place = row.setdefault(item, len(row)), column.setdefault(voter, len(column))
        cells[place] = number[label]
    table = np.full((len(row), len(column)), MISSING, dtype=np.int64)
    for place, value in cells.items():
        table[place] = value
    return Votes(list(row), list(column), list(labels), table)
