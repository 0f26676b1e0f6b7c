"""Sound to letters or to one label: Conformer (Gulati et al. 2020, arXiv:2005.08100).

Two convolutions over time make fewer frames of many; then come blocks of a half feed-forward
step, attention, a convolution and another half step, each added to the stream:

    x = x + F1(x) / 2;  x = x + A(x);  x = x + C(x);  y = norm(x + F2(x) / 2)

Two things differ from the paper. Positions are rotations of queries and keys
(arXiv:2104.09864; for speech arXiv:2107.05907), which are as relative and cost less. The norm
within the convolution is over channels, not over the batch: so no recording depends on what
stands beside it, and small batches learn like large ones.

With ``chunk`` frames at a time it can follow a stream: attention sees its own chunk and what was
before, and the convolutions of the blocks only what was before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.kernels.dropout import Dropout
from modelwright.kernels.elementwise import rotate
from modelwright.models import reading
from modelwright.models.model import ModelConfig, outputs_of
from modelwright.models.rope import Rope


@dataclass(frozen=True)
class Config(ModelConfig):
    """Shape of a Conformer.

    ``features`` are the numbers of a frame, ``outputs`` those of an answer: one for each frame
    that is left (``head: frames``, for CTC) or one for the recording (``head: sequence``).
    ``stride`` says how many frames become one, ``kernel`` how many the convolution of a block
    sees, ``hidden`` is the width of the feed-forward steps (0: 4 x width). ``chunk`` (0: the
    whole recording) is in frames that are left. ``mean_length`` of recordings is in frames.
    """

    family: ClassVar[str] = "conformer"
    inputs = reading.frames
    specimen: ClassVar[dict[str, Any]] = {
        "features": 4,
        "outputs": 3,
        "depth": 2,
        "width": 8,
        "heads": 2,
        "kernel": 3,
        "stride": 2,
        "dropout": 0.0,
    }
    features: PositiveInt
    outputs: PositiveInt
    head: Literal["frames", "sequence"] = "frames"
    depth: PositiveInt = 4
    width: PositiveInt = 144
    heads: PositiveInt = 4
    hidden: NonNegativeInt = 0
    kernel: PositiveInt = 15
    stride: Literal[2, 4] = 4
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    chunk: NonNegativeInt = 0
    mean_length: PositiveFloat = 100.0

    def __post_init__(self) -> None:
        if self.width % (2 * self.heads):
            raise ModelwrightError(
                f"model.width: {self.width} is not an even multiple of heads={self.heads}"
            )
        if not self.kernel % 2:
            raise ModelwrightError(f"model.kernel: {self.kernel} has no middle; give an odd number")

    @property
    def hidden_width(self) -> int:
        """The width of the feed-forward steps, with the default filled in."""
        return self.hidden or 4 * self.width

    def build(self) -> Conformer:
        """The module with fresh parameters."""
        return Conformer(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """The codec knows the width of a frame, and the letters or the labels."""
        spells = hasattr(codec, "blank")
        return {
            "features": codec.features,
            "outputs": codec.vocabulary if spells else outputs_of(codec, one_for_two=True),
            "head": "frames" if spells else "sequence",
            "mean_length": codec.mean_length,
        }

    def matrix_parameters(self) -> int:
        """Parameters of the blocks' matrices."""
        w = self.width
        return self.depth * (4 * w * self.hidden_width + 4 * w * w + 3 * w * w + w * self.kernel)

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:  # noqa: ARG002
        """FLOPs of forward and backward for one recording of ``mean_length`` frames."""
        w = self.width
        left = max(1.0, self.mean_length / self.stride)
        products: float = max(1.0, self.mean_length / 2) * 3 * self.features * w
        products += left * 3 * w * w * (self.stride == 4)
        products += left * (self.matrix_parameters() + self.depth * 2 * w * left)
        return 6.0 * (products + (left if self.head == "frames" else 1.0) * w * self.outputs)


class FeedForward(nn.Module):
    """down(silu(up(norm x)))."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        self.up = nn.Linear(config.width, config.hidden_width)
        self.down = nn.Linear(config.hidden_width, config.width)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, T, width) to the same shape."""
        out: Tensor = self.dropout(self.down(self.dropout(F.silu(self.up(self.norm(x))))))
        return out


