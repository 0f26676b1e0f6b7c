"""BERT (arXiv:1810.04805) and its kin RoBERTa (arXiv:1907.11692), DistilBERT (arXiv:1910.01108).

A bidirectional Transformer whose norms stand after the sums: x <- norm(x + attention x), then
x <- norm(x + feed_forward x), with a learned table of positions. What it is for is its ``head``.
Documents stand one after another (packed), so nothing is padded.

RoBERTa counts positions from 2 (``first_position``); DistilBERT knows no token types and its
classifier has a ReLU where the others have tanh (``pooling``).
"""

from __future__ import annotations

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
from modelwright.kernels.encoder import Blocks
from modelwright.models import reading
from modelwright.models.activations import activation
from modelwright.models.attention import first_rows, positions_in
from modelwright.models.model import ModelConfig
from modelwright.models.packed import (
    MultiHead,
    TwoLayers,
    encoder_fields,
    equal_starts,
    near_size,
    normal_start,
    sum_of_costs,
)
from modelwright.models.ready import blocks_in_one_call

HEADS = ("classification", "masked_language", "tokens", "span", "none")


@dataclass(frozen=True)
class Config(ModelConfig):
    """Shape of a BERT.

    ``head`` is what it gives: "classification" one row of logits for a document, read from its
    first token; "masked_language" logits of the vocabulary for every token; "tokens" logits of
    the classes for every token; "span" two logits for every token, of beginning and ending the
    answer; "none" the stream itself. ``hidden`` is the width of the feed-forward block (0:
    4 x width); ``context`` the longest document; ``types`` how many token types there are;
    ``first_position`` the row of the table for the first token; ``eps`` that of the norms;
    ``dropout`` after the embedding, attention and feed-forward, ``attention_dropout`` of the
    attention's weights (0.1 in published checkpoints; it takes the attention of PyTorch, document
    by document, in place of our kernel), ``head_dropout`` before the classifier.
    """

    family: ClassVar[str] = "bert"
    inputs = reading.texts
    compiles: ClassVar[bool] = True
    specimen: ClassVar[dict[str, Any]] = {
        "vocabulary": 300,
        "classes": 3,
        "depth": 2,
        "width": 16,
        "heads": 2,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "head_dropout": 0.0,
    }
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "bert-tiny": {"depth": 2, "width": 128, "heads": 2},
        "bert-mini": {"depth": 4, "width": 256, "heads": 4},
        "bert-small": {"depth": 4, "width": 512, "heads": 8},
        "bert-base": {"depth": 12, "width": 768, "heads": 12},
        "bert-large": {"depth": 24, "width": 1024, "heads": 16},
        "roberta-base": {
            "depth": 12,
            "width": 768,
            "heads": 12,
            "first_position": 2,
            "types": 1,
            "eps": 1e-5,
        },
        "distilbert-base": {
            "depth": 6,
            "width": 768,
            "heads": 12,
            "types": 0,
            "pooling": "relu",
        },
    }
    vocabulary: PositiveInt
    head: str = "classification"
    classes: PositiveInt = 2
    depth: PositiveInt = 12
    width: PositiveInt = 768
    heads: PositiveInt = 12
    hidden: NonNegativeInt = 0
    context: PositiveInt = 512
    types: NonNegativeInt = 2
    first_position: NonNegativeInt = 0
    pooling: str = "tanh"
    activation: str = "gelu"
    eps: PositiveFloat = 1e-12
    tied: bool = True
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    head_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ModelwrightError(
                f"model.width: {self.width} is not a multiple of heads={self.heads}"
            )
        if self.head not in HEADS:
            raise ModelwrightError(f"model.head: {self.head!r} is not one of {', '.join(HEADS)}")

    @property
    def hidden_width(self) -> int:
        """The width of the feed-forward block, with the default filled in."""
        return self.hidden or 4 * self.width

    def build(self) -> Bert:
        """The module with fresh parameters."""
        return Bert(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """See ``encoder_fields``; and how many kinds of tokens the codec tells apart."""
        types = getattr(codec, "types", None)
        return encoder_fields(codec) | ({} if types is None else {"types": types})

    @classmethod
    def of_size(cls, parameters: int, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Depth, width and heads whose matrices hold about ``parameters``."""
        hidden = int(fixed.get("hidden", 0))
        return near_size(
            parameters, fixed, lambda d, w: d * (4 * w * w + 2 * w * (hidden or 4 * w))
        )

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:
        """FLOPs of forward and backward per token; ``learned`` is the share the head reads.

        6 for every parameter of the matrices, and 12 x width x length a layer for the two
        products of attention, which sees the whole document.
        """
        block = 4 * self.width * self.width + 2 * self.width * self.hidden_width
        outputs = {"masked_language": self.vocabulary, "span": 2, "none": 0}
        head = self.width * outputs.get(self.head, self.classes)
        if self.head in ("classification", "masked_language"):
            head += self.width * self.width
        seen = self.context if length is None else min(length, self.context)
        return 6.0 * (self.depth * block + learned * head) + 12.0 * self.depth * self.width * seen


class Block(nn.Module):
    """Attention and feed-forward, each added to the stream, which is normalised after."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = config
        self.attention = MultiHead(c.width, c.heads, dropout=c.attention_dropout)
        self.attention_norm = nn.LayerNorm(c.width, eps=c.eps)
        self.feed_forward = TwoLayers(c.width, c.hidden_width, c.activation)
        self.feed_norm = nn.LayerNorm(c.width, eps=c.eps)
        self.dropout = Dropout(c.dropout)

    def forward(self, x: Tensor, starts: Tensor) -> Tensor:
        """Map the stream x (N, width) of packed documents."""
        x = self.attention_norm(x + self.dropout(self.attention(x, starts)))
        mapped: Tensor = self.feed_norm(x + self.dropout(self.feed_forward(x)))
        return mapped


class Bert(nn.Module):
    """Tokens of packed documents to what its head gives."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = self.config = config
        self.embedding = nn.Embedding(c.vocabulary, c.width)
        self.position_embedding = nn.Embedding(c.context + c.first_position, c.width)
        self.type_embedding = nn.Embedding(c.types, c.width) if c.types else None
        self.embedding_norm = nn.LayerNorm(c.width, eps=c.eps)
        self.dropout = Dropout(c.dropout)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.depth))
        if c.head in ("classification", "masked_language"):
            self.transform = nn.Linear(c.width, c.width)
        if c.head == "masked_language":
            self.transform_norm = nn.LayerNorm(c.width, eps=c.eps)
        if c.head == "masked_language" and c.tied:
            self.output_bias = nn.Parameter(torch.zeros(c.vocabulary))
        elif c.head != "none":
            outputs = {"masked_language": c.vocabulary, "span": 2}.get(c.head, c.classes)
            self.output = nn.Linear(c.width, outputs)
        self.head_dropout = Dropout(c.head_dropout)
        self.activation = activation(c.activation)
        self.pooling = activation(c.pooling)
        self.in_one_call: Blocks | None = None
        normal_start(self)

    def make_ready(self) -> None:
        """Have all blocks run in one call from now on, where the kernel can; see `ready`."""
        c = self.config
        self.in_one_call = blocks_in_one_call(
            [cast(Block, block) for block in self.blocks],
            heads=c.heads,
            activation=c.activation,
            eps=c.eps,
        )

    def regions(self) -> list[nn.Module]:
        """The modules to compile, each by itself: the blocks are alike, so one is compiled.

        Attention with dropout goes from document to document, which no graph holds.
        """
        if self.config.attention_dropout:
            return [cast(Block, block).feed_forward for block in self.blocks]
        return list(self.blocks)

    def hidden(self, tokens: Tensor, starts: Tensor, types: Tensor | None = None) -> Tensor:
        """The stream after the last block, (N, width), for tokens (N,)."""
        x = self._embedded(tokens, starts, types)
        if self.in_one_call is not None and type(starts) is Tensor:
            return self.in_one_call.run(x, starts)
        starts = any_number(starts)
        for block in self.blocks:
            x = block(x, starts)
        return x

    def _first(self, tokens: Tensor, starts: Tensor, types: Tensor | None) -> Tensor:
        """The first row of every document in the stream after the last block."""
        if self.in_one_call is not None and type(starts) is Tensor:
            x = self._embedded(tokens, starts, types)
            return self.in_one_call.run(x, starts, only_first=True)
        return first_rows(self.hidden(tokens, starts, types), starts)

    def _embedded(self, tokens: Tensor, starts: Tensor, types: Tensor | None) -> Tensor:
        positions = positions_in(starts, tokens.shape[0]) + self.config.first_position
        x: Tensor = self.embedding(tokens) + self.position_embedding(positions)
        if self.type_embedding is not None:
            x = x + self.type_embedding(torch.zeros_like(tokens) if types is None else types)
        normed: Tensor = self.dropout(self.embedding_norm(x))
        return normed

    def head(self, hidden: Tensor) -> Tensor:
        """What the head makes of rows of the stream: (n, width) to (n, outputs)."""
        kind = self.config.head
        if kind == "none":
            return hidden
        if kind == "classification":
            hidden = self.pooling(self.transform(hidden))
        if kind == "masked_language":
            hidden = self.transform_norm(self.activation(self.transform(hidden)))
            if self.config.tied:
                return F.linear(hidden, self.embedding.weight, self.output_bias)
        else:
            hidden = self.head_dropout(hidden)
        logits: Tensor = self.output(hidden)
        return logits

    def negative_log_likelihood(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Sum over rows of -log p(target), in nats, for hidden (n, width) and targets (n,)."""
        return sum_of_costs(self.head, hidden, targets)

    def forward(
        self, tokens: Tensor, starts: Tensor | None = None, types: Tensor | None = None
    ) -> Tensor:
        """What the head gives.

        Args:
            tokens: int64 (N,), or (documents, T) where all documents have one length.
            starts: int64 (documents + 1,): document i is tokens starts[i] .. starts[i + 1] - 1
                (read row by row), at least one and at most ``context`` of them. None sees
                another. Left out, every row is a document.
            types: token types, of the shape of ``tokens``; left out: 0.

        Returns:
            (documents, classes) of a classification; else (..., outputs) for every token.
        """
        if starts is None:
            starts = equal_starts(tokens)
        types = None if types is None else types.flatten()
        if self.config.head == "classification":
            return self.head(self._first(tokens.flatten(), starts, types))
        rows = self.hidden(tokens.flatten(), starts, types)
        return self.head(rows).view(*tokens.shape, -1)
