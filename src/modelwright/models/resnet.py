"""Residual networks for images (arXiv:1512.03385), with a stem for small ones.

Block: relu(shortcut(x) + f(x)); f is two 3x3 convolutions (basic), or 1x1, 3x3, 1x1 (bottleneck,
its stride at the 3x3, which is the common later form of the paper's). The gain of f's last norm
starts at zero, so that every block starts as the identity (arXiv:1706.02677).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.models import reading
from modelwright.models.images import (
    SMALL_IMAGE,
    ConvNorm,
    Norm,
    check_image,
    counted_flops,
    he_initialised,
    image_fields,
    plane_means,
    planes,
)
from modelwright.models.model import ModelConfig

WIDENING = 4  # of a bottleneck's output over its inner width


@dataclass(frozen=True)
class Config(ModelConfig):
    """Shape of a residual network.

    ``widths`` are the inner widths of the stages, ``depths`` their numbers of blocks. ``stem`` is
    "large" (7x7 of stride 2, then pooling of stride 2), "small" (3x3 of stride 1), or "auto":
    small for images of at most 64 pixels a side. ``norm`` is "batch" or "group".
    """

    family: ClassVar[str] = "resnet"
    inputs = reading.images
    compiles: ClassVar[bool] = True
    fused: ClassVar[float] = 1.0
    specimen: ClassVar[dict[str, Any]] = {
        "classes": 3,
        "image": (16, 16),
        "depths": [1, 1],
        "widths": [8, 12],
        "stem_width": 8,
        "bottleneck": True,
    }
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "resnet18": {"depths": (2, 2, 2, 2), "bottleneck": False},
        "resnet34": {"depths": (3, 4, 6, 3), "bottleneck": False},
        "resnet50": {"depths": (3, 4, 6, 3), "bottleneck": True},
        "resnet101": {"depths": (3, 4, 23, 3), "bottleneck": True},
        "resnet152": {"depths": (3, 8, 36, 3), "bottleneck": True},
    }
    classes: PositiveInt
    image: tuple[PositiveInt, PositiveInt] = (224, 224)
    channels: PositiveInt = 3
    depths: tuple[PositiveInt, ...] = (2, 2, 2, 2)
    widths: tuple[PositiveInt, ...] = (64, 128, 256, 512)
    stem_width: PositiveInt = 64
    bottleneck: bool = False
    stem: Literal["auto", "large", "small"] = "auto"
    norm: Norm = "batch"

    def __post_init__(self) -> None:
        for name in ("image", "depths", "widths"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_image(self.image)
        if len(self.depths) != len(self.widths) or not self.depths:
            raise ModelwrightError(
                f"model.depths: {len(self.depths)} stages, but model.widths has"
                f" {len(self.widths)}; give one of each for every stage"
            )

    @property
    def small_stem(self) -> bool:
        """Whether the image is read at its full resolution by the first stage."""
        return self.stem == "small" or (self.stem == "auto" and max(self.image) <= SMALL_IMAGE)

    @property
    def made(self) -> tuple[int, ...]:
        """The channels that each stage makes."""
        return tuple(w * (WIDENING if self.bottleneck else 1) for w in self.widths)

    def build(self) -> ResNet:
        """The module with fresh parameters."""
        return ResNet(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """The codec knows the size of the images, their channels and the label set."""
        return image_fields(codec)

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:  # noqa: ARG002
        """FLOPs of forward and backward for one image."""
        return counted_flops(self, {"features": (*self.image, self.channels)})


class Residual(nn.Module):
    """relu(shortcut(x) + f(x)); the shortcut is a 1x1 convolution where the shape changes."""

    def __init__(self, read: int, width: int, stride: int, *, bottleneck: bool, norm: Norm) -> None:
        super().__init__()
        made = width * WIDENING if bottleneck else width
        kernels = ((read, width, 1, 1), (width, width, 3, stride), (width, made, 1, 1))
        if not bottleneck:
            kernels = ((read, width, 3, stride), (width, width, 3, 1))  # type: ignore[assignment]
        self.parts = nn.ModuleList(
            ConvNorm(a, b, kernel, stride=s, norm=norm) for a, b, kernel, s in kernels
        )
        changes = stride != 1 or read != made
        self.shortcut = ConvNorm(read, made, 1, stride=stride, norm=norm) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """Map planes (B, read, H, W) to (B, made, H / stride, W / stride)."""
        y = x
        *inner, last = self.parts
        for part in inner:
            y = part(y, "relu")
        kept = x if self.shortcut is None else self.shortcut(x)
        mapped: Tensor = last(y, "relu", kept)
        return mapped


class Trunk(nn.Module):
    """Stem and stages: planes to the planes that every stage makes."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.small, norm = config.small_stem, config.norm
        kernel, stride = (3, 1) if self.small else (7, 2)
        self.stem = ConvNorm(config.channels, config.stem_width, kernel, stride=stride, norm=norm)
        self.stages = nn.ModuleList()
        read = config.stem_width
        for i, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True)):
            blocks = nn.ModuleList()
            for j in range(depth):
                step = 2 if i and not j else 1
                blocks.append(Residual(read, width, step, bottleneck=config.bottleneck, norm=norm))
                read = config.made[i]
            self.stages.append(blocks)

    def reset_parameters(self) -> None:
        """He's start, and blocks that are the identity."""
        he_initialised(self)
        for module in self.modules():
            if isinstance(module, Residual):
                gain: Tensor = module.parts[-1].norm.weight  # type: ignore[assignment, union-attr]
                nn.init.zeros_(gain)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The planes after each stage, for planes x (B, channels, H, W)."""
        x = self.stem(x, "relu")
        if not self.small:
            x = F.max_pool2d(x, 3, 2, 1)
        found = []
        for stage in self.stages:
            for block in stage:  # type: ignore[attr-defined]
                x = block(x)
            found.append(x)
        return found


class ResNet(nn.Module):
    """Images (B, height, width[, channels]) to logits (B, classes)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.trunk = Trunk(config)
        self.head = nn.Linear(config.made[-1], config.classes)
        self.trunk.reset_parameters()

    def regions(self) -> list[nn.Module]:
        """The modules to compile, each by itself."""
        return [b for stage in self.trunk.stages for b in stage]  # type: ignore[attr-defined]

    def seen(self) -> tuple[nn.Module, None]:
        """The module of the last planes, which Grad-CAM looks at."""
        return self.regions()[-1], None

    def hidden(self, features: Tensor) -> Tensor:
        """The mean of the last planes, (B, width)."""
        return plane_means(self.trunk(planes(features, self.config.channels))[-1])

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, classes) for images (B, height, width[, channels]) of scaled pixels."""
        logits: Tensor = self.head(self.hidden(features))
        return logits
