"""BART (arXiv:1910.13461) and Marian (arXiv:1804.00344): encoder-decoders with positions.

The Transformer of arXiv:1706.03762 with GELU or the like: norms stand after the sums,
norm(x + f(x)), every matrix has a bias, one embedding serves sources, targets and head. BART
learns its positions and normalises what is embedded; Marian's positions are sines. With
``norm_first`` (mBART, arXiv:2001.08210) norms stand before the parts and after the last layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.kernels.dropout import Dropout
from modelwright.models.encoder_decoder import EncoderDecoder, Layer, PairConfig
from modelwright.models.likelihood import smoothed_cross_entropy
from modelwright.models.packed import MultiHead, TwoLayers, normal_start, sum_of_costs

FIRST = 2  # row of the table of learned positions that the first token takes


@dataclass(frozen=True)
class Config(PairConfig):
    """Shape of a BART.

    ``depth``, ``heads`` and ``hidden`` (0: 4 x width) are the encoder's; ``decoder_depth``,
    ``decoder_heads`` and ``decoder_hidden`` the decoder's (0: as the encoder's). ``positions``
    are "learned" or "sines"; ``embedding_norm`` normalises what is embedded; with
    ``scaled_embedding`` embeddings are multiplied by sqrt(width). ``context`` is the longest
    source or target. ``dropout`` after embedding and parts, ``hidden_dropout`` inside the
    feed-forward, ``attention_dropout`` of the weights; ``output_bias`` is a constant that the
    head adds, as published checkpoints have. ``start``, ``end`` and ``padding`` are
    tokens: what a target begins and ends with, and what fills rows elsewhere.
    """

    family: ClassVar[str] = "bart"
    specimen: ClassVar[dict[str, Any]] = {
        "vocabulary": 300,
        "depth": 2,
        "width": 16,
        "heads": 2,
        "dropout": 0.0,
    }
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "bart-base": {"depth": 6, "width": 768, "heads": 12},
        "bart-large": {"depth": 12, "width": 1024, "heads": 16},
        "marian-base": {
            "depth": 6,
            "width": 512,
            "heads": 8,
            "context": 512,
            "activation": "silu",
            "positions": "sines",
            "embedding_norm": False,
            "scaled_embedding": True,
        },
    }
    vocabulary: PositiveInt
    depth: PositiveInt = 6
    decoder_depth: NonNegativeInt = 0
    width: PositiveInt = 768
    heads: PositiveInt = 12
    decoder_heads: NonNegativeInt = 0
    hidden: NonNegativeInt = 0
    decoder_hidden: NonNegativeInt = 0
    context: PositiveInt = 1024
    positions: str = "learned"
    embedding_norm: bool = True
    scaled_embedding: bool = False
    norm_first: bool = False
    activation: str = "gelu"
    tied: bool = True
    output_bias: bool = True
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    hidden_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    start: NonNegativeInt = 2
    end: NonNegativeInt = 2
    padding: NonNegativeInt = 1

    def __post_init__(self) -> None:
        for name, heads in (("heads", self.heads), ("decoder_heads", self.side(decoding=True)[1])):
            if self.width % heads:
                raise ModelwrightError(
                    f"model.width: {self.width} is not a multiple of {name}={heads}"
                )
        if self.positions not in ("learned", "sines"):
            raise ModelwrightError(
                f"model.positions: {self.positions!r} is not 'learned' or 'sines'"
            )
        if self.positions == "sines" and self.width % 2:
            raise ModelwrightError(f"model.width: {self.width} is odd, sines need an even one")

    def side(self, *, decoding: bool) -> tuple[int, int, int]:
        """Depth, heads and feed-forward width of the encoder or the decoder."""
        hidden = self.hidden or 4 * self.width
        if not decoding:
            return self.depth, self.heads, hidden
        return (
            self.decoder_depth or self.depth,
            self.decoder_heads or self.heads,
            self.decoder_hidden or hidden,
        )

    def build(self) -> Bart:
        """The module with fresh parameters."""
        return Bart(self)

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:
        """FLOPs of forward and backward for a token of a source and one of a target together.

        6 for every parameter of the matrices, and 12 x width x what is seen for the two products
        of attention, half of it where it is causal.
        """
        (depth, _, hidden), (decoder_depth, _, decoder_hidden) = (
            self.side(decoding=d) for d in (False, True)
        )
        square = self.width * self.width
        both = depth * (4 * square + 2 * self.width * hidden)
        both += decoder_depth * (8 * square + 2 * self.width * decoder_hidden)
        seen = self.context if length is None else min(length, self.context)
        products = (depth + 1.5 * decoder_depth) * self.width * seen
        return 6.0 * (both + learned * self.width * self.vocabulary) + 12.0 * products


class Sines(nn.Module):
    """Positions as sines, then cosines, of p / 10000^(2i/width), i = 0 .. width/2 - 1."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        rates = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
        angles = torch.outer(torch.arange(length, dtype=torch.float64), rates)
        table = torch.cat((angles.sin(), angles.cos()), dim=1).float()
        self.register_buffer("table", table, persistent=False)

    def forward(self, positions: Tensor) -> Tensor:
        """Vectors (..., width) of positions (...)."""
        found: Tensor = self.get_buffer("table")[positions]
        return found


