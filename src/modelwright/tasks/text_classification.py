"""Name the class of a text, or of two texts that are read together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from modelwright.errors import ModelwrightError
from modelwright.tasks.columns import Role
from modelwright.tasks.task import Task
from modelwright.tasks.vector_classification import missing_column
from modelwright.types import Example, Label, Row, Text, Turn


class TextClassification(Task):
    """Rows with a text and a label.

    Args:
        text: the column that holds the text.
        label: the column that holds the class.
        pair: the column of a second text, where the class is of the two: whether one follows from
            the other, or means the same.
    """

    codec = "labelled_text"
    objective = "classification"
    model = "encoder"
    measure = "accuracy"
    roles: ClassVar[Mapping[str, Role]] = {
        "text": Role(
            "text",
            ("text", "review", "sentence", "comment", "content", "tweet", "message", "body"),
        ),
        "label": Role(
            "class",
            ("label", "sentiment", "class", "category", "polarity", "rating", "stars", "target"),
        ),
    }
    specimen: ClassVar[Row] = {
        "id": "a",
        "text": "A quiet film that stays with you.",
        "label": "positive",
    }

    def __init__(self, text: str = "text", label: str = "label", pair: str = "") -> None:
        self.text, self.label, self.pair = text, label, pair

    def examples(self, row: Row) -> Iterator[Example] | str:
        """One example: the text is given, the class is to be learned."""
        given = []
        columns = {"text": self.text, **({"pair": self.pair} if self.pair else {})}
        for option, column in columns.items():
            if column not in row:
                raise missing_column(row, column, "holds the text", option)
        if self.label not in row:
            raise missing_column(row, self.label, "holds the class", "label")
        labels = self._labels(row)
        if isinstance(labels, str):
            return labels
        for option, column in columns.items():
            text = row[column]
            if text is None or text == "":
                return "no text"
            if not isinstance(text, str):
                raise ModelwrightError(
                    f"row {row.get('id', '?')}: column {column!r} holds {str(text)[:40]!r}, not a"
                    f" text; name the one that holds the text with train.options.{option}"
                )
            given.append(Turn("user", (Text(text),)))
        return iter([Example((*given, Turn("assistant", tuple(map(Label, labels)), True)))])

    def _labels(self, row: Row) -> tuple[str, ...] | str:
        """The classes of a row, or the reason why it has none."""
        label = row[self.label]
        return "no label" if label is None or label == "" else (str(label),)

    def grade(self, example: Example, answer: Turn) -> float:
        """1 for the right class, else 0."""
        return float(answer.labels == example.answer.labels)

    def kind(self, example: Example) -> str:
        """The class, so that every class's accuracy is seen."""
        return ", ".join(example.answer.labels)
