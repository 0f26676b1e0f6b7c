"""Raw sound to letters: wav2vec 2.0 with a head for CTC (arXiv:2006.11477).

Convolutions turn 16000 samples a second into 50 frames; a wide grouped convolution, its weight
normalised, adds positions; then come blocks of attention and feed-forward, and a linear head over
letters and the blank of connectionist temporal classification.

Two shapes are published. "group": the first convolution has a norm of each channel over time, and
blocks end with their norms (the base models). "layer": every convolution has a norm over its
channels, and blocks begin with their norms (the large models from LV-60 on).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.kernels.dropout import Dropout
from modelwright.models import reading
from modelwright.models.model import ModelConfig
from modelwright.models.multihead import MultiHead

DEVIATION = 0.02  # of the fresh weights of linear maps
SECOND = 16_000  # samples: an item of ``flops_per_item``
_LARGE = {"depth": 24, "width": 1024, "heads": 16}
_STABLE = {"norm": "layer", "norm_first": True, "conv_bias": True}


@dataclass(frozen=True)
class Config(ModelConfig):
    """Shape of a wav2vec 2.0.

    ``conv_widths``, ``conv_kernels`` and ``conv_strides`` describe the convolutions over samples;
    ``norm`` ("group" or "layer") their norms, ``conv_bias`` whether they have biases;
    ``norm_first`` where the blocks have theirs; ``position_kernel`` and ``position_groups`` the
    convolution for positions; ``hidden`` the width of the feed-forward block (0: 4 x width).
    """

    family: ClassVar[str] = "wav2vec2"
    inputs = reading.recordings
    compiles: ClassVar[bool] = True
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "wav2vec2-base": {"depth": 12, "width": 768, "heads": 12},
        "wav2vec2-large": _LARGE,
        "wav2vec2-large-lv60": {**_LARGE, **_STABLE},
    }
    specimen: ClassVar[dict[str, Any]] = {
        "vocabulary": 12,
        "depth": 2,
        "width": 16,
        "heads": 2,
        "conv_widths": [8, 8, 8],
        "conv_kernels": [10, 3, 2],
        "conv_strides": [5, 2, 2],
        "position_kernel": 8,
        "position_groups": 2,
        "dropout": 0.0,
    }
    vocabulary: PositiveInt = 32
    depth: PositiveInt = 12
    width: PositiveInt = 768
    heads: PositiveInt = 12
    hidden: NonNegativeInt = 0
    conv_widths: tuple[PositiveInt, ...] = (512, 512, 512, 512, 512, 512, 512)
    conv_kernels: tuple[PositiveInt, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_strides: tuple[PositiveInt, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_bias: bool = False
    norm: str = "group"
    norm_first: bool = False
    position_kernel: PositiveInt = 128
    position_groups: PositiveInt = 16
    eps: PositiveFloat = 1e-5
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1

    def __post_init__(self) -> None:
        for name in ("conv_widths", "conv_kernels", "conv_strides"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # lists come from YAML
        if not len(self.conv_widths) == len(self.conv_kernels) == len(self.conv_strides) > 0:
            raise ModelwrightError(
                f"model.conv_widths: {len(self.conv_widths)} widths, {len(self.conv_kernels)}"
                f" kernels and {len(self.conv_strides)} strides; give one of each a layer"
            )
        for name in ("heads", "position_groups"):
            if self.width % getattr(self, name):
                raise ModelwrightError(
                    f"model.width: {self.width} is not a multiple of {name}={getattr(self, name)}"
                )
        if self.norm not in ("group", "layer"):
            raise ModelwrightError(f"model.norm: {self.norm!r} is not 'group' or 'layer'")

    @property
    def hidden_width(self) -> int:
        """The width of the feed-forward block, with the default filled in."""
        return self.hidden or 4 * self.width

    def build(self) -> Wav2Vec2:
        """The module with fresh parameters."""
        return Wav2Vec2(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """The codec knows its letters, the blank included."""
        return {"vocabulary": codec.vocabulary}

    @classmethod
    def of_size(cls, parameters: int, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Depth and width, 64 to one, in heads of 64, for ``parameters`` in the blocks."""
        best: dict[str, Any] = {}
        error = math.inf
        for depth in range(2, 65):
            for heads in range(1, 65):
                shape = {"depth": depth, "width": 64 * heads, "heads": heads}
                shape |= {k: v for k, v in fixed.items() if k in shape}
                if shape["width"] % shape["heads"]:
                    continue
                config = cls(**{**fixed, **shape})
                miss = abs(math.log(config.matrix_parameters() / parameters))
                miss += 0.3 * abs(math.log(config.width / config.depth / 64))
                if miss < error:
                    best, error = shape, miss
        return best

    def matrix_parameters(self) -> int:
        """Parameters in the blocks' matrices."""
        return self.depth * self.width * (4 * self.width + 2 * self.hidden_width)

    def frames(self, samples: int) -> int:
        """How many frames come of so many samples; 0 where they are too few for one."""
        for kernel, stride in zip(self.conv_kernels, self.conv_strides, strict=True):
            samples = max(0, (samples - kernel) // stride + 1)
        return samples

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:
        """FLOPs of forward and backward for a second of sound.

        ``length`` is the mean number of seconds of a recording (None: 10), for attention.
        """
        products, rate, before = 0.0, float(SECOND), 1
        for width, kernel, stride in zip(
            self.conv_widths, self.conv_kernels, self.conv_strides, strict=True
        ):
            rate /= stride
            products += rate * width * before * kernel
            before = width
        seen = rate * (10.0 if length is None else length)
        w = self.width
        each: float = before * w + w * w // self.position_groups * self.position_kernel
        each += self.matrix_parameters() + self.depth * 2 * w * seen
        return 6.0 * (products + rate * (each + learned * w * self.vocabulary))


class Convolution(nn.Module):
    """gelu(norm(conv x)) over time."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        before = config.conv_widths[layer - 1] if layer else 1
        width, kernel = config.conv_widths[layer], config.conv_kernels[layer]
        stride = config.conv_strides[layer]
        self.conv = nn.Conv1d(before, width, kernel, stride, bias=config.conv_bias)
        self.norm: nn.Module | None = None
        if config.norm == "layer":
            self.norm = nn.LayerNorm(width)
        elif layer == 0:
            self.norm = nn.GroupNorm(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, channels, T) to (B, width, fewer)."""
        x = self.conv(x)
        if isinstance(self.norm, nn.LayerNorm):
            x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        elif self.norm is not None:
            x = self.norm(x)
        return F.gelu(x)


class Positions(nn.Module):
    """gelu(conv x) over time and groups of channels, the weight normalised (arXiv:1602.07868).

    The weight of tap k is gain_k v_k / |v_k|, the norm over all channels.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.groups, self.kernel = config.position_groups, config.position_kernel
        shape = (config.width, config.width // self.groups, self.kernel)
        self.direction = nn.Parameter(torch.empty(shape))
        self.gain = nn.Parameter(torch.empty(1, 1, self.kernel))
        self.bias = nn.Parameter(torch.empty(config.width))

    def reset_parameters(self) -> None:
        """Normal of deviation 2 / sqrt(kernel x width), no bias; the gains are the norms."""
        std = 2 / math.sqrt(self.kernel * self.direction.shape[0])
        nn.init.normal_(self.direction, std=std)
        nn.init.zeros_(self.bias)
        with torch.no_grad():
            self.gain.copy_(self._norms())

    def _norms(self) -> Tensor:
        norms: Tensor = torch.linalg.vector_norm(self.direction, dim=(0, 1), keepdim=True)
        return norms

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, T, width) to the same shape."""
        weight = self.gain * self.direction / self._norms()
        moved = F.conv1d(
            x.transpose(1, 2), weight.to(x.dtype), self.bias.to(x.dtype),
            padding=self.kernel // 2, groups=self.groups,
        )  # fmt: skip
        # A kernel of even size makes one frame too many.
        return F.gelu(moved[:, :, : x.shape[1]]).transpose(1, 2)


class Block(nn.Module):
    """Attention and feed-forward, with a norm before each, or after each sum."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm_first = config.norm_first
        self.attention = MultiHead(config.width, config.heads)
        self.attention_norm = nn.LayerNorm(config.width, config.eps)
        self.up = nn.Linear(config.width, config.hidden_width)
        self.down = nn.Linear(config.hidden_width, config.width)
        self.feed_norm = nn.LayerNorm(config.width, config.eps)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        """Map the stream x (B, T, width); ``seen`` (B, 1, 1, T) are the true frames."""
        if self.norm_first:
            x = x + self.dropout(self.attention(self.attention_norm(x), seen))
            mapped: Tensor = x + self._fed(self.feed_norm(x))
        else:
            x = self.attention_norm(x + self.dropout(self.attention(x, seen)))
            mapped = self.feed_norm(x + self._fed(x))
        return mapped

    def _fed(self, x: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.down(self.dropout(F.gelu(self.up(x)))))
        return out


class Wav2Vec2(nn.Module):
    """Samples (B, n) of ``lengths`` (B,) to logits (B, frames, vocabulary)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        layers = range(len(config.conv_widths))
        self.convolutions = nn.ModuleList(Convolution(config, i) for i in layers)
        self.frame_norm = nn.LayerNorm(config.conv_widths[-1], config.eps)
        self.projection = nn.Linear(config.conv_widths[-1], config.width)
        self.positions = Positions(config)
        self.norm = nn.LayerNorm(config.width, config.eps)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.output = nn.Linear(config.width, config.vocabulary)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Linear maps normal of deviation 0.02, convolutions by their fan-in, no biases."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=DEVIATION)
            if isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight)
            if isinstance(module, nn.Linear | nn.Conv1d) and module.bias is not None:
                nn.init.zeros_(module.bias)
        self.positions.reset_parameters()

    def regions(self) -> list[nn.Module]:
        """The modules to compile, each by itself: the blocks are alike."""
        return list(self.blocks)

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """Frames (B,) of recordings of ``lengths`` (B,) samples."""
        for kernel, stride in zip(self.config.conv_kernels, self.config.conv_strides, strict=True):
            lengths = torch.div(lengths - kernel, stride, rounding_mode="floor") + 1
        return lengths

    def hidden(self, samples: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The stream after the last norm, (B, frames, width); see ``forward``.

        Raises:
            ModelwrightError: fewer samples than make one frame.
        """
        if self.config.frames(samples.shape[1]) < 1:
            raise ModelwrightError(
                f"sound: {samples.shape[1]} samples are too few for one frame; leave them out"
            )
        x = samples[:, None]
        for convolution in self.convolutions:
            x = convolution(x)
        x = self.dropout(self.projection(self.frame_norm(x.transpose(1, 2))))
        seen = None
        if lengths is not None:
            true = torch.arange(x.shape[1], device=x.device) < self.frame_counts(lengths)[:, None]
            x = x.masked_fill(~true[:, :, None], 0.0)
            seen = true[:, None, None]
        x = x + self.positions(x)
        x = self.dropout(x if self.config.norm_first else self.norm(x))
        for block in self.blocks:
            x = block(x, seen)
        mapped: Tensor = self.norm(x) if self.config.norm_first else x
        return mapped

    def forward(self, samples: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits (B, frames, vocabulary) of letters and the blank, in float32.

        Args:
            samples: standardised sound (B, n) of 16000 a second (``data.speech.standardised``),
                shorter rows padded with zeros on the right.
            lengths: true samples (B,) of each row, at least enough for a frame; None: all.
                Frames beyond are not attended to and mean nothing. With ``norm`` "group" the
                first norm still counts the padding, as the published models do.
        """
        logits: Tensor = self.output(self.dropout(self.hidden(samples, lengths)))
        return logits.float()
