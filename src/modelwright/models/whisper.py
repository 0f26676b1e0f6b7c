"""Speech to text by an encoder and a decoder: Whisper (arXiv:2212.04356).

The encoder reads a window of log-mel frames (``data/speech.py``): two convolutions, the second of
stride 2, fixed sines as positions, blocks x + attention(norm x), then x + feed_forward(norm x).
The decoder reads tokens: learned positions, and blocks that attend to the tokens before, then to
the encoder's output. Its head is its embedding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, cast

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.kernels.dropout import Dropout
from modelwright.models import reading
from modelwright.models.model import ModelConfig
from modelwright.models.multihead import MultiHead

DEVIATION = 0.02  # of the fresh weights
SINES = 10_000.0  # the longest wavelength of a position, over 2 pi


def _size(
    depth: int, width: int, heads: int, decoder_depth: int = 0, **more: int
) -> dict[str, int]:
    """The fields of a published size, multilingual unless ``more`` says otherwise."""
    fields = {"encoder_depth": depth, "decoder_depth": decoder_depth or depth, "width": width}
    return {**fields, "heads": heads, "start_token": 50258, "end_token": 50257, **more}


_ENGLISH = {"vocabulary": 51864, "start_token": 50257, "end_token": 50256}
_THIRD = {"vocabulary": 51866, "bands": 128}


@dataclass(frozen=True)
class Config(ModelConfig):
    """Shape of a Whisper.

    ``bands`` are the frames' log-mel bands, ``frames`` the encoder's positions (half the frames
    of a window), ``context`` the longest text, ``hidden`` the width of the feed-forward blocks
    (0: 4 x width). A text begins with ``start_token`` and ends with ``end_token``.
    """

    family: ClassVar[str] = "whisper"
    inputs = reading.windows
    compiles: ClassVar[bool] = True
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "whisper-tiny": _size(4, 384, 6),
        "whisper-tiny.en": _size(4, 384, 6, **_ENGLISH),
        "whisper-base": _size(6, 512, 8),
        "whisper-base.en": _size(6, 512, 8, **_ENGLISH),
        "whisper-small": _size(12, 768, 12),
        "whisper-small.en": _size(12, 768, 12, **_ENGLISH),
        "whisper-medium": _size(24, 1024, 16),
        "whisper-medium.en": _size(24, 1024, 16, **_ENGLISH),
        "whisper-large": _size(32, 1280, 20),
        "whisper-large-v3": _size(32, 1280, 20, **_THIRD),
        "whisper-large-v3-turbo": _size(32, 1280, 20, 4, **_THIRD),
    }
    specimen: ClassVar[dict[str, Any]] = {
        "vocabulary": 300,
        "bands": 8,
        "frames": 6,
        "context": 16,
        "encoder_depth": 2,
        "decoder_depth": 1,
        "width": 16,
        "heads": 2,
        "start_token": 1,
        "end_token": 2,
    }
    vocabulary: PositiveInt = 51865
    bands: PositiveInt = 80
    frames: PositiveInt = 1500
    context: PositiveInt = 448
    encoder_depth: PositiveInt = 4
    decoder_depth: PositiveInt = 4
    width: PositiveInt = 384
    heads: PositiveInt = 6
    hidden: NonNegativeInt = 0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    start_token: NonNegativeInt = 1
    end_token: NonNegativeInt = 0

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % 2 or self.width < 4:
            raise ModelwrightError(
                f"model.width: {self.width} is not an even multiple of heads={self.heads}"
            )
        for name in ("start_token", "end_token"):
            if getattr(self, name) >= self.vocabulary:
                raise ModelwrightError(
                    f"model.{name}: {getattr(self, name)} is not in the vocabulary of"
                    f" {self.vocabulary}"
                )

    @property
    def hidden_width(self) -> int:
        """The width of the feed-forward block, with the default filled in."""
        return self.hidden or 4 * self.width

    def build(self) -> Whisper:
        """The module with fresh parameters."""
        return Whisper(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """The codec knows its tokens, how a text begins and ends, and the frames of a window."""
        return {
            "vocabulary": codec.vocabulary,
            "bands": codec.bands,
            "frames": codec.window // 2,
            "context": codec.context,
            "start_token": codec.start,
            "end_token": codec.end,
        }

    @classmethod
    def of_size(cls, parameters: int, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Depth, width and heads of 64 for about ``parameters`` in the blocks' matrices.

        One stack is deep as a 48th of its width: the published ones go from a 96th (tiny) to a
        40th (large).
        """
        best: dict[str, Any] = {}
        error = math.inf
        for depth in range(2, 65):
            for heads in range(1, 65):
                shape = {"encoder_depth": depth, "decoder_depth": depth}
                shape |= {"width": 64 * heads, "heads": heads}
                shape |= {k: v for k, v in fixed.items() if k in shape}
                if shape["width"] % shape["heads"]:
                    continue
                config = cls(**{**fixed, **shape})
                ratio = config.width / (config.encoder_depth + config.decoder_depth)
                miss = abs(math.log(config.matrix_parameters() / parameters))
                miss += 0.3 * abs(math.log(ratio / 24))
                if miss < error:
                    best, error = shape, miss
        return best

    def matrix_parameters(self) -> int:
        """Parameters of the blocks' matrices, without embedding, positions and convolutions."""
        attention, feed = 4 * self.width**2, 2 * self.width * self.hidden_width
        return self.encoder_depth * (attention + feed) + self.decoder_depth * (2 * attention + feed)

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:
        """FLOPs of forward and backward for one window of sound and its text of ``length`` tokens.

        ``learned`` is the share of the tokens that reach the head; above 1, where windows are
        counted, how many tokens a window has.
        """
        w, sound = self.width, self.frames
        text = self.context if length is None else min(length, self.context)
        if learned > 1:
            text, learned = min(learned, self.context), 1.0
        attention, feed = 4 * w * w, 2 * w * self.hidden_width
        products: float = 2 * sound * 3 * self.bands * w + sound * 3 * w * w
        products += self.encoder_depth * sound * (attention + feed + 2 * w * sound)
        # A token costs its queries and what it reads; keys and values of the sound cost once.
        each = attention + attention // 2 + feed + 2 * w * sound + w * text
        products += self.decoder_depth * (text * each + sound * 2 * w * w)
        return 6.0 * (products + learned * text * w * self.vocabulary)


