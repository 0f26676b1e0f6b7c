"""Sums to be solved, made here: questions and answers in the form of GSM8K."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from modelwright.errors import ModelwrightError
from modelwright.types import Row

LARGEST = 99  # of what is added


def arithmetic_rows(path: Path | None = None) -> Iterator[Row]:
    """All sums of two numbers below 100, in an order that is always the same.

    Sums that differ in their order alone are of one group, so that none is asked in one part of a
    split and answered in another.

    Raises:
        ModelwrightError: a path is given; nothing is read.
    """
    if path is not None:
        raise ModelwrightError("data set 'arithmetic' is made here: leave out 'path'")
    for pair in np.random.default_rng(0).permutation((LARGEST + 1) ** 2).tolist():
        a, b = divmod(pair, LARGEST + 1)
        yield {
            "id": f"{a}+{b}",
            "group": f"{min(a, b)}+{max(a, b)}",
            "question": f"{a}+{b}",
            "answer": f"#### {a + b}",
        }
