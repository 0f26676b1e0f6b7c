"""Learn a language from documents: the task of pretraining."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from modelwright.errors import ModelwrightError
from modelwright.tasks.task import Task
from modelwright.types import Example, Row, Turn, text_turn


class Documents(Task):
    """Every row's ``text`` is one document, learned whole.

    ``kinds`` chooses rows by their ``kind`` field; rows without one are always taken.
    """

    codec = "text"
    objective = "next_token"
    model = "decoder"
    measure = "bits per byte"
    better = "lower"
    stream = True
    specimen: ClassVar[Row] = {"id": "a.txt", "text": "def one():\n    return 1\n"}

    def __init__(self, kinds: tuple[str, ...] = ()) -> None:
        self.kinds = tuple(kinds)

    def examples(self, row: Row) -> Iterator[Example] | str:
        """One document, or the reason why not."""
        if self.kinds and row.get("kind", self.kinds[0]) not in self.kinds:
            return f"not of kind {' or '.join(self.kinds)}"
        if not isinstance(row.get("text"), str):
            raise ModelwrightError(
                f"row {row.get('id', '?')}: no text in field 'text'; "
                "name the column that holds it with data.columns.text"
            )
        return iter([Example((text_turn("document", row["text"], learn=True),))])

    def question(self, text: str) -> Sequence[Turn]:
        """A text to go on with: what was never taught to answer continues."""
        return (text_turn("document", text),)
