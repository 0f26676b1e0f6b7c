"""A vocoder (Vocos, arXiv:2306.00814): log-mel frames to a spectrum, and that to samples at once.

A convolution, ConvNeXt blocks over time, and a product that gives every frame log-magnitudes m
and phases p of a window's spectrum: S = exp(m) (cos p + i sin p). The windows are added where
they overlap, so the network itself never works at the rate of samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from modelwright.data.spectrograms import synthesised
from modelwright.models import reading
from modelwright.models.images import counted_flops
from modelwright.models.model import ModelConfig

EPS = 1e-6
SPAN = 7  # frames that a convolution reads
LOUDEST = 3.0  # nats: a magnitude of 20, where a full-scale sine has 1
QUIET = -6.0  # nats of all magnitudes at the start: near what speech has on the average
COUNTED = 32  # frames of an item, for the FLOPs alone: half a second


@dataclass(frozen=True)
class Config(ModelConfig):
    """Shape of a vocoder.

    ``features`` mel bands, ``size`` and ``hop`` samples of a window and between two; ``depth``
    blocks of ``width`` channels, three times as many within.
    """

    family: ClassVar[str] = "vocos"
    inputs = reading.frames
    specimen: ClassVar[dict[str, Any]] = {
        "features": 6,
        "size": 16,
        "hop": 4,
        "width": 8,
        "depth": 2,
    }
    features: PositiveInt
    size: PositiveInt = 1024
    hop: PositiveInt = 256
    width: PositiveInt = 256
    depth: PositiveInt = 6

    def build(self) -> Vocos:
        """The module with fresh parameters."""
        return Vocos(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """The codec knows the bands and the windows."""
        known = codec.settings
        return {"features": known.bands, "size": known.size, "hop": known.hop}

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:  # noqa: ARG002
        """FLOPs of forward and backward for a piece of 32 frames."""
        return counted_flops(self, {"frames": (COUNTED, self.features), "lengths": ()})


class FrameBlock(nn.Module):
    """A ConvNeXt block (arXiv:2201.03545) over time: x + scale down(gelu(up(norm(conv x)))).

    With ``told``, the norm is shifted and scaled by a condition, and the branch gated by it.
    """

    def __init__(
        self, width: int, *, hidden: int, scale: float, told: int = 0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, SPAN, padding=SPAN // 2, groups=width)
        self.norm = nn.LayerNorm(width, EPS)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.scale = nn.Parameter(torch.full((width,), scale))
        self.modulation = nn.Linear(told, 2 * width) if told else None
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, there: Tensor, condition: Tensor | None = None) -> Tensor:
        """Map x (B, T, width), which is 0 where ``there`` (B, T, 1) is not, to the same.

        Args:
            x: the frames.
            there: True where a row has one.
            condition: (B, told), where the block is told something.
        """
        y = self.norm(self.depthwise(x.transpose(1, 2)).transpose(1, 2))
        if self.modulation is not None and condition is not None:
            shift, gain = self.modulation(condition)[:, None].chunk(2, dim=-1)
            y = y * (1 + gain) + shift
        mapped: Tensor = x + self.drop(self.down(F.gelu(self.up(y)))) * self.scale * there
        return mapped


def initialised(module: nn.Module) -> None:
    """Convolutions and products normal of deviation 0.02, cut at two; their biases zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv1d | nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02, a=-0.04, b=0.04)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class Vocos(nn.Module):
    """Scaled log-mel frames (B, T, features) of ``lengths`` (B,) to samples (B, T hop)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.stem = nn.Conv1d(config.features, width, SPAN, padding=SPAN // 2)
        self.stem_norm = nn.LayerNorm(width, EPS)
        self.blocks = nn.ModuleList(
            FrameBlock(width, hidden=3 * width, scale=1 / config.depth) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, EPS)
        self.head = nn.Linear(width, config.size + 2)
        initialised(self)
        with torch.no_grad():
            self.head.bias[: config.size // 2 + 1] = QUIET

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Samples (B, T hop) float32, 0 from the end of each row on."""
        there = (torch.arange(frames.shape[1], device=frames.device) < lengths[:, None])[..., None]
        x = self.stem((frames * there).transpose(1, 2)).transpose(1, 2)
        x = self.stem_norm(x) * there
        for block in self.blocks:
            x = block(x, there)
        sizes, phases = self.head(self.norm(x)).float().chunk(2, dim=-1)
        spectra = torch.polar(sizes.clamp(max=LOUDEST).exp(), phases)
        return synthesised(spectra, self.config.size, self.config.hop, lengths)
