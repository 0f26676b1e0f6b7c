"""One person labelling a list of rows: where they are, what they said, one step back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelwright.data.labelling.label_file import Decision, LabelFile, decision, standing
from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.types import Row


@dataclass(frozen=True)
class Suggestion:
    """What a model or the labelling functions think of a row."""

    label: str
    probability: float


class Session:
    """The rows in the order of asking, and one person's place among them.

    ``place`` is the row that is shown; it equals ``len(rows)`` once all are decided.

    Args:
        rows: in the order in which they shall be asked about.
        labels: the closed set.
        file: where decisions go; those of ``who`` that it holds already count.
        who: the person.
        suggestions: row id -> what is thought of it.

    Raises:
        ModelwrightError: there are no labels, one is named twice, or no name is given.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        labels: Sequence[str],
        file: LabelFile,
        who: str,
        suggestions: Mapping[str, Suggestion] | None = None,
    ) -> None:
        if not labels or len(set(labels)) < len(labels) or not all(labels):
            raise ModelwrightError("--labels: give names divided by commas, each once: pos,neg")
        if not who.strip():
            raise ModelwrightError("--who: give a name, so that it is known whose labels they are")
        self.rows, self.labels, self.who = rows, list(labels), who
        self.suggestions = suggestions or {}
        self._file = file
        self._row_of = {str(row["id"]): i for i, row in enumerate(rows)}
        self.made: dict[str, Decision] = {
            row: one
            for (person, row), one in standing(file.decisions).items()
            if person == who and row in self._row_of
        }
        self.place = self._next(0)

    @property
    def total(self) -> int:
        """How many rows there are."""
        return len(self.rows)

    @property
    def row(self) -> Row | None:
        """The row that is shown, or None when all are decided."""
        return self.rows[self.place] if self.place < self.total else None

    @property
    def decided(self) -> Decision | None:
        """What was said about the shown row before."""
        return None if self.row is None else self.made.get(str(self.row["id"]))

    @property
    def suggested(self) -> Suggestion | None:
        """What a model thinks of the shown row."""
        return None if self.row is None else self.suggestions.get(str(self.row["id"]))

    def label(self, name: str, seconds: float | None = None) -> None:
        """Label the shown row and go to the next undecided one.

        Raises:
            ModelwrightError: not one of the labels, or there is no row.
        """
        if name not in self.labels:
            raise ModelwrightError(
                f"label {name!r} is not one of {', '.join(self.labels)}"
                f"{did_you_mean(name, self.labels)}"
            )
        self._decide(name, seconds)

    def skip(self, seconds: float | None = None) -> None:
        """Say that this row cannot be labelled, and go on."""
        self._decide(None, seconds)

    def _decide(self, name: str | None, seconds: float | None) -> None:
        if self.row is None:
            raise ModelwrightError("every row has been decided; go back to change one")
        row = str(self.row["id"])
        made = decision(row, "skip" if name is None else "label", name, self.who, seconds)
        self._file.append(made)
        self.made[made.id] = made
        self.place = self._next(self.place + 1)

    def back(self) -> bool:
        """Show the row before, to look again; what was said about it stays until changed."""
        if self.place == 0:
            return False
        self.place -= 1
        return True

    def forward(self) -> bool:
        """Show the row after, without a decision."""
        if self.place >= self.total - 1:
            return False
        self.place += 1
        return True

    def show(self, row: str) -> None:
        """Show the row of this id.

        Raises:
            ModelwrightError: there is none.
        """
        if row not in self._row_of:
            raise ModelwrightError(f"there is no row {row[:100]!r} here; load the page again")
        self.place = self._row_of[row]

    def undo(self) -> bool:
        """Take this person's last decision that stands back, and show its row; False if none."""
        last = self._last()
        if last is None:
            return False
        self._file.append(decision(last.id, "undo", None, self.who, None))
        self.place = self._row_of[last.id]
        before = standing(self._file.decisions).get((self.who, last.id))
        if before is None:
            self.made.pop(last.id, None)
        else:
            self.made[last.id] = before
        return True

    def _last(self) -> Decision | None:
        """The newest decision that was not undone, by replay."""
        stack: list[Decision] = []
        for one in self._file.decisions:
            if one.who != self.who or one.id not in self._row_of:
                continue
            if one.action != "undo":
                stack.append(one)
                continue
            for i in range(len(stack) - 1, -1, -1):
                if stack[i].id == one.id:
                    del stack[i]
                    break
        return stack[-1] if stack else None

    def _next(self, start: int) -> int:
        """The first undecided row from ``start`` on, else from the beginning, else the end."""
        places = (*range(start, self.total), *range(min(start, self.total)))
        return next((i for i in places if str(self.rows[i]["id"]) not in self.made), self.total)

    def counts(self) -> dict[str, int]:
        """How many rows have each label, are skipped, are left."""
        said = [one.label for one in self.made.values()]
        counted = {label: said.count(label) for label in self.labels}
        return {**counted, "skipped": said.count(None), "left": self.total - len(said)}