@dataclass
class Cache:
    """What a decoder keeps while it writes.

    ``keys`` and ``values`` hold one tensor (B, heads, capacity, d) a layer, of the tokens read;
    ``sound_keys`` and ``sound_values`` (B, heads, frames, d) are those of the encoder's output,
    made once. ``length`` is the number of tokens read.
    """

    keys: list[Tensor]
    values: list[Tensor]
    sound_keys: list[Tensor]
    sound_values: list[Tensor]
    length: int = 0


class FeedForward(nn.Module):
    """down(gelu(up x)), both with biases."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., width) to the same shape."""
        out: Tensor = self.down(F.gelu(self.up(x)))
        return out


class EncoderBlock(nn.Module):
    """Attention over the whole window and feed-forward, each after a norm."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = MultiHead(config.width, config.heads, key_bias=False)
        self.feed_norm = nn.LayerNorm(config.width)
        self.feed_forward = FeedForward(config.width, config.hidden_width)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map the stream x (B, frames, width)."""
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        mapped: Tensor = x + self.dropout(self.feed_forward(self.feed_norm(x)))
        return mapped


class DecoderBlock(nn.Module):
    """Attention to the tokens before, to the sound, and feed-forward, each after a norm."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = MultiHead(config.width, config.heads, key_bias=False)
        self.sound_norm = nn.LayerNorm(config.width)
        self.sound_attention = MultiHead(config.width, config.heads, key_bias=False)
        self.feed_norm = nn.LayerNorm(config.width)
        self.feed_forward = FeedForward(config.width, config.hidden_width)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, sound: Tensor) -> Tensor:
        """Map the stream x (B, T, width) of whole texts; ``sound`` is (B, frames, width)."""
        x = x + self.dropout(self.attention(self.attention_norm(x), causal=True))
        return self._rest(x, *self.sound_attention.keys_and_values(sound))

    def cached(self, x: Tensor, cache: Cache, layer: int) -> Tensor:
        """The same for rows x (B, T, width) that continue a cache, where they are written."""
        normed, t = self.attention_norm(x), x.shape[1]
        end = cache.length + t
        for kept, new in zip(
            (cache.keys[layer], cache.values[layer]),
            self.attention.keys_and_values(normed),
            strict=True,
        ):
            kept[:, :, cache.length : end] = new
        seen = torch.ones(t, end, dtype=torch.bool, device=x.device).tril(cache.length)
        keys, values = cache.keys[layer][:, :, :end], cache.values[layer][:, :, :end]
        x = x + self.attention.attend(normed, keys, values, seen)
        return self._rest(x, cache.sound_keys[layer], cache.sound_values[layer])

    def _rest(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        x = x + self.dropout(self.sound_attention.attend(self.sound_norm(x), keys, values))
        mapped: Tensor = x + self.dropout(self.feed_forward(self.feed_norm(x)))
        return mapped


class Encoder(nn.Module):
    """Log-mel frames (B, bands, 2 x frames) to a stream (B, frames, width)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.first = nn.Conv1d(config.bands, config.width, 3, padding=1)
        self.second = nn.Conv1d(config.width, config.width, 3, stride=2, padding=1)
        # Fixed, yet kept in checkpoints: that is how the published ones are.
        self.register_buffer("positions", sines(config.frames, config.width))
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(EncoderBlock(config) for _ in range(config.encoder_depth))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, mel: Tensor) -> Tensor:
        """The stream after the last norm.

        Raises:
            ModelwrightError: not a whole window; shorter sound is to be padded with silence.
        """
        needed = (self.config.bands, 2 * self.config.frames)
        if tuple(mel.shape[1:]) != needed:
            raise ModelwrightError(
                f"sound: log-mel frames of shape {tuple(mel.shape[1:])}, not {needed}; make them"
                " with data.speech.whisper_frames, which pads with silence"
            )
        x = F.gelu(self.second(F.gelu(self.first(mel)))).transpose(1, 2)
        x = self.dropout(x + self.get_buffer("positions").to(x.dtype))
        for block in self.blocks:
            x = block(x)
        normed: Tensor = self.norm(x)
        return normed


