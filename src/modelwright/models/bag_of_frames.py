"""The linear baseline for sequences: average the frames, forget their order.

logits = W (1/T Σ_t x_t) + b. What a sequence model gains over it, it gains from order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from modelwright.models import reading
from modelwright.models.model import ModelConfig, outputs_of


@dataclass(frozen=True)
class Config(ModelConfig):
    """Shape of the baseline; ``outputs`` is 1 for two classes, else the number of classes."""

    family: ClassVar[str] = "bag_of_frames"
    inputs = reading.frames
    specimen: ClassVar[dict[str, Any]] = {"features": 4, "outputs": 3}
    features: PositiveInt
    outputs: PositiveInt

    def build(self) -> BagOfFrames:
        """The module with fresh parameters."""
        return BagOfFrames(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """The codec knows the width of a frame and the label set."""
        return {"features": codec.features, "outputs": outputs_of(codec, one_for_two=True)}


class BagOfFrames(nn.Module):
    """Frames (B, T, features) of ``lengths`` (B,) to logits (B, outputs).

    Weights and biases start uniform in ±1/sqrt(features), torch's default for ``nn.Linear``.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.output = nn.Linear(config.features, config.outputs)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Logits (B, outputs) of the mean over the true frames, ``lengths`` >= 1."""
        true = torch.arange(frames.shape[1], device=frames.device) < lengths[:, None]
        mean = frames.masked_fill(~true[:, :, None], 0.0).sum(1) / lengths[:, None]
        logits: Tensor = self.output(mean)
        return logits
