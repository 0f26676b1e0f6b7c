"""T5 (arXiv:1910.10683) and T5 v1.1: an encoder-decoder that knows distances, not positions.

Blocks x + attention(norm x), then x + feed_forward(norm x), with RMSNorm and no biases. The
products of attention are not scaled; to each is added a learned number for its head and the
bucket of the distance: one bucket for each small distance, then buckets that grow with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from modelwright.kernels.dropout import Dropout
from modelwright.models.encoder_decoder import EncoderDecoder, Layer, PairConfig
from modelwright.models.layers import RMSNorm
from modelwright.models.likelihood import smoothed_cross_entropy
from modelwright.models.packed import MultiHead, TwoLayers


@dataclass(frozen=True)
class Config(PairConfig):
    """Shape of a T5.

    ``depth`` layers of the encoder and ``decoder_depth`` of the decoder (0: as many);
    ``head_width`` (0: width / heads); ``hidden`` the width of the feed-forward block (0:
    4 x width), ``gated`` with a third matrix (v1.1). ``buckets`` of distances, the last from
    ``distance`` on. ``tied``: the head is the embedding; ``scaled``: its input is divided by
    sqrt(width). ``context`` is the longest source or target that is expected. ``start``, ``end``
    and ``padding`` are tokens: what a target begins and ends with, and what fills rows elsewhere.
    """

    family: ClassVar[str] = "t5"
    specimen: ClassVar[dict[str, Any]] = {
        "vocabulary": 300,
        "depth": 2,
        "width": 16,
        "heads": 2,
        "dropout": 0.0,
    }
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "t5-small": {"depth": 6, "width": 512, "heads": 8, "hidden": 2048},
        "t5-base": {"depth": 12, "width": 768, "heads": 12, "hidden": 3072},
        "t5-large": {"depth": 24, "width": 1024, "heads": 16, "hidden": 4096},
        "t5-v1_1-small": {
            "depth": 8,
            "width": 512,
            "heads": 6,
            "head_width": 64,
            "hidden": 1024,
            "gated": True,
            "activation": "gelu_tanh",
            "tied": False,
            "scaled": False,
        },
        "t5-v1_1-base": {
            "depth": 12,
            "width": 768,
            "heads": 12,
            "hidden": 2048,
            "gated": True,
            "activation": "gelu_tanh",
            "tied": False,
            "scaled": False,
        },
    }
    vocabulary: PositiveInt
    depth: PositiveInt = 6
    decoder_depth: NonNegativeInt = 0
    width: PositiveInt = 512
    heads: PositiveInt = 8
    head_width: NonNegativeInt = 0
    hidden: NonNegativeInt = 0
    context: PositiveInt = 512
    gated: bool = False
    activation: str = "relu"
    buckets: PositiveInt = 32
    distance: PositiveInt = 128
    tied: bool = True
    scaled: bool = True
    eps: PositiveFloat = 1e-6
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    start: NonNegativeInt = 0
    end: NonNegativeInt = 1
    padding: NonNegativeInt = 0

    @property
    def hidden_width(self) -> int:
        """The width of the feed-forward block, with the default filled in."""
        return self.hidden or 4 * self.width

    @property
    def inner_width(self) -> int:
        """The width of a head, with the default filled in."""
        return self.head_width or max(1, self.width // self.heads)

    @property
    def decoder_layers(self) -> int:
        """How many layers the decoder has, with the default filled in."""
        return self.decoder_depth or self.depth

    def build(self) -> T5:
        """The module with fresh parameters."""
        return T5(self)

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:
        """FLOPs of forward and backward for a token of a source and one of a target together.

        6 for every parameter of the matrices, and 12 x inner width x what is seen for the two
        products of attention, half of it where it is causal.
        """
        inner = self.heads * self.inner_width
        feed = (3 if self.gated else 2) * self.width * self.hidden_width
        attention = 4 * self.width * inner
        both = self.depth * (attention + feed) + self.decoder_layers * (2 * attention + feed)
        seen = self.context if length is None else min(length, self.context)
        products = (self.depth + 1.5 * self.decoder_layers) * inner * seen
        return 6.0 * (both + learned * self.width * self.vocabulary) + 12.0 * products


class Distances(nn.Module):
    """A learned number for every head and bucket of distances."""

    def __init__(self, buckets: int, heads: int, furthest: int, *, both: bool) -> None:
        super().__init__()
        self.table_embedding = nn.Embedding(buckets, heads)
        self.buckets, self.furthest, self.both = buckets, furthest, both

    def bucket(self, offset: Tensor) -> Tensor:
        """The bucket of offset = position of the key - position of the query.

        In one direction: half of the buckets for distances below their number, the others for
        distances up to ``furthest``, on a scale of logarithms. Looking to ``both`` sides, each
        side has half of them.
        """
        buckets = self.buckets // 2 if self.both else self.buckets
        side = (offset > 0).long() * buckets if self.both else 0
        distance = offset.abs() if self.both else (-offset).clamp(min=0)
        exact = buckets // 2
        growth = torch.log(distance.clamp(min=1).float() / exact) / math.log(self.furthest / exact)
        far = (exact + (growth * (buckets - exact)).long()).clamp(max=buckets - 1)
        return side + torch.where(distance < exact, distance, far)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """What is added: (..., heads, T, S) for positions (..., T) and (..., S)."""
        offset = keys[..., None, :] - queries[..., None]
        numbers: Tensor = self.table_embedding(self.bucket(offset))
        return numbers.movedim(-1, -3)


class T5(EncoderDecoder):
    """Sources (M,) and targets (B, T) to logits (B, T, vocabulary)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = self.config = config
        self.embedding = nn.Embedding(c.vocabulary, c.width)
        self.dropout = Dropout(c.dropout)
        self.encoder_distances = Distances(c.buckets, c.heads, c.distance, both=True)
        self.decoder_distances = Distances(c.buckets, c.heads, c.distance, both=False)
        self.encoder_layers = nn.ModuleList(_layer(c, decoding=False) for _ in range(c.depth))
        self.decoder_layers = nn.ModuleList(
            _layer(c, decoding=True) for _ in range(c.decoder_layers)
        )
        self.encoder_norm = RMSNorm(c.width, c.eps)
        self.decoder_norm = RMSNorm(c.width, c.eps)
        self.output = None if c.tied else nn.Linear(c.width, c.vocabulary, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Matrices by the width they read; queries smaller, since products are not scaled."""
        c = self.config
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
            if isinstance(module, MultiHead):
                nn.init.normal_(module.query.weight, std=(c.width * c.inner_width) ** -0.5)
            if isinstance(module, Distances):
                nn.init.normal_(module.table_embedding.weight, std=c.width**-0.5)
        nn.init.normal_(self.embedding.weight, std=1.0)

    def embedded(self, tokens: Tensor, positions: Tensor, *, decoding: bool) -> Tensor:  # noqa: ARG002
        """The stream (..., width) of tokens (...)."""
        x: Tensor = self.dropout(self.embedding(tokens))
        return x

    def ended(self, x: Tensor, *, decoding: bool) -> Tensor:
        """The stream after the last norm; of the decoder, scaled for the head."""
        x = self.dropout((self.decoder_norm if decoding else self.encoder_norm)(x))
        return x * self.config.width**-0.5 if decoding and self.config.scaled else x

    def document_bias(self, longest: int, *, decoding: bool) -> Tensor:
        """The numbers of distances in a document; what comes later is hidden from a decoder."""
        distances = self.decoder_distances if decoding else self.encoder_distances
        positions = torch.arange(longest, device=self.embedding.weight.device)
        bias: Tensor = distances(positions, positions)
        return bias.masked_fill(positions > positions[:, None], -torch.inf) if decoding else bias

    def cached_bias(self, positions: Tensor, span: int) -> Tensor:
        """The numbers of distances from positions (B, T) to keys 0 .. span - 1."""
        keys = torch.arange(span, device=positions.device).expand(len(positions), span)
        bias: Tensor = self.decoder_distances(positions, keys)
        return bias

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (..., vocabulary) in float32."""
        weight = self.embedding.weight if self.output is None else self.output.weight
        return F.linear(hidden, weight.to(hidden.dtype)).float()

    def negative_log_likelihood(
        self, hidden: Tensor, targets: Tensor, smoothing: float = 0.0
    ) -> Tensor:
        """Sum over rows of -log p(target), in nats, for hidden (n, width) and targets (n,).

        ``smoothing`` is the share of the target's probability spread over the vocabulary.
        """
        weight = self.embedding.weight if self.output is None else self.output.weight
        return smoothed_cross_entropy(hidden, weight, targets, smoothing)


def _layer(c: Config, *, decoding: bool) -> Layer:
    def heads() -> MultiHead:
        return MultiHead(
            c.width, c.heads, head_width=c.inner_width, bias=False, scale=1.0, dropout=c.dropout
        )

    feed_forward = TwoLayers(
        c.width, c.hidden_width, c.activation, gated=c.gated, bias=False, dropout=c.dropout
    )
    return Layer(
        lambda: RMSNorm(c.width, c.eps),
        heads(),
        heads() if decoding else None,
        feed_forward,
        first=True,
        dropout=c.dropout,
    )
