"""The diffusion Transformer (arXiv:2212.09748): patches, and norms that the time and label set.

Blocks z + a_1 * attention(norm(z) (1 + s_1) + b_1) and z + a_2 * feed(norm(z) (1 + s_2) + b_2),
where the six vectors are a linear map of the condition that starts at zero, and so every block at
the identity (adaLN-Zero). Positions are fixed waves of row and column.
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
from modelwright.models.diffusion import Condition, waves
from modelwright.models.images import check_image, counted_flops, image_fields, planes
from modelwright.models.model import ModelConfig
from modelwright.models.vit import ImageAttention

EPS = 1e-6


def _named(width: int, depth: int, heads: int) -> dict[str, Any]:
    return {"width": width, "depth": depth, "heads": heads}


@dataclass(frozen=True)
class Config(ModelConfig):
    """Shape of a diffusion Transformer.

    ``classes`` 0 makes it know no labels; ``variance`` doubles the predicted channels: the second
    half says how the variance of a step is chosen (arXiv:2102.09672).
    """

    family: ClassVar[str] = "dit"
    inputs = reading.noisy_images
    compiles: ClassVar[bool] = True
    specimen: ClassVar[dict[str, Any]] = {
        "image": (4, 8),
        "classes": 2,
        "width": 16,
        "depth": 2,
        "heads": 2,
    }
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "dit-small": _named(384, 12, 6),
        "dit-base": _named(768, 12, 12),
        "dit-large": _named(1024, 24, 16),
        "dit-xlarge": _named(1152, 28, 16),
    }
    image: tuple[PositiveInt, PositiveInt] = (32, 32)
    channels: PositiveInt = 3
    classes: NonNegativeInt = 0
    patch: PositiveInt = 2
    width: PositiveInt = 384
    depth: PositiveInt = 12
    heads: PositiveInt = 6
    variance: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "image", tuple(self.image))
        check_image(self.image, self.patch, self.patch)
        if self.width % self.heads or self.width % 4:
            raise ModelwrightError(
                f"model.width: {self.width} is not a multiple of 4 and of heads={self.heads}"
            )

    def build(self) -> DiT:
        """The module with fresh parameters."""
        return DiT(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """The codec knows the size of the images, their channels and the label set."""
        return image_fields(codec)

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:  # noqa: ARG002
        """FLOPs of forward and backward for one image at one time."""
        return counted_flops(self, {"noisy": (*self.image, self.channels), "times": ()})


def _moved(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """The normed x (B, T, width) times (1 + scale) plus shift, both (B, width)."""
    normed = F.layer_norm(x, x.shape[-1:], eps=EPS)
    return normed * (1 + scale[:, None]) + shift[:, None]


class Block(nn.Module):
    """Attention and feed-forward, shifted, scaled and gated by the condition."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = ImageAttention(width, heads)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map x (B, T, width) with the condition (B, width) to the same shape."""
        b1, s1, a1, b2, s2, a2 = self.modulation(condition).chunk(6, dim=-1)
        x = x + a1[:, None] * self.attention(_moved(x, b1, s1))
        fed = self.down(F.gelu(self.up(_moved(x, b2, s2)), approximate="tanh"))
        mapped: Tensor = x + a2[:, None] * fed
        return mapped


class DiT(nn.Module):
    """Noisy images and their times to what was asked to be predicted of each pixel."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        side, width = config.patch, config.width
        self.made = config.channels * (2 if config.variance else 1)
        self.patch = nn.Conv2d(config.channels, width, side, side)
        rows, columns = (torch.arange(n // side) for n in config.image)
        place = torch.cat(
            (
                waves(rows, width // 2)[:, None].expand(-1, len(columns), -1),
                waves(columns, width // 2)[None].expand(len(rows), -1, -1),
            ),
            dim=-1,
        )
        self.register_buffer("positions", place.flatten(0, 1), persistent=False)
        self.condition = Condition(width, config.classes)
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.depth))
        self.modulation = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, side * side * self.made)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Products uniform by fan-in and fan-out, the condition's normal; gates and head zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(module.weight.view(len(module.weight), -1))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for table in (self.condition.up.weight, self.condition.down.weight):
            nn.init.normal_(table, std=0.02)
        if self.condition.label_embedding is not None:
            nn.init.normal_(self.condition.label_embedding.weight, std=0.02)
        for block in (*self.blocks, self):
            nn.init.zeros_(block.modulation.weight)
        nn.init.zeros_(self.head.weight)

    def regions(self) -> list[nn.Module]:
        """The modules to compile, each by itself: the blocks are alike, so one is compiled."""
        return list(self.blocks)

    def forward(self, noisy: Tensor, times: Tensor, labels: Tensor | None = None) -> Tensor:
        """The prediction, of the shape of ``noisy``; with ``variance`` of twice the channels.

        Args:
            noisy: (B, height, width[, channels]).
            times: (B,), in time steps, 0 for a clean image.
            labels: int64 (B,), -1 for none; left out, no row has one.
        """
        x = self.patch(planes(noisy, self.config.channels))
        height, width = x.shape[2:]
        x = x.flatten(2).transpose(1, 2) + self.get_buffer("positions")
        condition = F.silu(self.condition(times, labels))
        for block in self.blocks:
            x = block(x, condition)
        shift, scale = self.modulation(condition).chunk(2, dim=-1)
        side = self.config.patch
        made: Tensor = self.head(_moved(x, shift, scale))
        made = made.view(len(x), height, width, side, side, self.made).transpose(2, 3)
        return made.reshape(*noisy.shape[:3], *self._last(noisy))

    def _last(self, noisy: Tensor) -> tuple[int, ...]:
        """The channels of the result; a grey image without a dimension for them gets none."""
        return () if noisy.ndim == 3 and self.made == 1 else (self.made,)
