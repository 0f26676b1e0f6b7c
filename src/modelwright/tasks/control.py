"""Choose actions as recorded episodes do: imitation, and what it earns in the environment."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from modelwright.data import environments
from modelwright.tasks.columns import Role
from modelwright.tasks.task import Measured
from modelwright.tasks.vector_classification import VectorClassification
from modelwright.types import Example, Frames, Label, Policy, Row, Turn

SEED = 1_000_000  # of the episodes that are measured: none of them is learned from


class Control(VectorClassification):
    """Rows with an observation ``x`` and the ``action`` taken there: ``data/environments.py``.

    Args:
        environment: of Gymnasium, in which the policy is measured.
        episodes: that it is measured by.
        label: the column that holds the action.
        features: the columns of numbers to read instead of ``x``.
    """

    objective = "clipped_policy"
    model = "actor_critic"
    measure = "action match"
    asks: ClassVar[bool] = True
    roles: ClassVar[Mapping[str, Role]] = {}
    specimen: ClassVar[Row] = {
        "id": "CartPole-v1:0:0",
        "x": np.array([[0.02, -0.2], [0.01, 0.3]], dtype=np.float32),
        "action": "1",
    }

    def __init__(
        self,
        *,
        environment: str = "CartPole-v1",
        episodes: Annotated[int, Field(ge=1)] = 100,
        label: str = "action",
        features: Sequence[str] = (),
    ) -> None:
        super().__init__(label, features)
        self.environment, self.episodes = environment, episodes

    def measures(self, examples: Sequence[Example], policy: Policy) -> list[Measured]:
        """How often the action is the recorded one, and what episodes of its own earn."""
        earned = self.earned(policy)
        spread = statistics.stdev(earned) if len(earned) > 1 else 0.0
        note = (
            f"{len(earned)} episodes of {self.environment}, the likeliest action each time;"
            f" standard deviation {spread:.1f}, {min(earned):g} to {max(earned):g}"
        )
        return [
            *super().measures(examples, policy),
            Measured("mean return", statistics.fmean(earned), note=note),
        ]

    def earned(
        self, policy: Policy, *, episodes: int | None = None, seed: int = SEED
    ) -> list[float]:
        """What a policy earns in each of some episodes, of ``self.episodes`` if none are said."""

        def choose(seen: environments.Observation) -> list[str]:
            given = [(Turn("user", (Frames(x[None]),)),) for x in seen]
            return [turn.label for turn in policy.answer(given)]

        count = self.episodes if episodes is None else episodes
        return environments.earned(self.environment, choose, count, seed=seed)

    def baselines(self, train: Sequence[Example]) -> Mapping[str, Policy]:
        """The most common action, and any."""
        actions = sorted({example.answer.label for example in train})
        return {**super().baselines(train), "random action": _Chance(actions)}


class _Chance:
    """Any of the actions, drawn evenly."""

    def __init__(self, actions: Sequence[str]) -> None:
        self.actions, self.rng = list(actions), np.random.default_rng(0)

    def answer(self, given: Sequence[Sequence[Turn]]) -> list[Turn]:
        """An action for each observation."""
        drawn = self.rng.integers(len(self.actions), size=len(given))
        return [Turn("assistant", (Label(self.actions[i]),)) for i in drawn]
