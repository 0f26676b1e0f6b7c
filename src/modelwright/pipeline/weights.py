"""Weighted mixtures: how often the rows of each source are seen in a pass over the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from modelwright.errors import ModelwrightError
from modelwright.types import Row


def of_examples(
    rows: Sequence[Row], counts: Sequence[int], given: Mapping[str, float]
) -> list[float]:
    """How often each example stands in a pass; an empty list where nothing is weighted.

    Args:
        rows: whose ids begin with the name of their file, or of their part of a data set.
        counts: how many examples each of them has given.
        given: ``data.weights``: patterns of ids and weights; the first that suits is taken.

    Raises:
        ModelwrightError: a pattern suits no row, or nothing is left.
    """
    if not given:
        return []
    suited = dict.fromkeys(given, 0)
    times: list[float] = []
    for row, count in zip(rows, counts, strict=True):
        pattern = next((p for p in given if fnmatchcase(str(row["id"]), p)), None)
        if pattern is not None:
            suited[pattern] += 1
        times += [1.0 if pattern is None else given[pattern]] * count
    for pattern, found in suited.items():
        if not found:
            raise ModelwrightError(
                f"data.weights: no row's id is like {pattern!r}; the first are"
                f" {', '.join(str(row['id']) for row in rows[:3])}"
            )
    if not any(times):
        raise ModelwrightError("data.weights: all rows have the weight 0; give one more")
    return times
