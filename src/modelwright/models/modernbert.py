"""ModernBERT (arXiv:2412.13663): a bidirectional encoder built as decoders are today.

Blocks x + attention(norm x), then x + feed_forward(norm x), with rotary positions, gated GELU
and no biases. Every third layer sees its whole document, the others a window around each token,
so that long documents cost little more than their length. Documents stand one after another
(packed), so nothing is padded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, cast

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.kernels.attention import any_number
from modelwright.kernels.dropout import Dropout
from modelwright.kernels.elementwise import rotate
from modelwright.models import reading
from modelwright.models.activations import activation
from modelwright.models.attention import first_rows, mean_rows, positions_in
from modelwright.models.layers import Rotary
from modelwright.models.model import ModelConfig
from modelwright.models.packed import (
    TwoLayers,
    attend,
    encoder_fields,
    equal_starts,
    near_size,
    normal_start,
    sum_of_costs,
)

HEADS = ("classification", "masked_language", "tokens", "span", "none")


@dataclass(frozen=True)
class Config(ModelConfig):
    """Shape of a ModernBERT.

    ``head`` as of BERT: "classification", "masked_language", "tokens", "span" or "none".
    ``hidden`` is the width of the gated feed-forward block (0: 3/2 x width); layer i sees the
    whole document where i is a multiple of ``every``, else ``window`` tokens on both sides;
    ``rope_base`` and ``rope_base_local`` are the bases of the two kinds of layers. ``bias`` gives
    the blocks' matrices biases, ``norm_bias`` the norms, ``head_bias`` the head's first matrix.
    ``pooling`` is what a document's class is read from: the "first" token or the "mean".
    """

    family: ClassVar[str] = "modernbert"
    inputs = reading.texts
    compiles: ClassVar[bool] = True
    specimen: ClassVar[dict[str, Any]] = {
        "vocabulary": 300,
        "classes": 3,
        "depth": 2,
        "width": 16,
        "heads": 2,
        "context": 512,
        "window": 2,
        "dropout": 0.0,
    }
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "modernbert-base": {"depth": 22, "width": 768, "heads": 12, "hidden": 1152},
        "modernbert-large": {"depth": 28, "width": 1024, "heads": 16, "hidden": 2624},
    }
    vocabulary: PositiveInt
    head: str = "classification"
    classes: PositiveInt = 2
    depth: PositiveInt = 22
    width: PositiveInt = 768
    heads: PositiveInt = 12
    hidden: NonNegativeInt = 0
    context: PositiveInt = 8192
    every: PositiveInt = 3
    window: PositiveInt = 64
    rope_base: PositiveFloat = 160_000.0
    rope_base_local: PositiveFloat = 10_000.0
    activation: str = "gelu"
    head_activation: str = "gelu"
    pooling: str = "first"
    eps: PositiveFloat = 1e-5
    bias: bool = False
    norm_bias: bool = False
    head_bias: bool = False
    output_bias: bool = True
    tied: bool = True
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    embedding_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    head_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def __post_init__(self) -> None:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ModelwrightError(
                f"model.width: {self.width} is not an even multiple of heads={self.heads}"
            )
        if self.head not in HEADS:
            raise ModelwrightError(f"model.head: {self.head!r} is not one of {', '.join(HEADS)}")
        if self.pooling not in ("first", "mean"):
            raise ModelwrightError(f"model.pooling: {self.pooling!r} is not 'first' or 'mean'")

    @property
    def hidden_width(self) -> int:
        """The width of the feed-forward block, with the default filled in."""
        return self.hidden or -(-3 * self.width // 2)

    def sees_all(self, layer: int) -> bool:
        """Whether a layer sees the whole document."""
        return layer % self.every == 0

    def build(self) -> ModernBert:
        """The module with fresh parameters."""
        return ModernBert(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """See ``encoder_fields``."""
        return encoder_fields(codec)

    @classmethod
    def of_size(cls, parameters: int, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Depth, width and heads whose matrices hold about ``parameters``."""
        hidden = int(fixed.get("hidden", 0))
        return near_size(
            parameters, fixed, lambda d, w: d * (4 * w * w + 3 * w * (hidden or 3 * w // 2))
        )

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:
        """FLOPs of forward and backward per token; ``learned`` is the share the head reads.

        6 for every parameter of the matrices, and 12 x width x what a layer sees of the document
        for the two products of its attention.
        """
        block = 4 * self.width * self.width + 3 * self.width * self.hidden_width
        outputs = {"masked_language": self.vocabulary, "span": 2, "none": 0}
        head = self.width * outputs.get(self.head, self.classes)
        if self.head != "none":
            head += self.width * self.width
        whole = self.context if length is None else min(length, self.context)
        far = sum(self.sees_all(i) for i in range(self.depth))
        seen = far * whole + (self.depth - far) * min(whole, 2 * self.window + 1)
        return 6.0 * (self.depth * block + learned * head) + 12.0 * self.width * seen


class Attention(nn.Module):
    """Attention with rotary positions, over the whole document or a window of it."""

    def __init__(self, config: Config, window: int) -> None:
        super().__init__()
        c = config
        self.heads, self.window, self.thinned = c.heads, window, c.attention_dropout
        self.query = nn.Linear(c.width, c.width, bias=c.bias)
        self.key = nn.Linear(c.width, c.width, bias=c.bias)
        self.value = nn.Linear(c.width, c.width, bias=c.bias)
        self.out = nn.Linear(c.width, c.width, bias=c.bias)
        self.dropout = Dropout(c.attention_dropout)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], starts: Tensor) -> Tensor:
        """Attend within the documents of the rows x (N, width)."""
        q, k, v = (
            m(x).view(x.shape[0], self.heads, -1) for m in (self.query, self.key, self.value)
        )
        mixed = attend(
            rotate(q, *rotary),
            rotate(k, *rotary),
            v,
            starts,
            q.shape[-1] ** -0.5,
            window=self.window,
            dropout=self.thinned if self.training else 0.0,
        )
        out: Tensor = self.dropout(self.out(mixed.flatten(-2)))
        return out


