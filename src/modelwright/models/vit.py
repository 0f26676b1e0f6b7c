"""The Vision Transformer (arXiv:2010.11929): an image as a sequence of patches.

z_0 = [class token; E p_1; ...; E p_N] + positions, then blocks z + attention(norm z) and
z + feed_forward(norm z), a last norm, and a head on the class token or on the mean of the patches
(arXiv:2205.01580 finds the mean the better start for small models).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.kernels.attention import equal_attention
from modelwright.kernels.dropout import Dropout
from modelwright.models import reading
from modelwright.models.images import (
    SMALL_IMAGE,
    DropPath,
    check_image,
    counted_flops,
    image_fields,
    planes,
)
from modelwright.models.model import ModelConfig

DEVIATION = 0.02


def _named(width: int, depth: int, heads: int, patch: int) -> dict[str, Any]:
    return {"width": width, "depth": depth, "heads": heads, "patch": patch}


@dataclass(frozen=True)
class Config(ModelConfig):
    """Shape of a Vision Transformer.

    ``patch`` is the side of a patch (0: 16, or 4 for images of at most 64 pixels a side);
    ``hidden`` the width of the feed-forward block (0: 4 x width); ``pool`` what the head reads,
    the "token" of its own or the "mean" of the patches; ``dropout`` the share of numbers zeroed
    in training after the positions and both branches; ``drop_path`` the share of rows whose last
    block is left out, rising from 0 at the first.
    """

    family: ClassVar[str] = "vit"
    inputs = reading.images
    compiles: ClassVar[bool] = True
    specimen: ClassVar[dict[str, Any]] = {
        "classes": 3,
        "image": (8, 12),
        "patch": 4,
        "width": 16,
        "depth": 2,
        "heads": 2,
    }
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "vit-tiny-16": _named(192, 12, 3, 16),
        "vit-small-16": _named(384, 12, 6, 16),
        "vit-base-16": _named(768, 12, 12, 16),
        "vit-large-16": _named(1024, 24, 16, 16),
    }
    classes: PositiveInt
    image: tuple[PositiveInt, PositiveInt] = (224, 224)
    channels: PositiveInt = 3
    patch: NonNegativeInt = 0
    width: PositiveInt = 192
    depth: PositiveInt = 12
    heads: PositiveInt = 3
    hidden: NonNegativeInt = 0
    pool: Literal["token", "mean"] = "token"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    eps: PositiveFloat = 1e-6

    def __post_init__(self) -> None:
        object.__setattr__(self, "image", tuple(self.image))
        check_image(self.image, self.patch_side, self.patch_side)
        if self.width % self.heads:
            raise ModelwrightError(
                f"model.width: {self.width} is not a multiple of heads={self.heads}"
            )

    @property
    def patch_side(self) -> int:
        """The side of a patch, with the default filled in."""
        return self.patch or (4 if max(self.image) <= SMALL_IMAGE else 16)

    @property
    def patches(self) -> int:
        """The number of patches of an image."""
        return (self.image[0] // self.patch_side) * (self.image[1] // self.patch_side)

    def build(self) -> VisionTransformer:
        """The module with fresh parameters."""
        return VisionTransformer(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """The codec knows the size of the images, their channels and the label set."""
        return image_fields(codec)

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:  # noqa: ARG002
        """FLOPs of forward and backward for one image."""
        return counted_flops(self, {"features": (*self.image, self.channels)})


class ImageAttention(nn.Module):
    """softmax(QK^T / sqrt(d)) V over all positions of a row, with biases."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, T, width) to the same shape."""

        def split(y: Tensor) -> Tensor:
            return y.view(*y.shape[:2], self.heads, -1)

        q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
        out: Tensor = self.out(equal_attention(q, k, v).flatten(-2))
        return out


class Block(nn.Module):
    """Attention and feed-forward, each after a norm, thinned out and added to the stream."""

    def __init__(self, config: Config, drop_path: float) -> None:
        super().__init__()
        hidden = config.hidden or 4 * config.width
        self.attention_norm = nn.LayerNorm(config.width, config.eps)
        self.attention = ImageAttention(config.width, config.heads)
        self.feed_norm = nn.LayerNorm(config.width, config.eps)
        self.up = nn.Linear(config.width, hidden)
        self.down = nn.Linear(hidden, config.width)
        self.dropout, self.drop = Dropout(config.dropout), DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, T, width) to the same shape."""
        x = x + self.drop(self.dropout(self.attention(self.attention_norm(x))))
        fed = self.down(F.gelu(self.up(self.feed_norm(x))))
        mapped: Tensor = x + self.drop(self.dropout(fed))
        return mapped


class VisionTransformer(nn.Module):
    """Images (B, height, width[, channels]) to logits (B, classes)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        side, token = config.patch_side, config.pool == "token"
        self.patch = nn.Conv2d(config.channels, config.width, side, side)
        self.token = nn.Parameter(torch.zeros(1, 1, config.width)) if token else None
        self.positions = nn.Parameter(torch.zeros(1, config.patches + token, config.width))
        self.dropout = Dropout(config.dropout)
        last = max(1, config.depth - 1)
        self.blocks = nn.ModuleList(
            Block(config, config.drop_path * i / last) for i in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, config.eps)
        self.head = nn.Linear(config.width, config.classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Products and positions normal of deviation 0.02, cut at two; biases and head zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=DEVIATION, a=-0.04, b=0.04)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.positions, std=DEVIATION, a=-0.04, b=0.04)
        if self.token is not None:
            nn.init.normal_(self.token, std=1e-6)
        nn.init.zeros_(self.head.weight)

    def regions(self) -> list[nn.Module]:
        """The modules to compile, each by itself: the blocks are alike, so one is compiled."""
        return list(self.blocks)

    def seen(self) -> tuple[nn.Module, tuple[int, int]]:
        """The last norm whose patches the head still hears of, and their rows and columns.

        Grad-CAM looks at it: after the last attention a token of its own has all it will get.
        """
        side = self.config.patch_side
        norm: nn.Module = self.blocks[-1].attention_norm  # type: ignore[assignment]
        return norm, (self.config.image[0] // side, self.config.image[1] // side)

    def hidden(self, features: Tensor) -> Tensor:
        """The stream after the last norm, (B, patches [+ 1], width), patches row by row."""
        if tuple(features.shape[1:3]) != self.config.image:
            raise ModelwrightError(
                f"features: images of {features.shape[1]} x {features.shape[2]}, the model has"
                f" positions for {self.config.image[0]} x {self.config.image[1]}; resize them"
            )
        x = self.patch(planes(features, self.config.channels)).flatten(2).transpose(1, 2)
        if self.token is not None:
            x = torch.cat((self.token.to(x.dtype).expand(x.shape[0], -1, -1), x), dim=1)
        x = self.dropout(x + self.positions)
        for block in self.blocks:
            x = block(x)
        normed: Tensor = self.norm(x)
        return normed

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, classes) for images (B, height, width[, channels]) of scaled pixels."""
        x = self.hidden(features)
        logits: Tensor = self.head(x[:, 0] if self.token is not None else x.mean(1))
        return logits
