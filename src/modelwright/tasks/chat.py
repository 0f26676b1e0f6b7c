"""Instruction tuning: a model learns what the assistant says in conversations, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from modelwright.data.conversations import (
    Refused,
    columns_of,
    conversations,
    format_of,
    lacking,
)
from modelwright.data.sources import ROW_COLUMNS
from modelwright.errors import ModelwrightError
from modelwright.tasks.grading import token_f1
from modelwright.tasks.task import Task
from modelwright.types import Example, Row, Turn


class Chat(Task):
    """Conversations in the formats of ``data/conversations.py``, whichever a row has.

    Args:
        learn: "all" turns of the assistant, or the "last" one alone.
        thoughts: whether what the assistant thinks ("reasoning") is kept, and learned.
        bad: what becomes of a conversation with a wrong order of roles, an unknown tool and the
            like: "stop" refuses the data and names the row, "drop" leaves it out and counts it.
    """

    codec = "text"
    objective = "next_token"
    model = "decoder"
    measure = "token F1"
    shows: ClassVar[bool] = True
    responses: ClassVar[bool] = True
    specimen: ClassVar[Row] = {
        "id": "chat.jsonl:1",
        "messages": [
            {"role": "system", "content": "Answer in one word."},
            {"role": "user", "content": "What is the capital of France?"},
            {"role": "assistant", "content": "Paris"},
            {"role": "user", "content": "And of Italy?"},
            {"role": "assistant", "content": "Rome"},
        ],
    }

    def __init__(
        self,
        learn: Literal["all", "last"] = "all",
        thoughts: bool = True,
        bad: Literal["stop", "drop"] = "stop",
    ) -> None:
        self.learn, self.thoughts, self.bad = learn, thoughts, bad

    def examples(self, row: Row) -> Iterator[Example] | str:
        """An example a conversation; the turns of the assistant are to be learned."""
        try:
            found = conversations(row, thoughts=self.thoughts, last=self.learn == "last")
        except Refused as error:
            if self.bad == "drop" and (format_of(row) or lacking(row)):
                return error.reason
            raise
        kept = [turns for turns in found if _answered(turns)]
        return iter([Example(turns) for turns in kept]) if kept else "an empty answer"

    def answered(self, row: Row, answer: Turn) -> Row:
        """The row with another last answer, as messages of which nothing else is to be learned.

        Raises:
            ModelwrightError: the row has no conversation whose last answer could be another.
        """
        found = self.examples(row)
        if isinstance(found, str):
            raise ModelwrightError(f"row {row.get('id', '?')}: {found}, so none can be another")
        said = [{"role": t.role, "content": t.text, "weight": 0} for t in next(found).given]
        kept = {k: v for k, v in row.items() if k not in columns_of(row)}
        return {**kept, "messages": [*said, {"role": "assistant", "content": answer.text}]}

    def reads(self, row: Row) -> str:
        """The format that was found, and the columns that are read and not."""
        if not format_of(row):
            return ""  # of such a row ``examples`` says what is wrong
        columns = columns_of(row)
        others = [c for c in row if c not in columns and c not in ROW_COLUMNS]
        unread = f"; not read: {', '.join(others)}" if others else ""
        return f"conversations as {format_of(row)} has them: {', '.join(columns)} (guessed){unread}"

    def grade(self, example: Example, answer: Turn) -> float:
        """F1 of the words of the answer and the reference (as in SQuAD, arXiv:1606.05250)."""
        return token_f1(example.answer.text, answer.text)


def _answered(turns: tuple[Turn, ...]) -> bool:
    """Whether every turn to be learned says something."""
    return all(turn.text.strip() for turn in turns if turn.learn)
