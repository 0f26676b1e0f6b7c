"""Models that write, and were taught which of two answers is better."""

from __future__ import annotations

from typing import Any

from torch import nn

from modelwright.pipeline import compared
from modelwright.pipeline.answering.writing import Writing
from modelwright.pipeline.fitted import Fitted
from modelwright.pipeline.prepare import Say
from modelwright.runs import Run
from modelwright.types import Codec, Columns, Objective


class Preferring:
    """What is measured of a model that was taught which of two answers is better."""

    model: nn.Module
    objective: Objective

    def measure(
        self, run: Run, stage: str, fitted: Fitted, result: dict[str, Any], say: Say
    ) -> None:
        """Which answers the model prefers, and by how much."""
        compared.preferences(run, stage, fitted, result, say)

    def held_out(self, columns: Columns) -> dict[str, float]:
        """The preference accuracy."""
        return compared.accuracy(self.model, self.objective, columns)


class Comparing(Preferring, Writing):
    """Answers are written as by any other; what is measured is what the model prefers."""

    @staticmethod
    def suits(codec: Codec, objective: Objective) -> bool:  # noqa: ARG004 - the objective says it
        """Whether the objective gives ``rewards``."""
        return hasattr(objective, "rewards")
