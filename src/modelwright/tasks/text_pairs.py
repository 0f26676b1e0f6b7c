"""What tasks of two texts share: which columns of a row hold the source and the target."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar

from modelwright.data.sources import ROW_COLUMNS
from modelwright.errors import ModelwrightError
from modelwright.tasks.task import Measured, Task
from modelwright.tasks.vector_classification import missing_column
from modelwright.types import Example, Policy, Row, Turn, text_turn


class Made:
    """A policy whose answer is a function of the text that is asked."""

    def __init__(self, of: Callable[[str], str]) -> None:
        self.of = of

    def answer(self, given: Sequence[Sequence[Turn]]) -> list[Turn]:
        """The answer to the last turn of each."""
        return [text_turn("assistant", self.of(turns[-1].text)) for turns in given]


class TextPairs(Task):
    """Rows with a source and a target.

    ``customary`` are pairs of column names, (source, target), looked for in this order where the
    options name none. A column may also hold a list of texts: those of a source are joined, of
    several targets the first is learned.
    """

    codec = "text_pairs"
    objective = "sequence_to_sequence"
    model = "bart"
    customary: ClassVar[tuple[tuple[str, str], ...]] = (("source", "target"), ("src", "tgt"))

    def __init__(self, source: str = "", target: str = "") -> None:
        self.source, self.target = source, target

    def columns(self, row: Row) -> tuple[str, str]:
        """The columns of the source and the target: as the options say, else guessed.

        Guessed are the first customary pair that the row has, else its only two columns of text.

        Raises:
            ModelwrightError: the row has not what is named, or nothing that can be guessed.
        """
        for name, column in (("source", self.source), ("target", self.target)):
            if column and column not in row:
                raise missing_column(row, column, f"holds the {name}", name)
        if self.source and self.target:
            return self.source, self.target
        for source, target in self.customary:
            if row.keys() >= {self.source or source, self.target or target}:
                return self.source or source, self.target or target
        taken = (*ROW_COLUMNS, self.source, self.target)
        left = [c for c, value in row.items() if c not in taken and isinstance(value, str)]
        if len(left) == (self.source == "") + (self.target == ""):
            return self.source or left.pop(0), self.target or left.pop(0)
        known = ", ".join(column for column in row if column not in ROW_COLUMNS)
        raise ModelwrightError(
            f"row {row.get('id', '?')}: which columns hold source and target cannot be guessed; it"
            f" has: {known}; name them with train.options.source and train.options.target"
        )

    def answered(self, row: Row, answer: Turn) -> Row:
        """The row with another target."""
        return {**row, self.columns(row)[1]: answer.text}

    def reads(self, row: Row) -> str:
        """The two columns, if one of them was guessed: neither named nor called so."""
        source, target = self.columns(row)
        if (source, target) == (self.source or "source", self.target or "target"):
            return ""
        return f"reading source from column {source!r} and target from {target!r} (guessed)"

    @abstractmethod
    def scores(self, references: Sequence[str], answers: Sequence[str]) -> list[Measured]:
        """The customary measures of all answers together."""

    @abstractmethod
    def trivial(self) -> Mapping[str, Callable[[str], str]]:
        """Answers that need no model and no training text, by name."""

    def measures(self, examples: Sequence[Example], policy: Policy) -> list[Measured]:
        """The scores of what a policy answers."""
        answers = policy.answer([example.given for example in examples])
        return self.scores([e.answer.text for e in examples], [a.text for a in answers])

    def baselines(self, train: Sequence[Example]) -> Mapping[str, Policy]:  # noqa: ARG002
        """The trivial answers as policies."""
        return {name: Made(of) for name, of in self.trivial().items()}

    def examples(self, row: Row) -> Iterator[Example] | str:
        """One example: the source is given, the target is to be learned."""
        found = []
        for name, column in zip(("source", "target"), self.columns(row), strict=True):
            text = _text(row, name, column)
            if not text.strip():
                return f"no {name}"
            found.append(text)
        given, wanted = found
        return iter(
            [Example((text_turn("user", given), text_turn("assistant", wanted, learn=True)))]
        )


def _text(row: Row, name: str, column: str) -> str:
    """The text of a column; of a list of sentences all, of a list of targets the first."""
    value = row[column]
    if value is None:
        return ""
    if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        return " ".join(value if name == "source" else value[:1])
    if not isinstance(value, str):
        raise ModelwrightError(
            f"row {row.get('id', '?')}: column {column!r} holds {str(value)[:40]!r}, not a text;"
            f" name the one that holds the {name} with train.options.{name}"
        )
    return value
