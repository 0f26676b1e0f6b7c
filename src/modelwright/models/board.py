"""A policy and a value of a board, from planes (AlphaZero, arXiv:1712.01815).

A residual tower over the squares; a policy of so many kinds of move at every square, such as the
73 of chess (queen moves by direction and distance, knight moves, underpromotions), and of moves
that belong to none (a pass); and one number, how good the position is for the side to move.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from modelwright.models import reading
from modelwright.models.images import (
    ConvNorm,
    Norm,
    check_image,
    counted_flops,
    he_initialised,
    norm_layer,
    planes,
)
from modelwright.models.model import ModelConfig
from modelwright.models.resnet import Residual


@dataclass(frozen=True)
class Config(ModelConfig):
    """Shape of a board network.

    ``image`` are the rows and columns of the board, ``channels`` the planes that describe a
    position, ``kinds`` the kinds of move at a square, ``others`` the moves at none; ``depth``
    residual blocks of ``width`` channels.
    """

    family: ClassVar[str] = "board"
    inputs = reading.images
    compiles: ClassVar[bool] = True
    specimen: ClassVar[dict[str, Any]] = {
        "channels": 5,
        "kinds": 3,
        "others": 1,
        "width": 8,
        "depth": 2,
    }
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "board-small": {"width": 64, "depth": 6},
        "alphazero": {"width": 256, "depth": 19},
    }
    channels: PositiveInt
    kinds: PositiveInt = 1
    others: NonNegativeInt = 0
    image: tuple[PositiveInt, PositiveInt] = (8, 8)
    width: PositiveInt = 64
    depth: PositiveInt = 6
    norm: Norm = "group"  # which keeps the rows of a batch apart: a step cut in parts is the same

    def __post_init__(self) -> None:
        object.__setattr__(self, "image", tuple(self.image))
        check_image(self.image)

    @property
    def moves(self) -> int:
        """The number of logits of the policy."""
        return self.image[0] * self.image[1] * self.kinds + self.others

    def build(self) -> BoardNet:
        """The module with fresh parameters."""
        return BoardNet(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """The codec knows the board, its planes and its moves."""
        rows, columns, channels = codec.shape
        fields = {"image": (rows, columns), "channels": channels}
        return {**fields, "kinds": codec.kinds, "others": codec.others}

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:  # noqa: ARG002
        """FLOPs of forward and backward for one position of a game."""
        return counted_flops(self, {"features": (*self.image, self.channels)})


class BoardNet(nn.Module):
    """Planes (B, rows, columns, channels) of positions to policy and value."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        width, norm = config.width, config.norm
        self.stem = ConvNorm(config.channels, width, 3, norm=norm)
        self.blocks = nn.ModuleList(
            Residual(width, width, 1, bottleneck=False, norm=norm) for _ in range(config.depth)
        )
        self.policy_norm = norm_layer(norm, width)
        self.policy_conv = nn.Conv2d(width, width, 1)
        self.policy = nn.Conv2d(width, config.kinds, 1)
        self.others = nn.Linear(width, config.others) if config.others else None
        squares = config.image[0] * config.image[1]
        self.value_conv = ConvNorm(width, 1, 1, norm=norm)
        self.value_up, self.value = nn.Linear(squares, width), nn.Linear(width, 1)
        he_initialised(self)
        for block in self.blocks:
            gain: Tensor = block.parts[-1].norm.weight  # type: ignore[union-attr, index]
            nn.init.zeros_(gain)

    def regions(self) -> list[nn.Module]:
        """The modules to compile, each by itself: the blocks are alike, so one is compiled."""
        return list(self.blocks)

    def policy_and_value(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, moves) and values (B,) in -1 .. 1, for the side to move.

        The logit of kind k at the square of row r and column c has the number
        (r * columns + c) * kinds + k; those of no square come last.
        """
        x = F.relu(self.stem(planes(features, self.config.channels)))
        for block in self.blocks:
            x = block(x)
        y = self.policy_conv(F.relu(self.policy_norm(x)))
        logits = self.policy(F.relu(y)).permute(0, 2, 3, 1).flatten(1)
        if self.others is not None:
            logits = torch.cat((logits, self.others(y.mean((2, 3)))), 1)
        squares = F.relu(self.value_conv(x)).flatten(1)
        value = torch.tanh(self.value(F.relu(self.value_up(squares))))
        return logits, value.squeeze(1)

    def forward(self, features: Tensor) -> Tensor:
        """Both side by side, (B, moves + 1): the value is the last number."""
        logits, value = self.policy_and_value(features)
        return torch.cat((logits, value[:, None].to(logits.dtype)), 1)