class Block(nn.Module):
    """Attention and feed-forward, each after a norm and added to the stream."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        c = config
        # What enters the first layer is normalised already.
        norm = nn.LayerNorm(c.width, c.eps, bias=c.norm_bias)
        self.attention_norm = norm if layer else nn.Identity()
        self.attention = Attention(c, 0 if c.sees_all(layer) else c.window)
        self.feed_norm = nn.LayerNorm(c.width, c.eps, bias=c.norm_bias)
        self.feed_forward = TwoLayers(
            c.width, c.hidden_width, c.activation, gated=True, bias=c.bias, dropout=c.dropout
        )

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], starts: Tensor) -> Tensor:
        """Map the stream x (N, width) of packed documents."""
        x = x + self.attention(self.attention_norm(x), rotary, starts)
        mapped: Tensor = x + self.feed_forward(self.feed_norm(x))
        return mapped


class ModernBert(nn.Module):
    """Tokens of packed documents to what its head gives."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = self.config = config
        self.embedding = nn.Embedding(c.vocabulary, c.width)
        self.embedding_norm = nn.LayerNorm(c.width, c.eps, bias=c.norm_bias)
        self.dropout = Dropout(c.embedding_dropout)
        self.rotary = Rotary(c.width // c.heads, c.context, c.rope_base)
        self.rotary_local = Rotary(c.width // c.heads, c.context, c.rope_base_local)
        self.blocks = nn.ModuleList(Block(c, i) for i in range(c.depth))
        self.norm = nn.LayerNorm(c.width, c.eps, bias=c.norm_bias)
        if c.head != "none":
            self.transform = nn.Linear(c.width, c.width, bias=c.head_bias)
            self.transform_norm = nn.LayerNorm(c.width, c.eps, bias=c.norm_bias)
        outputs = {"masked_language": c.vocabulary, "span": 2}.get(c.head, c.classes)
        self.output, self.output_bias = None, None
        if c.head == "masked_language" and c.tied:
            if c.output_bias:
                self.output_bias = nn.Parameter(torch.zeros(outputs))
        elif c.head != "none":
            biased = c.output_bias or c.head != "masked_language"
            self.output = nn.Linear(c.width, outputs, bias=biased)
        self.head_dropout = Dropout(c.head_dropout)
        self.activation = activation(c.head_activation)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """N(0, 0.02^2); what maps into the stream divided by sqrt(2 depth), as of GPT-2."""
        normal_start(self)
        deviation = 0.02 / math.sqrt(2 * self.config.depth)
        for name, p in self.named_parameters():
            if name.endswith(("attention.out.weight", "feed_forward.down.weight")):
                nn.init.normal_(p, std=deviation)

    def regions(self) -> list[nn.Module]:
        """The modules to compile, each by itself.

        Attention in a window, or with dropout, goes from document to document, which no graph
        holds; of such blocks the feed-forward is compiled.
        """
        c = self.config
        whole = [c.sees_all(i) and not c.attention_dropout for i in range(c.depth)]
        blocks = [cast(Block, block) for block in self.blocks]
        return [b if w else b.feed_forward for b, w in zip(blocks, whole, strict=True)]

    def hidden(self, tokens: Tensor, starts: Tensor) -> Tensor:
        """The stream after the last norm, (N, width), for tokens (N,)."""
        positions = positions_in(starts, tokens.shape[0])
        tables = self.rotary.tables(positions), self.rotary_local.tables(positions)
        x = self.dropout(self.embedding_norm(self.embedding(tokens)))
        starts = any_number(starts)
        for i, block in enumerate(self.blocks):
            x = block(x, tables[0 if self.config.sees_all(i) else 1], starts)
        normed: Tensor = self.norm(x)
        return normed

    def head(self, hidden: Tensor) -> Tensor:
        """What the head makes of rows of the stream: (n, width) to (n, outputs)."""
        if self.config.head == "none":
            return hidden
        x = self.transform_norm(self.activation(self.transform(hidden)))
        if self.config.head != "masked_language":
            x = self.head_dropout(x)
        if self.output is None:
            return F.linear(x, self.embedding.weight, self.output_bias)
        logits: Tensor = self.output(x)
        return logits

    def negative_log_likelihood(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Sum over rows of -log p(target), in nats, for hidden (n, width) and targets (n,)."""
        return sum_of_costs(self.head, hidden, targets)

    def forward(self, tokens: Tensor, starts: Tensor | None = None) -> Tensor:
        """What the head gives.

        Args:
            tokens: int64 (N,), or (documents, T) where all documents have one length.
            starts: int64 (documents + 1,): document i is tokens starts[i] .. starts[i + 1] - 1
                (read row by row), at least one and at most ``context`` of them. None sees
                another. Left out, every row is a document.

        Returns:
            (documents, classes) of a classification; else (..., outputs) for every token.
        """
        if starts is None:
            starts = equal_starts(tokens)
        rows = self.hidden(tokens.flatten(), starts)
        if self.config.head != "classification":
            return self.head(rows).view(*tokens.shape, -1)
        if self.config.pooling == "first":
            return self.head(first_rows(rows, starts))
        return self.head(mean_rows(rows, starts))
