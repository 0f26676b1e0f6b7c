"""Name the class of a sequence of frames, or of a sound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np

from modelwright.data.melscale import log_mel
from modelwright.errors import ModelwrightError
from modelwright.tasks.task import Task
from modelwright.tasks.vector_classification import missing_column, typed_numbers
from modelwright.types import Array, Example, Frames, Label, Row, Turn


class SequenceClassification(Task):
    """Rows with a label and ``frames`` or ``x`` (time, features), or ``samples`` of a ``rate``.

    Args:
        label: the column that holds the class.
        target: joins labels into classes, class -> labels, for example
            {odd: ["1", "3"], even: ["0", "2"]}; empty keeps every label as it is. Rows of labels
            that no class lists are left out.
        bands: mel bands of a sound's frames.
        highest: upper edge of the last band in hertz.
    """

    codec = "frames"
    objective = "classification"
    model = "rnn"
    measure = "accuracy"
    specimen: ClassVar[Row] = {
        "id": "a",
        "samples": np.sin(np.arange(800, dtype=np.float32) / 4),
        "rate": 8000,
        "label": "hum",
    }

    def __init__(
        self,
        label: str = "label",
        target: Mapping[str, Sequence[str]] | None = None,
        bands: int = 128,
        highest: float = 4000.0,
    ) -> None:
        self.label, self.bands, self.highest = label, bands, highest
        self.class_of: dict[str, str] = {}
        for name, members in (target or {}).items():
            for member in map(str, members):
                if member in self.class_of:
                    raise ModelwrightError(
                        f"train.options.target: label {member!r} is in class"
                        f" {self.class_of[member]!r} and in {name!r}; list it once"
                    )
                self.class_of[member] = str(name)

    def examples(self, row: Row) -> Iterator[Example] | str:
        """One example: the frames are given, the class is to be learned."""
        if self.label not in row:
            raise missing_column(row, self.label, "holds the class", "label")
        if row[self.label] is None or row[self.label] == "":
            return "no label"
        name = str(row[self.label])
        if self.class_of:
            if name not in self.class_of:
                return "label in no class of the target"
            name = self.class_of[name]
        given = Turn("user", (Frames(self._frames(row)),))
        return iter([Example((given, Turn("assistant", (Label(name),), True)))])

    def grade(self, example: Example, answer: Turn) -> float:
        """1 for the right class, else 0."""
        return float(answer.label == example.answer.label)

    def kind(self, example: Example) -> str:
        """The class, so that every class's accuracy is seen."""
        return example.answer.label

    def question(self, text: str) -> Sequence[Turn]:
        """The turns of a question typed as a JSON list of frames, each a list of numbers."""
        return (Turn("user", (Frames(_sequence(typed_numbers(text), "question")),)),)

    def _frames(self, row: Row) -> Array:
        where = f"row {row.get('id', '?')}"
        for column in ("frames", "x"):
            if column in row:
                return _sequence(np.asarray(row[column]), where)
        if "samples" in row and "rate" in row:
            return log_mel(
                np.asarray(row["samples"]), int(row["rate"]), bands=self.bands, highest=self.highest
            )
        raise ModelwrightError(
            f"{where}: no sequence; give a column 'frames' or 'x' (time, features), or a sound as"
            f" 'samples' and 'rate'; it has: {', '.join(row)}"
        )


def _sequence(values: Array, where: str) -> Array:
    """Frames (time, features); a plain list of numbers has one feature a frame."""
    if values.ndim == 1 and values.dtype.kind in "fiub":
        return values[:, None]
    if values.ndim != 2:
        raise ModelwrightError(
            f"{where}: a sequence of shape {values.shape}; (time, features) is meant, with the"
            " same number of features in every frame"
        )
    return values
