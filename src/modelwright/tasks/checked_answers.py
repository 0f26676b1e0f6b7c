"""Questions whose answers a machine can check: sums, fixed forms, programs with their tests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from modelwright.data.sandbox import MEGABYTES, SECONDS
from modelwright.errors import ModelwrightError
from modelwright.tasks import answer_checks
from modelwright.tasks.task import Task
from modelwright.tasks.vector_classification import missing_column
from modelwright.types import Example, Row, Turn, text_turn


class CheckedAnswers(Task):
    """Rows with a ``question`` and an ``answer``, by which others are checked.

    With ``check: program`` the answer of a row is no answer but its tests, a text or a list of
    lines, to which ``check(NAME)`` is added where the row has an ``entry_point`` (HumanEval). A
    model learns to write programs from another task's rows before it is rewarded by this one.

    Args:
        check: "number", what stands behind ``####`` (GSM8K); "exact", the same words; "pattern",
            the same match of a regular expression; "program", tests that it passes.
        pattern: the regular expression; its first group is compared.
        seconds: of processor time for a program and its tests.
        megabytes: of memory for them.
    """

    codec = "text"
    objective = "next_token"
    model = "decoder"
    measure = "solve rate"
    specimen: ClassVar[Row] = {
        "id": "arithmetic:0",
        "question": "What is 3 + 4?",
        "answer": "3 + 4 = 7\n#### 7",
    }

    def __init__(
        self,
        *,
        check: Literal["number", "exact", "pattern", "program"] = "number",
        pattern: str = "",
        seconds: Annotated[float, Field(gt=0, le=600)] = SECONDS,
        megabytes: Annotated[int, Field(ge=64)] = MEGABYTES,
    ) -> None:
        if (check == "pattern") != bool(pattern):
            raise ModelwrightError(
                "options.pattern: belongs to check: pattern; give both or neither"
            )
        try:
            self.pattern = re.compile(pattern)
        except re.error as error:
            raise ModelwrightError(
                f"options.pattern: {pattern!r} is no regular expression ({error}); put it right"
            ) from error
        self.check, self.seconds, self.megabytes = check, seconds, megabytes

    def examples(self, row: Row) -> Iterator[Example] | str:
        """One example: the question is given, the answer is to be learned."""
        for name in ("question", "answer"):
            if name not in row:
                raise missing_column(row, name, f"holds the {name}", f"data.columns.{name}")
        question, answer = str(row["question"]), self._answer(row)
        if not question.strip() or not answer.strip():
            return "no question" if not question.strip() else "no answer"
        if self.grade_text(answer, answer) < 1 and self.check != "program":
            return f"its own answer does not pass the check {self.check}"
        return iter(
            [Example((text_turn("user", question), text_turn("assistant", answer, learn=True)))]
        )

    def _answer(self, row: Row) -> str:
        given = row["answer"]
        answer = "\n".join(map(str, given)) if isinstance(given, list | tuple) else str(given)
        if self.check == "program" and row.get("entry_point"):
            answer += f"\ncheck({row['entry_point']})"
        return answer

    def grade(self, example: Example, answer: Turn) -> float:
        """1 where the answer is right, else 0: the reward of reinforcement as well."""
        return self.grade_text(example.answer.text, answer.text)

    def grade_text(self, reference: str, answer: str) -> float:
        """The same of texts."""
        if self.check == "number":
            return answer_checks.same_number(reference, answer)
        if self.check == "exact":
            return answer_checks.same_text(reference, answer)
        if self.check == "pattern":
            return answer_checks.same_match(reference, answer, self.pattern)
        return answer_checks.passes(
            reference, answer, seconds=self.seconds, megabytes=self.megabytes
        )
