"""What went into every step of data preparation, what came out, and why the rest did not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from modelwright.errors import ModelwrightError

if TYPE_CHECKING:  # types loads torch, which a worker that only cleans need not have
    from modelwright.types import Row

EXAMPLES_PER_REASON = 5


@dataclass(frozen=True)
class Dropped:
    """A row that left, and why.

    ``reason`` is a short phrase shared by all rows that left for the same cause; ``kept_id``
    and ``similarity`` (Jaccard, 0..1) are set when the row left because of another row.
    """

    id: str
    reason: str
    bytes: int
    kept_id: str | None = None
    similarity: float | None = None


class Problem(str):
    """Why a source has nothing whole in a row: the ``problem`` of a row that leaves at once.

    A type of its own, since a user's data may have a column of that name.
    """


class Note(str):
    """What a source has guessed of a row that stays: its ``note``, counted and said.

    A type of its own for the same reason; it is no part of what a row says.
    """


def notes_of(rows: Iterable[Row]) -> dict[str, int]:
    """How many rows have each ``Note``."""
    return dict(Counter(str(n) for row in rows if isinstance(n := row.get("note"), Note)))


def whole_rows(rows: Iterable[Row]) -> tuple[list[Row], list[Dropped]]:
    """The rows that are whole, in order, and those that have a ``Problem``."""
    kept: list[Row] = []
    dropped: list[Dropped] = []
    for row in rows:
        if isinstance(why := row.get("problem"), Problem):
            dropped.append(drop(row, why))
        else:
            kept.append(row)
    return kept, dropped


def row_bytes(row: Row) -> int:
    """Size of a row's content in bytes: its text in UTF-8, else the sum over its columns."""
    text = row.get("text")
    values = [text] if isinstance(text, str) else list(row.values())
    return sum(_value_bytes(value) for value in values)


def _value_bytes(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, bytes):
        return len(value)
    return int(value.nbytes) if isinstance(value, np.ndarray) else 8


def drop(
    row: Row, reason: str, kept_id: str | None = None, similarity: float | None = None
) -> Dropped:
    """The record of ``row`` leaving for ``reason``."""
    return Dropped(row["id"], reason, row_bytes(row), kept_id, similarity)


@dataclass
class Waterfall:
    """The steps of one stream of rows, in order, each proven complete.

    Law 10: every row that enters a step comes out or is dropped with a reason, exactly once,
    and what enters a step is what left the step before.
    """

    steps: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self,
        step: str,
        rows_in: Sequence[Row],
        rows_out: Sequence[Row],
        dropped: Sequence[Dropped] = (),
    ) -> None:
        """Record a step.

        Raises:
            ModelwrightError: A row was lost, doubled, invented, or dropped without a reason.
        """
        self._prove(step, rows_in, rows_out, dropped)
        examples: dict[str, list[str]] = {}
        for gone in dropped:
            ids = examples.setdefault(gone.reason, [])
            if len(ids) < EXAMPLES_PER_REASON:
                ids.append(gone.id)
        self.steps.append(
            {
                "step": step,
                "rows_in": len(rows_in),
                "rows_out": len(rows_out),
                "bytes_in": sum(map(row_bytes, rows_in)),
                "bytes_out": sum(map(row_bytes, rows_out)),
                "dropped": dict(Counter(d.reason for d in dropped).most_common()),
                "examples": examples,
            }
        )

    def _prove(
        self, step: str, rows_in: Sequence[Row], rows_out: Sequence[Row], dropped: Sequence[Dropped]
    ) -> None:
        counts = f"{len(rows_in)} rows in, {len(rows_out)} out, {len(dropped)} dropped"
        if self.steps and self.steps[-1]["rows_out"] != len(rows_in):
            before = self.steps[-1]
            raise ModelwrightError(
                f"step {step!r}: {len(rows_in)} rows in, but step {before['step']!r} gave"
                f" {before['rows_out']}: hand every step all the rows of the step before"
            )
        unexplained = [d.id for d in dropped if not d.reason.strip()]
        if unexplained:
            raise ModelwrightError(
                f"step {step!r}: row {unexplained[0]!r} was dropped without a reason: give one"
            )
        entered = Counter(row["id"] for row in rows_in)
        left = Counter(row["id"] for row in rows_out)
        left.update(d.id for d in dropped)
        for verb, wrong in (("lost", entered - left), ("doubled or invented", left - entered)):
            if wrong:
                raise ModelwrightError(
                    f"step {step!r}: {counts}: row {next(iter(wrong))!r} was {verb}:"
                    " every row must come out or be dropped, exactly once"
                )

    def to_json(self) -> list[dict[str, Any]]:
        """The steps as plain values, for the report."""
        return [dict(step) for step in self.steps]