class Bart(EncoderDecoder):
    """Sources (M,) and targets (B, T) to logits (B, T, vocabulary)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = self.config = config
        self.embedding = nn.Embedding(c.vocabulary, c.width)
        self.dropout = Dropout(c.dropout)
        self.encoder_positions = _positions(c)
        self.decoder_positions = _positions(c)
        self.encoder_embedding_norm, self.decoder_embedding_norm = (
            nn.LayerNorm(c.width) if c.embedding_norm else nn.Identity() for _ in range(2)
        )
        self.encoder_layers, self.decoder_layers = (
            nn.ModuleList(_layer(c, decoding=d) for _ in range(c.side(decoding=d)[0]))
            for d in (False, True)
        )
        self.encoder_norm, self.decoder_norm = (
            nn.LayerNorm(c.width) if c.norm_first else nn.Identity() for _ in range(2)
        )
        self.output = None if c.tied else nn.Linear(c.width, c.vocabulary, bias=False)
        # Not trained: published checkpoints have it, nearly always zero.
        self.register_buffer("output_bias", torch.zeros(c.vocabulary) if c.output_bias else None)
        normal_start(self)

    def embedded(self, tokens: Tensor, positions: Tensor, *, decoding: bool) -> Tensor:
        """The stream (..., width) of tokens (...) at their positions in their documents."""
        x = self.embedding(tokens)
        if self.config.scaled_embedding:
            x = x * math.sqrt(self.config.width)
        if self.config.positions == "learned":
            positions = positions + FIRST
        x = x + (self.decoder_positions if decoding else self.encoder_positions)(positions)
        norm = self.decoder_embedding_norm if decoding else self.encoder_embedding_norm
        thinned: Tensor = self.dropout(norm(x))
        return thinned

    def ended(self, x: Tensor, *, decoding: bool) -> Tensor:
        """The stream after the last norm, where there is one."""
        ended: Tensor = (self.decoder_norm if decoding else self.encoder_norm)(x)
        return ended

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (..., vocabulary) in float32."""
        weight = self.embedding.weight if self.output is None else self.output.weight
        logits = F.linear(hidden, weight.to(hidden.dtype)).float()
        return logits + self.get_buffer("output_bias") if self.config.output_bias else logits

    def negative_log_likelihood(
        self, hidden: Tensor, targets: Tensor, smoothing: float = 0.0
    ) -> Tensor:
        """Sum over rows of -log p(target), in nats, for hidden (n, width) and targets (n,).

        ``smoothing`` is the share of the target's probability spread over the vocabulary.
        """
        if self.config.output_bias:
            return sum_of_costs(self.head, hidden, targets, smoothing)
        weight = self.embedding.weight if self.output is None else self.output.weight
        return smoothed_cross_entropy(hidden, weight, targets, smoothing)


def _positions(c: Config) -> nn.Module:
    if c.positions == "sines":
        return Sines(c.context, c.width)
    return nn.Embedding(c.context + FIRST, c.width)


def _layer(c: Config, *, decoding: bool) -> Layer:
    _, heads, hidden = c.side(decoding=decoding)

    def attention() -> MultiHead:
        return MultiHead(c.width, heads, dropout=c.attention_dropout)

    return Layer(
        lambda: nn.LayerNorm(c.width),
        attention(),
        attention() if decoding else None,
        TwoLayers(c.width, hidden, c.activation, dropout=c.hidden_dropout),
        first=c.norm_first,
        dropout=c.dropout,
    )
