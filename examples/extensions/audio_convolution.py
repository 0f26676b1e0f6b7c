"""A model family: convolutions along time over the frames of a sound, and their mean."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from modelwright.models import reading
from modelwright.models.model import ModelConfig, outputs_of


@dataclass(frozen=True)
class Config(ModelConfig):
    """Shape: ``features`` of a frame -> ``layers`` of ``width`` channels -> ``outputs``.

    A channel reads ``span`` frames, an odd number.
    """

    family: ClassVar[str] = __name__
    inputs = reading.frames
    specimen: ClassVar[dict[str, Any]] = {"features": 4, "outputs": 3, "width": 6}
    features: PositiveInt
    outputs: PositiveInt
    width: PositiveInt = 32
    layers: PositiveInt = 2
    span: PositiveInt = 5
    mean_length: float = 1.0  # frames of an example, for the FLOPs alone

    def build(self) -> Convolutions:
        """The module with fresh parameters."""
        return Convolutions(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """The codec knows the width of a frame, the labels and how long sounds are."""
        return {
            "features": codec.features,
            "outputs": outputs_of(codec),
            "mean_length": codec.mean_length,
        }

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:  # noqa: ARG002
        """FLOPs of forward and backward for one sound: 6 per weight and frame."""
        frame = self.span * self.width * (self.features + (self.layers - 1) * self.width)
        return 6.0 * (self.mean_length * frame + self.width * self.outputs)


class Convolutions(nn.Module):
    """Frames (B, T, features) of ``lengths`` (B,) to logits (B, outputs)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        widths = [config.features] + [config.width] * config.layers
        self.layers = nn.ModuleList(
            nn.Conv1d(n, m, config.span, padding="same") for n, m in pairwise(widths)
        )
        self.output = nn.Linear(config.width, config.outputs)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Logits (B, outputs); what lies beyond a sound's length is zero before every layer."""
        true = torch.arange(frames.shape[1], device=frames.device) < lengths[:, None]
        x = frames.transpose(1, 2)
        for layer in self.layers:
            x = F.relu(layer(x)) * true[:, None]
        logits: Tensor = self.output(x.sum(2) / lengths[:, None])
        return logits
