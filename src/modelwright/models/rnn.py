"""A plain recurrent network over sequences of frames (Elman, Cognitive Science 14, 1990).

h_t = σ(W_hx x_t + W_hh h_{t-1} + b_h),  h_0 = 0,  logits = W_oh h_T + b_o at the last true step T.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.models.activations import activation
from modelwright.models.model import ModelConfig


@dataclass(frozen=True)
class Config(ModelConfig):
    """Shape of a recurrent classifier.

    ``outputs`` is 1 for two classes (one logit, log p(second) / p(first)), else the number of
    classes. ``mean_length`` is the mean number of frames of an example: only the FLOPs use it.
    """

    family: ClassVar[str] = "rnn"
    specimen: ClassVar[dict[str, Any]] = {"features": 4, "outputs": 3, "hidden": 5}
    features: PositiveInt
    outputs: PositiveInt
    hidden: PositiveInt = 128
    activation: str = "sigmoid"
    mean_length: PositiveFloat = 1.0

    def __post_init__(self) -> None:
        activation(self.activation)
        for name in ("features", "outputs", "hidden"):
            if getattr(self, name) < 1:
                raise ModelwrightError(f"model.{name}: {getattr(self, name)} is not positive")

    def build(self) -> Recurrent:
        """The module with fresh parameters."""
        return Recurrent(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """The codec knows the width of a frame, the label set and how long sequences are."""
        classes = len(codec.labels)
        return {
            "features": codec.features,
            "outputs": 1 if classes == 2 else classes,
            "mean_length": codec.mean_length,
        }

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:  # noqa: ARG002
        """FLOPs of forward and backward for one sequence of ``mean_length`` frames."""
        step = self.hidden * (self.features + self.hidden)
        return 6.0 * (self.mean_length * step + self.hidden * self.outputs)


class Recurrent(nn.Module):
    """Frames (B, T, features) of ``lengths`` (B,) to logits (B, outputs).

    Every parameter starts uniform in ±1/sqrt(hidden), torch's default for recurrent layers.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.input_weight = nn.Parameter(torch.empty(config.hidden, config.features))  # W_hx
        self.hidden_weight = nn.Parameter(torch.empty(config.hidden, config.hidden))  # W_hh
        self.hidden_bias = nn.Parameter(torch.empty(config.hidden))  # b_h
        self.output = nn.Linear(config.hidden, config.outputs)  # W_oh, b_o
        self.activation = activation(config.activation)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        bound = 1 / math.sqrt(self.config.hidden)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Logits (B, outputs) after the last true frame, ``lengths`` >= 1.

        What lies beyond a row's length is never seen: its state stays as it was.
        """
        # W_hx x_t + b_h does not depend on the state: one product does it for all steps.
        driven = F.linear(frames, self.input_weight, self.hidden_bias)
        h = driven.new_zeros(len(frames), self.config.hidden)  # h_0
        for t, drive in enumerate(driven.unbind(1)):
            new = self.activation(drive + h @ self.hidden_weight.T)  # σ(W_hx x_t + b_h + W_hh h)
            h = torch.where((t < lengths)[:, None], new.to(h.dtype), h)
        logits: Tensor = self.output(h)
        return logits
