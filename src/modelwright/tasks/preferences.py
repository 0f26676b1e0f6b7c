"""Answers of which one is preferred, or that are good or bad: what people like, as data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from modelwright.data.conversations import Refused
from modelwright.data.preference_rows import compared
from modelwright.tasks.grading import token_f1
from modelwright.tasks.task import Task
from modelwright.types import Example, Row, Turn


class Preferences(Task):
    """Rows as ``data/preference_rows.py`` reads them: a prompt, a better and a worse answer.

    With the objective ``next_token`` the better answers alone are learned, which is what a model is
    fine-tuned on before it compares.

    Args:
        bad: what becomes of a row whose answers are the same or empty, or answer different prompts:
            "drop" leaves it out and counts it, "stop" refuses the data and names the row.
    """

    codec = "text"
    objective = "preference"
    model = "decoder"
    measure = "token F1"
    specimen: ClassVar[Row] = {
        "id": "pairs.jsonl:1",
        "prompt": "May I lend you my umbrella?",
        "chosen": "That is kind of you, thank you.",
        "rejected": "No",
    }

    def __init__(self, bad: Literal["drop", "stop"] = "drop") -> None:
        self.bad = bad

    def examples(self, row: Row) -> Iterator[Example] | str:
        """One example, or what is wrong with the row."""
        try:
            return iter([compared(row)])
        except Refused as error:
            if self.bad == "stop":
                raise
            return error.reason

    def grade(self, example: Example, answer: Turn) -> float:
        """F1 of the words of the answer and the better one of the row."""
        return token_f1(example.answer.text, answer.text)
