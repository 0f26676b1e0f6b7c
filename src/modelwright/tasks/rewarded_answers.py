"""Learn to answer by trying: the model's own answers are checked, and right ones are rewarded."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from modelwright.data.sandbox import MEGABYTES, SECONDS
from modelwright.tasks.checked_answers import CheckedAnswers


class RewardedAnswers(CheckedAnswers):
    """The rows of ``checked_answers``; their answers are never shown to the model, only compared.

    The model learns from answers that it writes in training: ``play/answers.py``.

    Args:
        check: as of ``checked_answers``.
        pattern: as there.
        seconds: as there.
        megabytes: as there.
        questions: of a generation.
        answers: to each, among which they are compared.
        max_tokens: of an answer.
        temperature: at which its tokens are drawn.
        every: steps of training between two generations.
        window: generations that are learned from together.
    """

    objective = "group_policy"
    plays: ClassVar[str] = "answers"

    def __init__(
        self,
        *,
        check: Literal["number", "exact", "pattern", "program"] = "number",
        pattern: str = "",
        seconds: Annotated[float, Field(gt=0, le=600)] = SECONDS,
        megabytes: Annotated[int, Field(ge=64)] = MEGABYTES,
        questions: Annotated[int, Field(ge=1)] = 16,
        answers: Annotated[int, Field(ge=2)] = 8,
        max_tokens: Annotated[int, Field(ge=1)] = 128,
        temperature: Annotated[float, Field(gt=0)] = 1.0,
        every: Annotated[int, Field(ge=1)] = 4,
        window: Annotated[int, Field(ge=1)] = 1,
    ) -> None:
        super().__init__(check=check, pattern=pattern, seconds=seconds, megabytes=megabytes)
        self.settings = {
            "questions": questions,
            "answers": answers,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "steps": every,
            "window": window,
        }
