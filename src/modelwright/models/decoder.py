"""A modern decoder-only Transformer for language.

Blocks x + attention(norm x), then x + feed_forward(norm x), with RMSNorm, rotary positions,
QK-norm, grouped-query attention and zero-initialised output projections, so that every block
starts as the identity (arXiv:1901.09321 explains why that trains well).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.models.attention import Attention, Cache
from modelwright.models.layers import FeedForward, RMSNorm, Rotary
from modelwright.models.likelihood import linear_cross_entropy
from modelwright.models.model import ModelConfig


@dataclass(frozen=True)
class Config(ModelConfig):
    """Shape of a decoder.

    ``hidden`` is the width of the feed-forward block (0: 4 x width for "relu2", 8/3 x width
    rounded to 64 for "gated", which has a third matrix); ``context`` is the longest sequence.
    """

    family: ClassVar[str] = "decoder"
    optimizer: ClassVar[str] = "muon"
    specimen: ClassVar[dict[str, Any]] = {
        "vocabulary": 300,
        "depth": 2,
        "width": 16,
        "heads": 4,
        "kv_heads": 2,
        "context": 512,
    }
    vocabulary: PositiveInt
    depth: PositiveInt = 6
    width: PositiveInt = 384
    heads: PositiveInt = 6
    kv_heads: PositiveInt = 3
    hidden: NonNegativeInt = 0
    context: PositiveInt = 256
    feed_forward: str = "relu2"
    tied: bool = False
    rope_base: PositiveFloat = 10_000.0
    softcap: NonNegativeFloat = 15.0

    def __post_init__(self) -> None:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ModelwrightError(
                f"model.width: {self.width} is not an even multiple of heads={self.heads}"
            )
        if self.heads % self.kv_heads:
            raise ModelwrightError(
                f"model.kv_heads: {self.kv_heads} does not divide heads={self.heads}"
            )
        if self.feed_forward not in ("gated", "relu2"):
            raise ModelwrightError(
                f"model.feed_forward: {self.feed_forward!r} is not 'gated' or 'relu2'"
            )

    @property
    def hidden_width(self) -> int:
        """The width of the feed-forward block, with the default filled in."""
        if self.hidden:
            return self.hidden
        return 4 * self.width if self.feed_forward == "relu2" else -(-8 * self.width // 192) * 64

    def build(self) -> Decoder:
        """The module with fresh parameters."""
        return Decoder(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """A text codec decides the vocabulary."""
        return {"vocabulary": codec.vocabulary}

    @classmethod
    def of_size(cls, parameters: int, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """The (depth, width) of aspect ratio near 64 whose matrices hold ``parameters``.

        Matrices only: embedding and head cost memory but decide little of the quality.
        """
        best: dict[str, Any] = {}
        error = math.inf
        # Copying from what was read takes two layers of attention (arXiv:2209.11895), one to spare;
        # 3 x 192 is the smallest shape seen here to learn it within minutes.
        for depth in range(3, 49):
            for heads in range(3, 65):
                kv_heads = heads // 2 if heads % 2 == 0 else heads
                shape = {"depth": depth, "width": 64 * heads, "heads": heads, "kv_heads": kv_heads}
                shape.update({k: v for k, v in fixed.items() if k in shape})
                if shape["width"] % (2 * shape["heads"]) or shape["heads"] % shape["kv_heads"]:
                    continue
                fields = {"vocabulary": 1, **fixed, **shape}
                size = cls(**fields).matrix_parameters()
                ratio = shape["width"] / shape["depth"]
                miss = abs(math.log(size / parameters)) + 0.3 * abs(math.log(ratio / 64))
                miss += 0.1 * abs(math.log(shape["width"] / shape["heads"] / 64))  # a given width
                if miss < error:
                    best, error = shape, miss
        return best

    def matrix_parameters(self) -> int:
        """Parameters in the blocks' matrices, without embedding and head."""
        kv = self.width // self.heads * self.kv_heads
        attention = 2 * self.width * self.width + 2 * self.width * kv
        matrices = 3 if self.feed_forward == "gated" else 2
        return self.depth * (attention + matrices * self.width * self.hidden_width)

    def flops_per_item(self) -> float:
        """FLOPs of forward and backward per token.

        6 per parameter of a matrix product, head included, and 12 * depth * width * context / 2
        for causal attention (arXiv:2204.02311, appendix B, halved for the mask).
        """
        products = self.matrix_parameters() + self.vocabulary * self.width
        return 6.0 * products + 6.0 * self.depth * self.width * self.context


