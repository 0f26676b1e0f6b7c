"""Name the class of a text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from modelwright.errors import ModelwrightError
from modelwright.tasks.task import Task
from modelwright.tasks.vector_classification import missing_column
from modelwright.types import Example, Label, Row, Text, Turn


class TextClassification(Task):
    """Rows with a text and a label.

    Args:
        text: the column that holds the text.
        label: the column that holds the class.
    """

    codec = "labelled_text"
    objective = "classification"
    model = "encoder"
    measure = "accuracy"
    specimen: ClassVar[Row] = {
        "id": "a",
        "text": "A quiet film that stays with you.",
        "label": "positive",
    }

    def __init__(self, text: str = "text", label: str = "label") -> None:
        self.text, self.label = text, label

    def examples(self, row: Row) -> Iterator[Example] | str:
        """One example: the text is given, the class is to be learned."""
        if self.text not in row:
            raise missing_column(row, self.text, "holds the text", "text")
        if self.label not in row:
            raise missing_column(row, self.label, "holds the class", "label")
        text, label = row[self.text], row[self.label]
        if label is None or label == "":
            return "no label"
        if text is None or text == "":
            return "no text"
        if not isinstance(text, str):
            raise ModelwrightError(
                f"row {row.get('id', '?')}: column {self.text!r} holds {str(text)[:40]!r}, not a"
                " text; name the one that holds the text with train.options.text"
            )
        given = Turn("user", (Text(text),))
        return iter([Example((given, Turn("assistant", (Label(str(label)),), True)))])

    def grade(self, example: Example, answer: Turn) -> float:
        """1 for the right class, else 0."""
        return float(answer.label == example.answer.label)

    def kind(self, example: Example) -> str:
        """The class, so that every class's accuracy is seen."""
        return example.answer.label
