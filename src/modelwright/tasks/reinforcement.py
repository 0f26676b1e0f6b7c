"""Earn more in an environment by trying, beginning with what records taught: PPO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from modelwright.tasks.control import Control


class Reinforcement(Control):
    """Rows of episodes as ``control`` reads them, to watch and to measure by.

    The model learns from what it does in training itself: ``play/rollouts.py``. Actions that no
    row of train has are not known to it.

    Args:
        environment: of Gymnasium.
        episodes: that it is measured by.
        label: the column that holds the action.
        features: the columns of numbers to read instead of ``x``.
        side_by_side: environments that it acts in.
        horizon: steps of each in a generation.
        every: steps of training between two generations.
        discount: γ, what a reward is worth one step later.
        decay: λ of the generalised advantage.
        pull_half: generations in which the pull towards imitation halves; 0: it stays.
    """

    plays: ClassVar[str] = "rollouts"

    def __init__(
        self,
        *,
        environment: str = "CartPole-v1",
        episodes: Annotated[int, Field(ge=1)] = 100,
        label: str = "action",
        features: Sequence[str] = (),
        side_by_side: Annotated[int, Field(ge=1)] = 8,
        horizon: Annotated[int, Field(ge=2)] = 256,
        every: Annotated[int, Field(ge=1)] = 80,
        discount: Annotated[float, Field(ge=0, lt=1)] = 0.99,
        decay: Annotated[float, Field(ge=0, le=1)] = 0.95,
        pull_half: Annotated[float, Field(ge=0)] = 5.0,
    ) -> None:
        super().__init__(environment=environment, episodes=episodes, label=label, features=features)
        self.settings = {
            "environment": environment,
            "side_by_side": side_by_side,
            "horizon": horizon,
            "steps": every,
            "discount": discount,
            "decay": decay,
            "pull_half": pull_half,
        }
