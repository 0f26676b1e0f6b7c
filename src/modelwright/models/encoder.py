"""A bidirectional Transformer that names the class of a text (BERT, arXiv:1810.04805).

Blocks x + dropout(attention(norm x)), then x + dropout(feed_forward(norm x)), as those of the
decoder but for two things: every token sees its whole document, and dropout. Documents stand one
after another, so nothing is ever padded.

The class is read from the mean of a document's stream, not from a first token of its own: blocks
start as the identity, so the mean makes the model begin as a bag of words, which learns at once,
while a first token would know nothing until attention has learned to fetch it.

With another ``head`` it gives logits for every token (tags, spans, sentences), or the stream itself
(embeddings).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.kernels.dropout import Dropout
from modelwright.models import reading
from modelwright.models.attention import Attention, mean_rows, positions_in
from modelwright.models.layers import FeedForward, RMSNorm, Rotary, pair_rows
from modelwright.models.model import ModelConfig, outputs_of

HEADS = ("classification", "tokens", "span", "none")
EMBEDDING_DEVIATION = 0.02  # BERT's: small tables turn quickly under Adam's steps of fixed size


@dataclass(frozen=True)
class Config(ModelConfig):
    """Shape of an encoder.

    ``head`` is what it gives: "classification" one row of logits for a document; "tokens" logits
    of the classes for every token; "span" the same, of beginning and ending an answer; "none" the
    stream itself. ``types`` is how many kinds of tokens the codec tells apart, each with a vector
    of its own (0: none). ``bigrams`` (a number of rows, 0: none) is a table for the hashed pair of
    every token and the one before it: a text classifier then begins as a bag of words and pairs,
    as fastText is (arXiv:1607.01759). ``hidden`` is the width of the feed-forward block (0: 4 x
    width), a squared ReLU; ``context`` is the longest document; ``dropout`` is the share of numbers
    zeroed in training after the embedding, the attention and the feed-forward.
    """

    family: ClassVar[str] = "encoder"
    inputs = reading.texts
    # Most of a small encoder is embedding, which Muon leaves to AdamW anyway: in 120 steps on
    # reviews neither was ahead (loss 0.39 with AdamW, 0.41 with Muon).
    optimizer: ClassVar[str] = "adamw"
    compiles: ClassVar[bool] = True
    fused: ClassVar[float] = 1.05
    specimen: ClassVar[dict[str, Any]] = {
        "vocabulary": 300,
        "classes": 3,
        "depth": 2,
        "width": 16,
        "heads": 2,
        "dropout": 0.0,
        "bigrams": 64,
    }
    vocabulary: PositiveInt
    classes: PositiveInt
    depth: PositiveInt = 4
    width: PositiveInt = 256
    heads: PositiveInt = 4
    hidden: NonNegativeInt = 0
    context: PositiveInt = 512
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    rope_base: PositiveFloat = 10_000.0
    head: str = "classification"
    types: NonNegativeInt = 0
    bigrams: NonNegativeInt = 0

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise ModelwrightError(f"model.head: {self.head!r} is not one of {', '.join(HEADS)}")
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ModelwrightError(
                f"model.width: {self.width} is not an even multiple of heads={self.heads}"
            )

    @property
    def hidden_width(self) -> int:
        """The width of the feed-forward block, with the default filled in."""
        return self.hidden or 4 * self.width

    def build(self) -> Encoder:
        """The module with fresh parameters."""
        return Encoder(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """The codec knows its tokens, what is to be said of them, and where it cuts a text."""
        return {
            "vocabulary": codec.vocabulary,
            "classes": outputs_of(codec),
            "context": codec.longest,
            "head": getattr(codec, "head", "classification"),
            "types": getattr(codec, "types", 0),
        }

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:
        """FLOPs of forward and backward per token; ``learned`` is the share the head reads.

        6 for every parameter of the matrices, and 12 x width x length a layer for the two
        products of attention, which sees the whole document.
        """
        matrices = 4 * self.width * self.width + 2 * self.width * self.hidden_width
        seen = self.context if length is None else min(length, self.context)
        head = learned * self.width * self.classes
        return 6.0 * (self.depth * matrices + head) + 12.0 * self.depth * self.width * seen


class Block(nn.Module):
    """Attention and feed-forward, each after a norm, thinned out and added to the stream."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width, feeds_product=True)
        self.attention = Attention(config.width, config.heads, config.heads, causal=False)
        self.feed_norm = RMSNorm(config.width, feeds_product=True)
        self.feed_forward = FeedForward(config.width, config.hidden_width, "relu2")
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], starts: Tensor) -> Tensor:
        """Map the stream x (N, width) of packed documents; see ``Attention.forward``."""
        x = x + self.dropout(self.attention(self.attention_norm(x), rotary, None, starts))
        mapped: Tensor = x + self.dropout(self.feed_forward(self.feed_norm(x)))
        return mapped