class Attention(nn.Module):
    """softmax(Q K^T / sqrt(d)) V of the normed stream, queries and keys turned by position."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm = nn.LayerNorm(config.width)
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width, bias=False)  # the softmax takes it away
        self.value = nn.Linear(config.width, config.width)
        self.out = nn.Linear(config.width, config.width)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor], seen: Tensor) -> Tensor:
        """Map x (B, T, width); ``seen`` (B, 1, 1 or T, T) are the frames that may be read."""
        x = self.norm(x)
        q, k = (rotate(self._split(f(x)), *turns) for f in (self.query, self.key))
        q, k, v = (y.transpose(1, 2) for y in (q, k, self._split(self.value(x))))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        out: Tensor = self.dropout(self.out(mixed.transpose(1, 2).flatten(-2)))
        return out

    def _split(self, y: Tensor) -> Tensor:
        return y.view(*y.shape[:-1], self.heads, -1)


class Convolution(nn.Module):
    """A gate, a convolution of each channel over time, norm, silu and a product."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        w = config.width
        self.norm = nn.LayerNorm(w)
        self.up = nn.Linear(w, 2 * w)
        self.depthwise = nn.Conv1d(w, w, config.kernel, groups=w)
        self.inner_norm = nn.LayerNorm(w)
        self.down = nn.Linear(w, w)
        self.dropout = Dropout(config.dropout)
        behind = config.kernel - 1 if config.chunk else config.kernel // 2
        self.sides = (behind, config.kernel - 1 - behind)

    def forward(self, x: Tensor, true: Tensor) -> Tensor:
        """Map x (B, T, width); ``true`` (B, T, 1) are the frames that there are."""
        gated = F.glu(self.up(self.norm(x)), dim=-1).masked_fill(~true, 0.0)
        mixed = self.depthwise(F.pad(gated.transpose(1, 2), self.sides)).transpose(1, 2)
        out: Tensor = self.dropout(self.down(F.silu(self.inner_norm(mixed))))
        return out


class Block(nn.Module):
    """Half a feed-forward step, attention, a convolution, half a step, and a norm."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.first, self.second = FeedForward(config), FeedForward(config)
        self.attention, self.convolution = Attention(config), Convolution(config)
        self.norm = nn.LayerNorm(config.width)

    def forward(
        self, x: Tensor, turns: tuple[Tensor, Tensor], seen: Tensor, true: Tensor
    ) -> Tensor:
        """Map the stream x (B, T, width)."""
        x = x + 0.5 * self.first(x)
        x = x + self.attention(x, turns, seen)
        x = x + self.convolution(x, true)
        normed: Tensor = self.norm(x + 0.5 * self.second(x))
        return normed


class Conformer(nn.Module):
    """Frames (B, T, features) of ``lengths`` (B,) to logits of frames or of recordings."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        w = config.width
        self.reading = nn.ModuleList(
            nn.Conv1d(config.features if i == 0 else w, w, 3, stride=2, padding=1)
            for i in range(1 if config.stride == 2 else 2)
        )
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.output = nn.Linear(w, config.outputs)
        self.rope = Rope(w // config.heads)

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """Frames (B,) that are left of recordings of ``lengths`` (B,) frames."""
        for _ in self.reading:
            lengths = torch.div(lengths + 1, 2, rounding_mode="floor")
        return lengths

    def hidden(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The stream (B, T', width) after the last block, and which of it is true (B, T', 1)."""
        x = frames.transpose(1, 2)
        for convolution in self.reading:
            lengths = torch.div(lengths + 1, 2, rounding_mode="floor")
            x = F.silu(convolution(x))
            true = torch.arange(x.shape[2], device=x.device) < lengths[:, None]
            x = x.masked_fill(~true[:, None], 0.0)
        x = self.dropout(x.transpose(1, 2))
        positions = torch.arange(x.shape[1], device=x.device)
        turns = self.rope.tables(positions)
        seen = true[:, None, None]
        if self.config.chunk:
            number = torch.div(positions, self.config.chunk, rounding_mode="floor")
            seen = seen & (number[:, None] >= number)
        for block in self.blocks:
            x = block(x, turns, seen, true[..., None])
        return x, true[..., None]

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Logits (B, T', outputs) of every frame that is left, or (B, outputs) of recordings.

        ``lengths`` >= 1 are true frames; of T' = ceil(ceil(T / 2) / 2) (stride 4) the first
        ``frame_counts(lengths)`` mean something.
        """
        x, true = self.hidden(frames, lengths)
        if self.config.head == "sequence":
            x = x.masked_fill(~true, 0.0).sum(1) / true.sum(1)
        logits: Tensor = self.output(self.dropout(x))
        return logits
