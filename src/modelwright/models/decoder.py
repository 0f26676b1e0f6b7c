"""A modern decoder-only Transformer for language.

Blocks x + attention(norm x), then x + feed_forward(norm x), with RMSNorm, rotary positions,
QK-norm, grouped-query attention and zero-initialised output projections, so that every block
starts as the identity (arXiv:1901.09321 explains why that trains well).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.kernels.attention import any_number
from modelwright.kernels.elementwise import mix
from modelwright.models import reading
from modelwright.models.attention import Attention, Cache, positions_in
from modelwright.models.causal import LanguageModel, advance, halved
from modelwright.models.layers import FeedForward, RMSNorm, Rotary, pair_rows
from modelwright.models.model import ModelConfig
from modelwright.models.rope import YARN, Rope, stretched
from modelwright.models.slices import Slice
from modelwright.models.steps import Steps


@dataclass(frozen=True)
class Config(ModelConfig):
    """Shape of a decoder.

    ``hidden`` is the width of the feed-forward block (0: 4 x width for "relu2", 8/3 x width
    rounded to 64 for "gated", which has a third matrix); ``context`` is the longest sequence;
    ``kv_heads`` is the number of heads of keys and values (0: half of ``heads``, all where odd).
    Three options add what a token alone knows, without products: ``value_embeddings`` a table of
    values to every second layer, ``shortcuts`` the embedding, scaled, to the stream before every
    layer, ``bigrams`` (a number of rows, 0: none) a table for the hashed pair of the token and
    the one before it. ``rope_scaling`` ("none", "linear", "yarn"), ``rope_factor`` and
    ``rope_context`` are those of ``models/rope.py``, of a context stretched after training.
    """

    family: ClassVar[str] = "decoder"
    inputs = reading.texts
    optimizer: ClassVar[str] = "muon"
    compiles: ClassVar[bool] = True
    fused: ClassVar[float] = 1.05
    specimen: ClassVar[dict[str, Any]] = {
        "vocabulary": 300,
        "depth": 2,
        "width": 16,
        "heads": 4,
        "kv_heads": 2,
        "context": 512,
        "value_embeddings": True,
        "shortcuts": True,
        "bigrams": 64,
    }
    vocabulary: PositiveInt
    depth: PositiveInt = 6
    width: PositiveInt = 384
    heads: PositiveInt = 6
    kv_heads: NonNegativeInt = 0
    hidden: NonNegativeInt = 0
    context: PositiveInt = 256
    feed_forward: str = "relu2"
    tied: bool = False
    rope_base: PositiveFloat = 10_000.0
    rope_scaling: str = "none"
    rope_factor: PositiveFloat = 1.0
    rope_context: NonNegativeInt = 0
    softcap: NonNegativeFloat = 15.0
    value_embeddings: bool = False
    shortcuts: bool = False
    bigrams: NonNegativeInt = 0

    def __post_init__(self) -> None:
        if not self.kv_heads:
            object.__setattr__(self, "kv_heads", halved(self.heads))
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ModelwrightError(
                f"model.width: {self.width} is not an even multiple of heads={self.heads}"
            )
        if self.heads % self.kv_heads:
            raise ModelwrightError(
                f"model.kv_heads: {self.kv_heads} does not divide heads={self.heads}"
            )
        if self.rope_scaling not in ("none", "linear", "yarn"):
            raise ModelwrightError(
                f"model.rope_scaling: {self.rope_scaling!r} is not 'none', 'linear' or 'yarn'"
            )
        if self.rope_scaling == "yarn" and not self.rope_context:
            raise ModelwrightError(
                "model.rope_scaling: 'yarn' needs rope_context, the context that was trained on"
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

    @property
    def rope(self) -> Rope | None:
        """The stretched frequencies; None where they are plain."""
        if self.rope_scaling == "none":
            return None
        width = self.width // self.heads
        scaling = (self.rope_scaling, self.rope_factor, self.rope_context)
        return Rope(width, self.rope_base, *scaling, *YARN)

    def stretched(self, context: int, kind: str) -> dict[str, Any]:
        """See ``models.rope.stretched``; what is stretched already is not stretched again."""
        if self.rope_scaling != "none":
            raise ModelwrightError(
                f"context: the model's positions are stretched already ({self.rope_scaling}); "
                "begin again with the one before"
            )
        width = self.width // self.heads
        return stretched(kind, base=self.rope_base, width=width, old=self.context, new=context)

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
                shape = {"depth": depth, "width": 64 * heads, "heads": heads}
                shape.update({k: v for k, v in fixed.items() if k in shape})
                shape["kv_heads"] = fixed.get("kv_heads") or halved(shape["heads"])
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

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:
        """FLOPs of forward and backward per token.

        6 per parameter of a matrix product, those of the head only for the ``learned`` share of
        tokens, and 12 * depth * width * length / 2 for causal attention in rows of ``length``
        tokens (arXiv:2204.02311, appendix B, halved for the mask).
        """
        products = self.matrix_parameters() + learned * self.vocabulary * self.width
        seen = self.context if length is None else min(length, self.context)
        return 6.0 * products + 6.0 * self.depth * self.width * seen


class Block(nn.Module):
    """Attention and feed-forward, each after a norm and added to the stream."""

    def __init__(self, config: Config, *, mixing: bool) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width, feeds_product=True)
        self.attention = Attention(config.width, config.heads, config.kv_heads, mixing=mixing)
        self.feed_norm = RMSNorm(config.width, feeds_product=True)
        self.feed_forward = FeedForward(config.width, config.hidden_width, config.feed_forward)
        self.scales = nn.Parameter(torch.tensor([1.0, 0.0])) if config.shortcuts else None

    def forward(
        self,
        x: Tensor,
        first: Tensor,
        rotary: tuple[Tensor, Tensor],
        extra: Tensor | None,
        starts: Tensor | Slice,
    ) -> Tensor:
        """Map the stream x (N, width) of packed documents; see ``Attention.forward``.

        ``first`` (N, width) is the stream before the first block.
        """
        x = self._joined(x, first)
        x = x + self.attention(self.attention_norm(x), rotary, extra, starts)
        mapped: Tensor = x + self.feed_forward(self.feed_norm(x))
        return mapped

    def cached(
        self,
        x: Tensor,
        first: Tensor,
        rotary: tuple[Tensor, Tensor],
        extra: Tensor | None,
        layer: tuple[Tensor, Tensor, Tensor],
    ) -> Tensor:
        """The same for rows x (B, T, width) that continue a cache."""
        x = self._joined(x, first)
        x = x + self.attention.cached(self.attention_norm(x), rotary, extra, layer)
        mapped: Tensor = x + self.feed_forward(self.feed_norm(x))
        return mapped

    def write(self, steps: Steps, extra: Tensor | None) -> None:
        """``cached`` for one token a row; see ``models.steps``."""
        a, f = self.attention, self.feed_forward
        if self.scales is not None:
            steps.mix(self.scales, steps.stream, steps.first, steps.stream)
        steps.norm(self.attention_norm)
        q, k, v = (steps.project(m) for m in (a.query, a.key, a.value))
        if a.value_mix is not None and extra is not None:
            steps.mix(a.value_mix, v, extra, v)
        steps.attend(q, k, v, a, norms=(a.query_norm, a.key_norm))
        steps.project(a.out, onto=steps.stream)
        steps.norm(self.feed_norm)
        if f.gate is None:
            steps.gate("relu2", steps.project(f.up))
        else:
            gate, up = steps.project(f.gate), steps.project(f.up)
            steps.gate("silu", gate, up)
        steps.project(f.down, onto=steps.stream)

    def _joined(self, x: Tensor, first: Tensor) -> Tensor:
        return x if self.scales is None else mix(self.scales, x, first)


class Decoder(LanguageModel):
    """Tokens (B, T) to logits (B, T, vocabulary)."""

    sliceable: ClassVar[bool] = True  # several processes may each hold some positions of a text

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.recompute = False
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        if config.bigrams:
            self.bigram_embedding = nn.Embedding(config.bigrams, config.width)
        self.embedding_norm = RMSNorm(config.width)
        self.rotary = Rotary(
            config.width // config.heads, config.context, config.rope_base, config.rope
        )
        mixing = [config.value_embeddings and i % 2 == 1 for i in range(config.depth)]
        kv_width = config.width // config.heads * config.kv_heads
        self.value_embeddings = nn.ModuleDict(
            {str(i): nn.Embedding(config.vocabulary, kv_width) for i, m in enumerate(mixing) if m}
        )
        self.blocks = nn.ModuleList(Block(config, mixing=m) for m in mixing)
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
        for table in self.value_embeddings.values():
            nn.init.normal_(cast(nn.Embedding, table).weight, std=1.0)
        if self.config.bigrams:
            nn.init.zeros_(self.bigram_embedding.weight)
        for weight in into_stream:
            nn.init.zeros_(weight)
        if not self.config.tied:
            nn.init.zeros_(self.output.weight)

    def regions(self) -> list[nn.Module]:
        """The modules to compile, each by itself: the blocks are alike, so one is compiled."""
        return [self.embedding_norm, *self.blocks, self.norm]

    @property
    def head_weight(self) -> Tensor:
        """The matrix (vocabulary, width) that makes logits of the stream."""
        return self.output.weight

    def hidden(
        self,
        tokens: Tensor,
        cache: Cache | None = None,
        counts: Tensor | None = None,
        starts: Tensor | Slice | None = None,
    ) -> Tensor:
        """The stream after the last norm, (B, T, width); see ``forward``.

        With a slice as ``starts`` the tokens (1, n) are some of a longer stream's: collective.
        """
        if cache is not None:
            return self._continued(tokens, cache, counts)
        b, t = tokens.shape
        rows = tokens.flatten()
        if starts is None:
            starts = torch.arange(0, b * t + 1, t, device=tokens.device)
        if isinstance(starts, Slice):
            positions, before = starts.positions, starts.before
        else:
            positions = positions_in(starts, b * t)
            before = rows.roll(1).masked_fill(positions == 0, -1)
            starts = any_number(starts)
        rotary = self.rotary.tables(positions)
        first = x = self._embedded(rows, before)
        for i, block in enumerate(self.blocks):
            x = self.run(block, x, first, rotary, self._extra(i, rows), starts)
        normed: Tensor = self.norm(x)
        return normed.view(b, t, -1)

    def _continued(self, tokens: Tensor, cache: Cache, counts: Tensor | None) -> Tensor:
        positions = cache.lengths[:, None] + torch.arange(tokens.shape[1], device=tokens.device)
        rotary = self.rotary.tables(positions)
        before = torch.cat((cache.previous[:, None], tokens[:, :-1]), dim=1)
        first = x = self._embedded(tokens, before)
        extras = [self._extra(i, tokens) for i in range(len(self.blocks))]
        stepped = self.stepped(x, cache, [rotary] * len(self.blocks), extras)
        for i, block in enumerate(self.blocks if stepped is None else ()):
            layer = (cache.keys[i], cache.values[i], positions)
            x = cast(Block, block).cached(x, first, rotary, extras[i], layer)
        x = x if stepped is None else stepped
        advance(cache, tokens, counts)
        normed: Tensor = self.norm(x)
        return normed

    def _embedded(self, tokens: Tensor, before: Tensor) -> Tensor:
        """The stream (..., width) of tokens (...); ``before`` are those before them, or -1."""
        x = self.embedding(tokens)
        if self.config.bigrams:
            x = x + self.bigram_embedding(pair_rows(tokens, before, self.config.bigrams))
        embedded: Tensor = self.embedding_norm(x)
        return embedded

    def _extra(self, layer: int, tokens: Tensor) -> Tensor | None:
        name = str(layer)
        return self.value_embeddings[name](tokens) if name in self.value_embeddings else None

    def scores(self, hidden: Tensor) -> Tensor:
        """Logits before the cap: by the module, which several processes may have cut."""
        logits: Tensor = self.output(hidden)
        return logits

    def tensor_plan(self, size: int) -> tuple[dict[str, Any], tuple[str, ...]]:
        """How ``size`` processes share every block: whole heads and columns of the feed-forward.

        Queries, keys, values and the first matrices are cut by columns, what maps back into the
        stream by rows, so that a block has two exchanges (arXiv:1909.08053). Embedding, head and
        norms are whole everywhere.

        Returns:
            A style for each module to cut, by a pattern of names; and the ends of the names of
            whole parameters whose gradient is a sum over the processes, since each has its heads.

        Raises:
            ModelwrightError: the heads or columns do not divide by ``size``.
        """
        from torch.distributed.tensor.parallel import (  # noqa: PLC0415 - one process does without
            ColwiseParallel,
            RowwiseParallel,
        )

        c = self.config
        for name, number in (("kv_heads", c.kv_heads), ("hidden", c.hidden_width)):
            if number % size:
                raise ModelwrightError(
                    f"parallel.tensor: model.{name} = {number} does not divide by {size}"
                )
        columns = ("attention.query", "attention.key", "attention.value", "feed_forward.up")
        plan: dict[str, Any] = {f"blocks.*.{name}": ColwiseParallel() for name in columns}
        if c.feed_forward == "gated":
            plan["blocks.*.feed_forward.gate"] = ColwiseParallel()
        for name in ("attention.out", "feed_forward.down"):
            plan[f"blocks.*.{name}"] = RowwiseParallel()
        if len(self.value_embeddings):
            plan["value_embeddings.*"] = ColwiseParallel()
        return plan, ("query_norm.gain", "key_norm.gain", "value_mix")