class Encoder(nn.Module):
    """Tokens (N,) of packed documents to logits (documents, classes)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.type_embedding = nn.Embedding(config.types, config.width) if config.types else None
        self.bigram_embedding = (
            nn.Embedding(config.bigrams, config.width) if config.bigrams else None
        )
        self.embedding_norm = RMSNorm(config.width)
        self.dropout = Dropout(config.dropout)
        self.rotary = Rotary(config.width // config.heads, config.context, config.rope_base)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = RMSNorm(config.width)
        if config.head != "none":
            self.output = nn.Linear(config.width, config.classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform of standard deviation 1/sqrt(fan_in); projections into the stream at zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                bound = math.sqrt(3.0 / module.in_features)
                nn.init.uniform_(module.weight, -bound, bound)
        for module in self.modules():
            if isinstance(module, Attention):
                nn.init.zeros_(module.out.weight)
            if isinstance(module, FeedForward):
                nn.init.zeros_(module.down.weight)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_DEVIATION)
        if self.type_embedding is not None:
            nn.init.normal_(self.type_embedding.weight, std=EMBEDDING_DEVIATION)
        if self.bigram_embedding is not None:
            nn.init.zeros_(self.bigram_embedding.weight)
        if self.config.head != "none":
            nn.init.zeros_(self.output.weight)
            nn.init.zeros_(self.output.bias)

    def regions(self) -> list[nn.Module]:
        """The modules to compile, each by itself: the blocks are alike, so one is compiled."""
        return [self.embedding_norm, *self.blocks, self.norm]

    def hidden(self, tokens: Tensor, starts: Tensor, types: Tensor | None = None) -> Tensor:
        """The stream after the last norm, (N, width), for tokens (N,)."""
        positions = positions_in(starts, tokens.shape[0])
        rotary = self.rotary.tables(positions)
        x: Tensor = self.embedding(tokens)
        if self.bigram_embedding is not None:
            before = torch.cat((tokens.new_full((1,), -1), tokens[:-1]))
            before = torch.where(positions == 0, -1, before)
            x = x + self.bigram_embedding(pair_rows(tokens, before, self.config.bigrams))
        if self.type_embedding is not None:
            x = x + self.type_embedding(torch.zeros_like(tokens) if types is None else types)
        x = self.dropout(self.embedding_norm(x))
        for block in self.blocks:
            x = block(x, rotary, starts)
        normed: Tensor = self.norm(x)
        return normed

    def forward(
        self, tokens: Tensor, starts: Tensor | None = None, types: Tensor | None = None
    ) -> Tensor:
        """What the head gives.

        Args:
            tokens: int64 (N,), or (documents, T) where all documents have one length.
            starts: int64 (documents + 1,): document i is tokens starts[i] .. starts[i + 1] - 1
                (read row by row), at least one and at most ``context`` of them. None sees
                another. Left out, every row is a document.
            types: kinds of tokens, of the shape of ``tokens``; left out: 0.

        Returns:
            (documents, classes) of a classification; else (..., classes) for every token, or
            (..., width) of "none".
        """
        if starts is None:
            rows, length = tokens.shape
            starts = torch.arange(0, rows * length + 1, length, device=tokens.device)
        hidden = self.hidden(tokens.flatten(), starts, None if types is None else types.flatten())
        hidden = hidden.to(self.norm.gain.dtype)
        if self.config.head == "none":
            return hidden.view(*tokens.shape, -1)
        if self.config.head in ("tokens", "span"):
            return self.output(hidden).view(*tokens.shape, -1)  # type: ignore[no-any-return]
        logits: Tensor = self.output(mean_rows(hidden, starts))
        return logits
