"""A small convolutional network that learns small images quickly, also on a processor.

A stem, then blocks of convolution, pooling, norm, GELU and a residual convolution, and a linear
head on the largest value of every plane. The shape is in the spirit of the published speed runs
on CIFAR-10 (Page's ResNet-9 of 2018; arXiv:2404.00498): few wide layers, early pooling, logits
made small at the start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.models import reading
from modelwright.models.images import (
    ConvNorm,
    Norm,
    check_image,
    counted_flops,
    he_initialised,
    image_fields,
    normed,
    planes,
)
from modelwright.models.model import ModelConfig


@dataclass(frozen=True)
class Config(ModelConfig):
    """Shape of the network.

    ``widths`` are the channels of the stem and of every block, each of which halves the sides;
    ``stem_stride`` 2 halves them before the first block as well, for a quarter of the work.
    ``stem`` "cosines" begins with patches of 2 x 2 pixels in place of 3 x 3: their cosine transform
    for each of the opponent colours and its negative, 8 planes a channel, learned from there.
    ``logit_scale`` multiplies the head's output.
    """

    family: ClassVar[str] = "fast_cnn"
    inputs = reading.images
    compiles: ClassVar[bool] = True
    fused: ClassVar[float] = 1.0
    specimen: ClassVar[dict[str, Any]] = {"classes": 3, "image": (8, 8), "widths": [4, 6, 8]}
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "fast-cnn-small": {"widths": (32, 64, 128), "stem_stride": 2},
        "fast-cnn": {"widths": (64, 128, 256, 256)},
        "fast-cnn-large": {"widths": (128, 256, 512, 512)},
    }
    classes: PositiveInt
    image: tuple[PositiveInt, PositiveInt] = (32, 32)
    channels: PositiveInt = 3
    widths: tuple[PositiveInt, ...] = (32, 64, 128)
    stem_stride: PositiveInt = 1
    stem: Literal["random", "cosines"] = "random"
    logit_scale: PositiveFloat = 0.125
    norm: Norm = "batch"

    def __post_init__(self) -> None:
        for name in ("image", "widths"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        cosines = self.stem == "cosines"
        check_image(self.image, self.stem_stride * 2 ** (len(self.widths) - 1) + cosines)
        if cosines and (self.widths[0] != 8 * self.channels or self.stem_stride != 1):
            raise ModelwrightError(
                f"model.stem: cosines of {self.channels} channels are {8 * self.channels} planes at"
                f" a stride of 1; begin model.widths with {8 * self.channels}, or leave stem out"
            )

    def build(self) -> FastCNN:
        """The module with fresh parameters."""
        return FastCNN(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """The codec knows the size of the images, their channels and the label set."""
        return image_fields(codec)

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:  # noqa: ARG002
        """FLOPs of forward and backward for one image."""
        return counted_flops(self, {"features": (*self.image, self.channels)})


def cosines(channels: int) -> Tensor:
    """Filters (8 C, C, 2, 2) of patches: products of cosines and colours, then their negatives.

    Over natural images these directions are nearly uncorrelated, so that with a norm behind it the
    stem whitens patches, which lets all that follows learn faster (arXiv:2404.00498, section 3.2).
    """
    wave = torch.tensor([[1.0, 1.0], [1.0, -1.0]]) / 2**0.5
    colours = torch.eye(channels)
    if channels == 3:  # brightness, red against blue, green against both
        opponent = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
        colours = opponent / opponent.norm(dim=1, keepdim=True)
    found = torch.einsum("pc,iy,jx->pijcyx", colours, wave, wave).reshape(-1, channels, 2, 2)
    return torch.cat((found, -found))


class Block(nn.Module):
    """y = gelu(norm(pool(conv x))), then y + gelu(norm(conv y))."""

    def __init__(self, read: int, made: int, norm: Norm) -> None:
        super().__init__()
        self.first, self.second = (ConvNorm(n, made, 3, norm=norm) for n in (read, made))

    def forward(self, x: Tensor) -> Tensor:
        """Map planes (B, read, H, W) to (B, made, H / 2, W / 2)."""
        y = normed(self.first.norm, F.max_pool2d(self.first.conv(x), 2), "gelu")
        mapped: Tensor = y + self.second(y, "gelu")
        return mapped


class FastCNN(nn.Module):
    """Images (B, height, width[, channels]) to logits (B, classes)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        first, *rest = config.widths
        kernel, around = (2, 0) if config.stem == "cosines" else (3, 1)
        self.stem = ConvNorm(
            config.channels,
            first,
            kernel,
            stride=config.stem_stride,
            padding=around,
            norm=config.norm,
        )
        self.blocks = nn.ModuleList(
            Block(a, b, config.norm) for a, b in zip((first, *rest[:-1]), rest, strict=True)
        )
        self.head = nn.Linear(config.widths[-1], config.classes, bias=False)
        he_initialised(self)
        if config.stem == "cosines":
            with torch.no_grad():
                self.stem.conv.weight.copy_(cosines(config.channels))

    def regions(self) -> list[nn.Module]:
        """The modules to compile, each by itself."""
        return list(self.blocks)

    def seen(self) -> tuple[nn.Module, None]:
        """The module of the last planes, which Grad-CAM looks at."""
        return (self.blocks[-1] if self.blocks else self.stem), None

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, classes) for images (B, height, width[, channels]) of scaled pixels."""
        x = self.stem(planes(features, self.config.channels), "gelu")
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x.amax((2, 3))) * self.config.logit_scale
        return logits
