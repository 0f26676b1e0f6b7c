"""Name the class of a text, or of two texts that are read together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from modelwright.errors import ModelwrightError
from modelwright.tasks.columns import Role
from modelwright.tasks.task import Task
from modelwright.tasks.vector_classification import missing_column
from modelwright.types import Example, Label, Row, Text, Turn

# Columns of two texts whose class is of both, as sets of inferences and paraphrases have them.
PAIRS = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("text1", "text2"),
)


class TextClassification(Task):
    """Rows with a text and a label.

    Args:
        text: the column that holds the text.
        label: the column that holds the class.
        pair: the column of a second text, where the class is of the two: whether one follows from
            the other, or means the same.

    Where ``text`` and ``pair`` are left out and there is no column ``text``, two columns that are
    customarily read together are, and that is said.
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

    def __init__(self, text: str = "", label: str = "", pair: str = "") -> None:
        self.text, self.label, self.pair = text or "text", label or "label", pair
        self._texts_named, self._label_named = bool(text or pair), bool(label)

    def columns(self, row: Row) -> dict[str, str]:
        """The columns of text, pair and label: as named, else "text" and "label", else guessed.

        Raises:
            ModelwrightError: the row lacks one.
        """
        found = {"text": self.text, **({"pair": self.pair} if self.pair else {})}
        found["label"] = self.label
        if guessed := self._guessed(row):
            found["text"], found["pair"] = guessed
            if not self._label_named:
                names = ("label", *TextClassification.roles["label"].names)
                found["label"] = next((name for name in names if name in row), self.label)
        for option, column in found.items():
            if column not in row:
                use = "holds the class" if option == "label" else "holds the text"
                raise missing_column(row, column, use, option)
        return found

    def _guessed(self, row: Row) -> tuple[str, str] | None:
        """The two columns that are read together although nothing names them."""
        return None if self._texts_named else _pair(row)

    @classmethod
    def understands(cls, row: Row) -> bool:
        """Whether the row has two columns that are customarily read together.

        A subclass with roles of its own has them guessed by those.
        """
        own = cls.roles is not TextClassification.roles
        return super().understands(row) or (not own and _pair(row) is not None)

    def reads(self, row: Row) -> str:
        """The columns, where two texts were guessed."""
        if self._guessed(row) is None:
            return ""
        found = self.columns(row)
        return (
            f"reading two texts, from columns {found['text']!r} and {found['pair']!r}, and their"
            f" class from column {found['label']!r} (guessed)"
        )

    def examples(self, row: Row) -> Iterator[Example] | str:
        """One example: the text is given, the class is to be learned."""
        given = []
        columns = self.columns(row)
        labels = self._labels({**row, self.label: row[columns.pop("label")]})
        if isinstance(labels, str):
            return labels
        for option, column in columns.items():
            text = row[column]
            if text is None or (isinstance(text, str) and not text.strip()):
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


def _pair(row: Row) -> tuple[str, str] | None:
    """Two columns that are customarily read together, in a row without a column ``text``."""
    if "text" in row:
        return None
    return next((pair for pair in PAIRS if row.keys() >= set(pair)), None)
