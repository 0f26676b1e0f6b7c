"""Two perceptrons side by side: what to do, and what is to be expected of it.

Both see the same features and share nothing, since errors of the value are of another size than
those of the policy (arXiv:2006.05990, section 3.2). The last layer of the policy begins near zero,
so that all actions begin about equally likely.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from modelwright.models import mlp, reading
from modelwright.models.activations import activation
from modelwright.models.model import ModelConfig, outputs_of

NEAR_ZERO = 0.01  # times the usual start of the policy's last weights


@dataclass(frozen=True)
class Config(ModelConfig):
    """Shape of both: ``features`` -> each width of ``hidden`` -> ``actions``, or one value."""

    family: ClassVar[str] = "actor_critic"
    inputs = reading.vectors
    specimen: ClassVar[dict[str, Any]] = {"features": 6, "actions": 3, "hidden": [5, 4]}
    features: PositiveInt
    actions: PositiveInt
    hidden: tuple[PositiveInt, ...] = (64, 64)
    activation: str = "tanh"

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        activation(self.activation)

    def part(self, outputs: int) -> mlp.Config:
        """The perceptron of so many outputs."""
        return mlp.Config(self.features, outputs, self.hidden, self.activation)

    def build(self) -> ActorCritic:
        """The module with fresh parameters."""
        return ActorCritic(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """The codec knows the size of an observation and the actions."""
        return {"features": codec.features, "actions": outputs_of(codec)}

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:
        """FLOPs of forward and backward for one observation."""
        parts = (self.part(outputs) for outputs in (self.actions, 1))
        return sum(part.flops_per_item(learned, length) for part in parts)


class ActorCritic(nn.Module):
    """Features (B, ...) to the logits of the actions and a value."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.policy, self.value = config.part(config.actions).build(), config.part(1).build()
        last: Any = self.policy.layers[-1]
        with torch.no_grad():
            last.weight.mul_(NEAR_ZERO)
            last.bias.zero_()

    def forward(self, features: Tensor) -> Tensor:
        """Both side by side, (B, actions + 1): the value is the last number."""
        return torch.cat((self.policy(features), self.value(features)), 1)
