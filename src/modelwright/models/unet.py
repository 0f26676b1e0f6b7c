"""The U-Net of denoising diffusion (arXiv:2006.11239): down, across, up, with connections.

Residual blocks x + conv(silu(norm(conv(silu(norm x)) + W c))), c the vector of time and label;
self-attention at the levels that name it. The last convolution of every block starts at zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.models import reading
from modelwright.models.diffusion import Condition
from modelwright.models.images import (
    check_image,
    counted_flops,
    image_fields,
    norm_layer,
    planes,
)
from modelwright.models.model import ModelConfig
from modelwright.models.vit import ImageAttention


@dataclass(frozen=True)
class Config(ModelConfig):
    """Shape of a U-Net.

    ``multipliers`` of ``width`` are the channels of each level, each at half the sides of the one
    before; ``attention`` lists the levels (from 0) with self-attention of ``heads`` heads;
    ``classes`` 0 makes it know no labels.
    """

    family: ClassVar[str] = "unet"
    inputs = reading.noisy_images
    compiles: ClassVar[bool] = False  # every level is of another shape, and compiled anew
    specimen: ClassVar[dict[str, Any]] = {
        "image": (8, 8),
        "classes": 2,
        "width": 8,
        "multipliers": [1, 2],
        "blocks": 1,
        "attention": [1],
        "heads": 2,
    }
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "unet-cifar": {"width": 128, "multipliers": (1, 2, 2, 2), "attention": (1,), "heads": 1},
    }
    image: tuple[PositiveInt, PositiveInt] = (32, 32)
    channels: PositiveInt = 3
    classes: NonNegativeInt = 0
    width: PositiveInt = 64
    multipliers: tuple[PositiveInt, ...] = (1, 2, 2)
    blocks: PositiveInt = 2
    attention: tuple[NonNegativeInt, ...] = (1, 2)
    heads: PositiveInt = 4

    def __post_init__(self) -> None:
        for name in ("image", "multipliers", "attention"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        times = 2 ** (len(self.multipliers) - 1)
        check_image(self.image, times, times)
        if max(self.attention, default=0) >= len(self.multipliers):
            raise ModelwrightError(
                f"model.attention: level {max(self.attention)}, but model.multipliers has"
                f" {len(self.multipliers)} levels, from 0"
            )

    def build(self) -> UNet:
        """The module with fresh parameters."""
        return UNet(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """The codec knows the size of the images, their channels and the label set."""
        return image_fields(codec)

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:  # noqa: ARG002
        """FLOPs of forward and backward for one image at one time."""
        return counted_flops(self, {"noisy": (*self.image, self.channels), "times": ()})


class Residual(nn.Module):
    """Two convolutions, told of the time and the label between them, added to the stream."""

    def __init__(self, read: int, made: int, told: int) -> None:
        super().__init__()
        self.first_norm, self.second_norm = norm_layer("group", read), norm_layer("group", made)
        self.first = nn.Conv2d(read, made, 3, padding=1)
        self.second = nn.Conv2d(made, made, 3, padding=1)
        self.told = nn.Linear(told, made)
        self.shortcut = nn.Conv2d(read, made, 1) if read != made else None

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map planes x (B, read, H, W), with the condition (B, told), to (B, made, H, W)."""
        y = self.first(F.silu(self.first_norm(x))) + self.told(condition)[:, :, None, None]
        y = self.second(F.silu(self.second_norm(y)))
        kept = x if self.shortcut is None else self.shortcut(x)
        mapped: Tensor = kept + y
        return mapped


class PlaneAttention(nn.Module):
    """Self-attention over the positions of planes, added to them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ModelwrightError(f"model.heads: {width} channels are no multiple of {heads}")
        self.norm = norm_layer("group", width)
        self.attention = ImageAttention(width, heads)

    def forward(self, x: Tensor) -> Tensor:
        """Map planes x (B, C, H, W) to the same shape."""
        rows = self.norm(x).flatten(2).transpose(1, 2)
        mixed: Tensor = self.attention(rows).transpose(1, 2).unflatten(2, x.shape[2:])
        return x + mixed


class Level(nn.Module):
    """A residual block, and attention where the level has it."""

    def __init__(self, read: int, made: int, told: int, heads: int) -> None:
        super().__init__()
        self.block = Residual(read, made, told)
        self.attention = PlaneAttention(made, heads) if heads else None

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map planes (B, read, H, W) to (B, made, H, W)."""
        y: Tensor = self.block(x, condition)
        return y if self.attention is None else self.attention(y)


class UNet(nn.Module):
    """Noisy images and their times to what was asked to be predicted of each pixel."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        told = 4 * config.width
        widths = [config.width * m for m in config.multipliers]
        heads = [config.heads if i in config.attention else 0 for i in range(len(widths))]
        self.condition = Condition(told, config.classes, config.width + config.width % 2)
        self.stem = nn.Conv2d(config.channels, config.width, 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        kept, read = [config.width], config.width
        for i, width in enumerate(widths):
            for _ in range(config.blocks):
                self.down.append(Level(read, width, told, heads[i]))
                read = width
                kept.append(width)
            if i + 1 < len(widths):
                self.shrink.append(nn.Conv2d(width, width, 3, 2, 1))
                kept.append(width)
        self.middle = nn.ModuleList(
            [Level(read, read, told, config.heads), Level(read, read, told, 0)]
        )
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for i in reversed(range(len(widths))):
            for _ in range(config.blocks + 1):
                self.up.append(Level(read + kept.pop(), widths[i], told, heads[i]))
                read = widths[i]
            if i:
                self.grow.append(nn.Conv2d(read, read, 3, padding=1))
        self.norm = norm_layer("group", read)
        self.head = nn.Conv2d(read, config.channels, 3, padding=1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Torch's start, but every branch and the head at zero."""
        for module in self.modules():
            if isinstance(module, Residual):
                nn.init.zeros_(module.second.weight)
            if isinstance(module, PlaneAttention):
                nn.init.zeros_(module.attention.out.weight)
        nn.init.zeros_(self.head.weight)
        if self.head.bias is not None:
            nn.init.zeros_(self.head.bias)

    def regions(self) -> list[nn.Module]:
        """The modules to compile, each by itself."""
        return [*self.down, *self.middle, *self.up]

    def forward(self, noisy: Tensor, times: Tensor, labels: Tensor | None = None) -> Tensor:
        """The prediction, of the shape of ``noisy``.

        Args:
            noisy: (B, height, width[, channels]).
            times: (B,), in time steps, 0 for a clean image.
            labels: int64 (B,), -1 for none; left out, no row has one.
        """
        condition = F.silu(self.condition(times, labels))
        x = self.stem(planes(noisy, self.config.channels))
        kept, levels = [x], len(self.config.multipliers)
        for i, level in enumerate(self.down):
            x = level(x, condition)
            kept.append(x)
            at, last = divmod(i + 1, self.config.blocks)
            if not last and at < levels:
                x = self.shrink[at - 1](x)
                kept.append(x)
        for level in self.middle:
            x = level(x, condition)
        for i, level in enumerate(self.up):
            x = level(torch.cat((x, kept.pop()), 1), condition)
            at, last = divmod(i + 1, self.config.blocks + 1)
            if not last and at < levels:
                x = self.grow[at - 1](F.interpolate(x, scale_factor=2.0, mode="nearest"))
        made: Tensor = self.head(F.silu(self.norm(x))).permute(0, 2, 3, 1)
        return made.reshape(noisy.shape)
