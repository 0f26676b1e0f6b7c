"""Name the class of an image or of a vector of numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from modelwright.data.sources import ROW_COLUMNS
from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.tasks.columns import Role
from modelwright.tasks.task import Task
from modelwright.types import Array, Example, Frames, Image, Label, Part, Row, Turn


class VectorClassification(Task):
    """Rows with ``pixels``, or with an array ``x``, or with columns of numbers, and a label.

    Args:
        label: the column that holds the class.
        features: the columns of numbers to read, in this order; empty takes ``pixels`` or ``x``
            if the row has it, else every column but the label and the row's id, group and split.
    """

    codec = "vectors"
    objective = "classification"
    model = "mlp"
    measure = "accuracy"
    roles: ClassVar[Mapping[str, Role]] = {
        "label": Role("word", ("label", "class", "category", "target", "species", "y"))
    }
    specimen: ClassVar[Row] = {
        "id": "a",
        "pixels": np.arange(12, dtype=np.uint8).reshape(3, 4),
        "label": "small",
    }

    def __init__(self, label: str = "label", features: Sequence[str] = ()) -> None:
        self.label, self.features = label, tuple(features)

    def examples(self, row: Row) -> Iterator[Example] | str:
        """One example: the array is given, its label is to be learned."""
        if self.label not in row:
            raise missing_column(row, self.label, "holds the class", "label")
        if row[self.label] is None or row[self.label] == "":
            return "no label"
        given = Turn("user", (self._part(row),))
        return iter([Example((given, Turn("assistant", (Label(str(row[self.label])),), True)))])

    def grade(self, example: Example, answer: Turn) -> float:
        """1 for the right class, else 0."""
        return float(answer.label == example.answer.label)

    def kind(self, example: Example) -> str:
        """The class, so that every class's accuracy is seen."""
        return example.answer.label

    @classmethod
    def understands(cls, row: Row) -> bool:
        """Whether a row holds an array and its label, as arrays and data sets do."""
        arrays = any(np.ndim(row.get(name, 0)) for name in ("pixels", "x"))
        return not cls.roles or ("label" in row and arrays)

    def question(self, text: str) -> Sequence[Turn]:
        """The turns of a question typed as a JSON list of numbers, nested for an image."""
        return (Turn("user", (_vector_part(typed_numbers(text)),)),)

    def _part(self, row: Row) -> Part:
        if self.features:
            return _vector_part(self._columns(row, self.features))
        if "pixels" in row:
            return Image(np.asarray(row["pixels"]))
        if "x" in row and np.ndim(row["x"]):
            return _vector_part(np.asarray(row["x"]))
        left = [name for name in row if name not in (*ROW_COLUMNS, self.label)]
        return _vector_part(self._columns(row, left))

    def _columns(self, row: Row, names: Sequence[str]) -> Array:
        if not names:
            raise ModelwrightError(
                f"row {row.get('id', '?')}: nothing to read beside the label {self.label!r};"
                " give columns of numbers, 'pixels' or 'x'"
            )
        values = np.empty(len(names), dtype=np.float32)
        for i, name in enumerate(names):
            if name not in row:
                raise missing_column(row, name, "is listed there", "features")
            try:
                values[i] = float(row[name])  # a CSV gives text
            except (TypeError, ValueError) as error:
                raise ModelwrightError(
                    f"row {row.get('id', '?')}: column {name!r} holds {str(row[name])[:40]!r}, not"
                    " a number; list the columns of numbers in train.options.features"
                ) from error
            if not np.isfinite(values[i]):
                raise ModelwrightError(
                    f"row {row.get('id', '?')}: column {name!r} holds {str(row[name])[:40]!r};"
                    " repair or remove the row"
                )
        return values


def _vector_part(values: Array) -> Part:
    """A vector is a sequence of one frame; what has more dimensions is an image."""
    return Image(values) if values.ndim > 1 else Frames(values.reshape(1, -1))


def missing_column(row: Row, name: str, use: str, option: str) -> ModelwrightError:
    """The error for a column that the row does not have."""
    known = [column for column in row if column not in ROW_COLUMNS]
    return ModelwrightError(
        f"row {row.get('id', '?')}: no column {name!r}{did_you_mean(name, known)}; it has:"
        f" {', '.join(known)}; name the one that {use} with train.options.{option}"
    )


def typed_numbers(text: str) -> Array:
    """The array of a JSON list of numbers, nested lists being its rows.

    Raises:
        ModelwrightError: it is not JSON, or not numbers in a regular shape.
    """
    try:
        value: Any = json.loads(text)
        array = np.asarray(value)
    except ValueError as error:
        raise ModelwrightError(
            f"question: not a list of numbers in JSON ({error}); type for example [0, 1.5, 2]"
        ) from error
    if array.dtype.kind not in "fiu" or not array.ndim:
        raise ModelwrightError("question: a JSON list of numbers is meant, for example [0, 1.5, 2]")
    return array