class Block(nn.Module):
    """Attention and feed-forward, each after a norm and added to the stream."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width)
        self.attention = Attention(config.width, config.heads, config.kv_heads)
        self.feed_norm = RMSNorm(config.width)
        self.feed_forward = FeedForward(config.width, config.hidden_width, config.feed_forward)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        layer: tuple[Tensor, Tensor, Tensor] | None,
    ) -> Tensor:
        """Map the stream x (B, T, width)."""
        x = x + self.attention(self.attention_norm(x), rotary, layer)
        mapped: Tensor = x + self.feed_forward(self.feed_norm(x))
        return mapped


class Decoder(nn.Module):
    """Tokens (B, T) to logits (B, T, vocabulary)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.embedding_norm = RMSNorm(config.width)
        self.rotary = Rotary(config.width // config.heads, config.context, config.rope_base)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = RMSNorm(config.width)
        self.output = nn.Linear(config.width, config.vocabulary, bias=False)
        self.reset_parameters()
        if config.tied:
            self.output.weight = self.embedding.weight

    def reset_parameters(self) -> None:
        """Uniform of standard deviation 1/sqrt(fan_in); projections into the stream at zero."""
        into_stream: list[Tensor] = []
        for module in self.modules():
            if isinstance(module, nn.Linear):
                bound = math.sqrt(3.0 / module.in_features)
                nn.init.uniform_(module.weight, -bound, bound)
            if isinstance(module, Attention):
                into_stream.append(module.out.weight)
            if isinstance(module, FeedForward):
                into_stream.append(module.down.weight)
        nn.init.normal_(self.embedding.weight, std=0.02 if self.config.tied else 1.0)
        for weight in into_stream:
            nn.init.zeros_(weight)
        if not self.config.tied:
            nn.init.zeros_(self.output.weight)

    def new_cache(self, batch: int, capacity: int) -> Cache:
        """An empty cache for ``batch`` sequences of at most ``capacity`` <= context tokens."""
        c = self.config
        shape = (batch, c.kv_heads, capacity, c.width // c.heads)
        weight = self.output.weight
        keys = [weight.new_zeros(shape) for _ in range(c.depth)]
        values = [weight.new_zeros(shape) for _ in range(c.depth)]
        return Cache(keys, values, torch.zeros(batch, dtype=torch.long, device=weight.device))

    def hidden(
        self, tokens: Tensor, cache: Cache | None = None, counts: Tensor | None = None
    ) -> Tensor:
        """The stream after the last norm, (B, T, width); see ``forward``."""
        b, t = tokens.shape
        start = cache.lengths if cache else torch.zeros(b, dtype=torch.long, device=tokens.device)
        positions = start[:, None] + torch.arange(t, device=tokens.device)
        rows = positions if cache else positions[:1]  # without a cache all rows start at 0
        rotary = self.rotary.tables(rows)
        x = self.embedding_norm(self.embedding(tokens))
        for i, block in enumerate(self.blocks):
            layer = (cache.keys[i], cache.values[i], positions) if cache else None
            x = block(x, rotary, layer)
        if cache is not None:
            cache.lengths = cache.lengths + (t if counts is None else counts)
        normed: Tensor = self.norm(x)
        return normed

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (..., vocabulary) in float32, capped: c * tanh(z / c) (arXiv:2408.00118)."""
        logits = self.output(hidden).float()
        cap = self.config.softcap
        return cap * torch.tanh(logits / cap) if cap else logits

    def negative_log_likelihood(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Sum over rows of -log p(target), in nats, for hidden (n, width) and targets (n,)."""
        return linear_cross_entropy(hidden, self.output.weight, targets, self.config.softcap)

    def forward(
        self, tokens: Tensor, cache: Cache | None = None, counts: Tensor | None = None
    ) -> Tensor:
        """Logits (B, T, vocabulary) for tokens (B, T), T <= context.

        With a cache the tokens continue its rows; ``counts`` (B,) says how many of the T tokens
        of each row are real when rows are padded on the right (the padding is overwritten by
        what follows and never seen).
        """
        return self.head(self.hidden(tokens, cache, counts))
