"""A multilayer perceptron: flatten, then affine maps with a nonlinearity between them.

z_l = W_l a_{l-1} + b_l,   a_l = σ(z_l),   logits = z_L,   with a_0 the flattened input.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from pydantic import PositiveInt
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.models import reading
from modelwright.models.activations import activation
from modelwright.models.model import ModelConfig, outputs_of


@dataclass(frozen=True)
class Config(ModelConfig):
    """Shape of a perceptron: ``features`` -> each width of ``hidden`` -> ``classes``.

    No hidden width at all makes it linear (softmax regression).
    """

    family: ClassVar[str] = "mlp"
    inputs = reading.vectors
    specimen: ClassVar[dict[str, Any]] = {"features": 6, "classes": 3, "hidden": [5, 4]}
    features: PositiveInt
    classes: PositiveInt
    hidden: tuple[PositiveInt, ...] = (128, 64)
    activation: str = "relu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))  # lists come from YAML and JSON
        activation(self.activation)
        for name, widths in (("features", (self.features,)), ("hidden", self.hidden)):
            if min(widths, default=1) < 1:
                raise ModelwrightError(f"model.{name}: {min(widths)} is not a positive width")

    @property
    def widths(self) -> tuple[int, ...]:
        """Every width from input to output."""
        return (self.features, *self.hidden, self.classes)

    def build(self) -> Perceptron:
        """The module with fresh parameters."""
        return Perceptron(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """The codec knows the size of the input and the label set."""
        return {"features": codec.features, "classes": outputs_of(codec)}

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:  # noqa: ARG002
        """FLOPs of forward and backward for one example: 6 per weight."""
        return 6.0 * sum(n * m for n, m in pairwise(self.widths))


class Perceptron(nn.Module):
    """Features (B, ...) to logits (B, classes).

    Weights and biases start uniform in ±1/sqrt(fan_in), torch's default for ``nn.Linear``.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in pairwise(config.widths))
        self.activation = activation(config.activation)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, classes) for features (B, ...) of ``config.features`` numbers each."""
        a = features.flatten(1)  # a_0 = x
        *inner, last = self.layers
        for layer in inner:
            a = self.activation(layer(a))  # a_l = σ(W_l a_{l-1} + b_l)
        logits: Tensor = last(a)  # z_L = W_L a_{L-1} + b_L
        return logits