class Whisper(nn.Module):
    """Log-mel frames (B, bands, 2 x frames) and tokens (B, T) to logits (B, T, vocabulary)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.position_embedding = nn.Embedding(config.context, config.width)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(DecoderBlock(config) for _ in range(config.decoder_depth))
        self.norm = nn.LayerNorm(config.width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights normal of deviation 0.02, biases zero; norms start as they are."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv1d | nn.Embedding):
                nn.init.normal_(module.weight, std=DEVIATION)
            if isinstance(module, nn.Linear | nn.Conv1d) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def regions(self) -> list[nn.Module]:
        """The modules to compile, each by itself: the blocks of a stack are alike."""
        return [*self.encoder.blocks, *self.blocks]

    def new_cache(self, sound: Tensor, capacity: int | None = None) -> Cache:
        """A cache for texts of at most ``capacity`` tokens (None: the context).

        ``sound`` (B, frames, width) is what ``encoder`` made; its keys and values are made here.
        """
        c = self.config
        shape = (len(sound), c.heads, capacity or c.context, c.width // c.heads)
        both = [
            cast(DecoderBlock, block).sound_attention.keys_and_values(sound)
            for block in self.blocks
        ]
        kept = [[sound.new_zeros(shape) for _ in self.blocks] for _ in range(2)]
        return Cache(kept[0], kept[1], [k for k, _ in both], [v for _, v in both])

    def hidden(self, tokens: Tensor, sound: Tensor | Cache) -> Tensor:
        """The stream after the last norm (B, T, width) of tokens (B, T).

        ``sound`` is what ``encoder`` made of it, or a cache, which the tokens continue.

        Raises:
            ModelwrightError: more tokens than the context has positions.
        """
        cache = sound if isinstance(sound, Cache) else None
        first, t = cache.length if cache else 0, tokens.shape[1]
        if first + t > self.config.context:
            raise ModelwrightError(
                f"text: {first + t} tokens are more than model.context={self.config.context}"
            )
        x = self.embedding(tokens) + self.position_embedding.weight[first : first + t]
        x = x if cache else self.dropout(x)
        for i, block in enumerate(self.blocks):
            x = cast(DecoderBlock, block).cached(x, cache, i) if cache else block(x, sound)
        if cache:
            cache.length += t
        normed: Tensor = self.norm(x)
        return normed

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (..., vocabulary) in float32."""
        return F.linear(hidden, self.embedding.weight.to(hidden.dtype)).float()

    def forward(self, mel: Tensor, tokens: Tensor) -> Tensor:
        """Logits (B, T, vocabulary) of the token after each of ``tokens`` (B, T).

        Texts that end sooner are padded on the right with any token: no row sees what follows.
        """
        return self.head(self.hidden(tokens, self.encoder(mel)))

    @torch.no_grad()
    def greedy(self, mel: Tensor, prompt: Tensor, most: int) -> Tensor:
        """The likeliest tokens (B, at most ``most``) after ``prompt`` (B, T), one after another.

        A row that has ended goes on with ``end_token``; when all have, nothing more is written.
        """
        cache = self.new_cache(self.encoder(mel), min(prompt.shape[1] + most, self.config.context))
        read, done = prompt, torch.zeros(len(prompt), dtype=torch.bool, device=prompt.device)
        written: list[Tensor] = []
        while len(written) < most and cache.length + read.shape[1] <= cache.keys[0].shape[2]:
            best = self.head(self.hidden(read, cache)[:, -1]).argmax(-1)
            best = best.masked_fill(done, self.config.end_token)
            written.append(best)
            done |= best == self.config.end_token
            if bool(done.all()):
                break
            read = best[:, None]
        return torch.stack(written, 1) if written else prompt[:, :0]


def sines(length: int, width: int) -> Tensor:
    """Positions (length, width): sin(p r^-i), then cos, with r^(width / 2 - 1) = 10000."""
    rates = torch.exp(-math.log(SINES) / (width // 2 - 1) * torch.arange(width // 2))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), dim=1)
