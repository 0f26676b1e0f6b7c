"""ConvNeXt (arXiv:2201.03545): a convolutional network shaped like a Transformer.

Block: x + scale * down(gelu(up(norm(conv7x7(x))))), the convolution depthwise, the two products
over channels; norms over the channels of every position. Between stages a norm and a 2x2
convolution of stride 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.models import reading
from modelwright.models.images import (
    SMALL_IMAGE,
    DropPath,
    check_image,
    counted_flops,
    image_fields,
    plane_means,
    planes,
)
from modelwright.models.model import ModelConfig

EPS = 1e-6


@dataclass(frozen=True)
class Config(ModelConfig):
    """Shape of a ConvNeXt.

    ``patch`` is the side of the stem's patches (0: 4, or 1 for images of at most 64 pixels a
    side). ``drop_path`` is the share of rows whose last block is left out in training, rising
    from 0 at the first. ``scale`` is what the gains of the branches start at. ``head_eps`` is
    that of the last norm.
    """

    family: ClassVar[str] = "convnext"
    inputs = reading.images
    compiles: ClassVar[bool] = True
    specimen: ClassVar[dict[str, Any]] = {
        "classes": 3,
        "image": (16, 16),
        "depths": [1, 2],
        "widths": [8, 12],
        "patch": 2,
    }
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "convnext-tiny": {"depths": (3, 3, 9, 3), "widths": (96, 192, 384, 768)},
        "convnext-small": {"depths": (3, 3, 27, 3), "widths": (96, 192, 384, 768)},
        "convnext-base": {"depths": (3, 3, 27, 3), "widths": (128, 256, 512, 1024)},
    }
    classes: PositiveInt
    image: tuple[PositiveInt, PositiveInt] = (224, 224)
    channels: PositiveInt = 3
    depths: tuple[PositiveInt, ...] = (3, 3, 9, 3)
    widths: tuple[PositiveInt, ...] = (96, 192, 384, 768)
    patch: NonNegativeInt = 0
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    scale: PositiveFloat = 1e-6
    head_eps: PositiveFloat = EPS

    def __post_init__(self) -> None:
        for name in ("image", "depths", "widths"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.depths) != len(self.widths) or not self.depths:
            raise ModelwrightError(
                f"model.depths: {len(self.depths)} stages, but model.widths has"
                f" {len(self.widths)}; give one of each for every stage"
            )
        check_image(self.image, self.patch_side * 2 ** (len(self.depths) - 1))

    @property
    def patch_side(self) -> int:
        """The side of a patch of the stem, with the default filled in."""
        return self.patch or (1 if max(self.image) <= SMALL_IMAGE else 4)

    def build(self) -> ConvNeXt:
        """The module with fresh parameters."""
        return ConvNeXt(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """The codec knows the size of the images, their channels and the label set."""
        return image_fields(codec)

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:  # noqa: ARG002
        """FLOPs of forward and backward for one image."""
        return counted_flops(self, {"features": (*self.image, self.channels)})


class PlaneNorm(nn.LayerNorm):
    """A layer norm over the channels of every position of planes (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (B, C, H, W); channels-last memory is not copied."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """A depthwise convolution and a feed-forward block, added to the stream."""

    def __init__(self, width: int, scale: float, drop_path: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, EPS)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), scale))
        self.drop = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, C, H, W) to the same shape."""
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.down(F.gelu(self.up(y))) * self.scale
        mapped: Tensor = x + self.drop(y.permute(0, 3, 1, 2))
        return mapped


class Reduction(nn.Module):
    """The norm and the convolution of stride 2 before a stage."""

    def __init__(self, read: int, made: int) -> None:
        super().__init__()
        self.norm = PlaneNorm(read, EPS)
        self.conv = nn.Conv2d(read, made, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, read, H, W) to (B, made, H / 2, W / 2)."""
        y: Tensor = self.conv(self.norm(x))
        return y


class ConvNeXt(nn.Module):
    """Images (B, height, width[, channels]) to logits (B, classes)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        side, widths = config.patch_side, config.widths
        self.stem = nn.Conv2d(config.channels, widths[0], side, side)
        self.stem_norm = PlaneNorm(widths[0], EPS)
        self.reductions = nn.ModuleList(Reduction(a, b) for a, b in pairwise(widths))
        total, made = max(1, sum(config.depths) - 1), 0
        self.stages = nn.ModuleList()
        for depth, width in zip(config.depths, widths, strict=True):
            shares = [config.drop_path * (made + j) / total for j in range(depth)]
            self.stages.append(nn.ModuleList(Block(width, config.scale, s) for s in shares))
            made += depth
        self.norm = nn.LayerNorm(widths[-1], config.head_eps)
        self.head = nn.Linear(widths[-1], config.classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Convolutions and products normal of deviation 0.02, cut at two; biases zero."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def regions(self) -> list[nn.Module]:
        """The modules to compile, each by itself."""
        return [b for stage in self.stages for b in stage]  # type: ignore[attr-defined]

    def seen(self) -> tuple[nn.Module, None]:
        """The module of the last planes, which Grad-CAM looks at."""
        return self.regions()[-1], None

    def hidden(self, features: Tensor) -> Tensor:
        """The normed mean of the last planes, (B, width)."""
        x = self.stem_norm(self.stem(planes(features, self.config.channels)))
        for i, stage in enumerate(self.stages):
            x = self.reductions[i - 1](x) if i else x
            for block in stage:  # type: ignore[attr-defined]
                x = block(x)
        normed: Tensor = self.norm(plane_means(x))
        return normed

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, classes) for images (B, height, width[, channels]) of scaled pixels."""
        logits: Tensor = self.head(self.hidden(features))
        return logits
