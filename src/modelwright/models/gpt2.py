"""GPT-2: a decoder with learned positions, LayerNorm before each part, and biases everywhere.

Radford et al. (2019), "Language Models are Unsupervised Multitask Learners". Blocks
x + attention(norm x), then x + down(gelu(up(norm x))); the head is the embedding unless ``tied``
is false.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.kernels.dropout import Dropout
from modelwright.models import reading
from modelwright.models.causal import (
    GATES,
    CausalAttention,
    CausalLM,
    Layer,
    Tables,
    shape_of_size,
)
from modelwright.models.model import ModelConfig
from modelwright.models.steps import Steps


@dataclass(frozen=True)
class Config(ModelConfig):
    """Shape of a GPT-2.

    ``hidden`` is the width of the feed-forward block (0: 4 x width); ``context`` the number of
    learned positions; ``dropout`` the share of numbers zeroed in training after the embedding,
    the attention and the feed-forward. ``by_layer`` divides the products of attention in layer i,
    counted from 1, by i as well (as Mistral's GPT-2 of Stanford does).
    """

    family: ClassVar[str] = "gpt2"
    inputs = reading.texts
    compiles: ClassVar[bool] = True
    specimen: ClassVar[dict[str, Any]] = {
        "vocabulary": 300,
        "depth": 2,
        "width": 16,
        "heads": 4,
        "context": 512,
    }
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "gpt2": {"depth": 12, "width": 768, "heads": 12, "vocabulary": 50257},
        "gpt2-medium": {"depth": 24, "width": 1024, "heads": 16, "vocabulary": 50257},
        "gpt2-large": {"depth": 36, "width": 1280, "heads": 20, "vocabulary": 50257},
        "gpt2-xl": {"depth": 48, "width": 1600, "heads": 25, "vocabulary": 50257},
        "distilgpt2": {"depth": 6, "width": 768, "heads": 12, "vocabulary": 50257},
    }
    vocabulary: PositiveInt
    depth: PositiveInt = 12
    width: PositiveInt = 768
    heads: PositiveInt = 12
    hidden: NonNegativeInt = 0
    context: PositiveInt = 1024
    activation: str = "gelu_tanh"
    eps: PositiveFloat = 1e-5
    tied: bool = True
    scaled: bool = True
    by_layer: bool = False
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ModelwrightError(
                f"model.width: {self.width} is not a multiple of heads={self.heads}"
            )
        if self.activation not in GATES:
            raise ModelwrightError(
                f"model.activation: {self.activation!r} is none of {', '.join(GATES)}"
            )

    @property
    def hidden_width(self) -> int:
        """The width of the feed-forward block, with the default filled in."""
        return self.hidden or 4 * self.width

    def build(self) -> GPT2:
        """The module with fresh parameters."""
        return GPT2(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """A text codec decides the vocabulary."""
        return {"vocabulary": codec.vocabulary}

    @classmethod
    def of_size(cls, parameters: int, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """The depth and width whose matrices hold about ``parameters``."""
        return shape_of_size(cls, parameters, fixed, ("depth", "width", "heads"))

    def matrix_parameters(self) -> int:
        """Parameters in the blocks' matrices, without embedding and head."""
        return self.depth * self.width * (4 * self.width + 2 * self.hidden_width)

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:
        """FLOPs of forward and backward per token; see ``models.decoder.Config``."""
        products = self.matrix_parameters() + learned * self.vocabulary * self.width
        seen = self.context if length is None else min(length, self.context)
        return 6.0 * products + 6.0 * self.depth * self.width * seen


class Attention(CausalAttention):
    """Queries, keys and values by one joined product, with a bias."""

    def __init__(self, config: Config, number: int) -> None:
        width = config.width // config.heads
        scale = width**-0.5 if config.scaled else 1.0
        scale /= number + 1 if config.by_layer else 1
        super().__init__(config.heads, config.heads, width, scale=scale)
        self.joined = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)

    def projected(self, x: Tensor, rotary: Tables) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (..., heads, d) of x (..., width)."""
        del rotary
        joined = self.joined(x)
        q, k, v = joined.view(*joined.shape[:-1], 3, self.heads, self.head_width).unbind(-3)
        return q, k, v


class FeedForward(nn.Module):
    """down(gelu(up x)), with biases."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.up = nn.Linear(config.width, config.hidden_width)
        self.down = nn.Linear(config.hidden_width, config.width)
        self.kind, self.activation = config.activation, GATES[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., width) to the same shape."""
        mapped: Tensor = self.down(self.activation(self.up(x)))
        return mapped


class Block(nn.Module):
    """Attention and feed-forward, each after a LayerNorm and added to the stream."""

    def __init__(self, config: Config, number: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width, config.eps)
        self.attention = Attention(config, number)
        self.feed_norm = nn.LayerNorm(config.width, config.eps)
        self.feed_forward = FeedForward(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, rotary: Tables, starts: Tensor, reaching: bool) -> Tensor:
        """Map the stream x (N, width) of packed documents."""
        x = x + self.dropout(self.attention(self.attention_norm(x), rotary, starts, reaching))
        mapped: Tensor = x + self.dropout(self.feed_forward(self.feed_norm(x)))
        return mapped

    def cached(self, x: Tensor, rotary: Tables, layer: Layer) -> Tensor:
        """The same for rows x (B, T, width) that continue a cache."""
        x = x + self.attention.cached(self.attention_norm(x), rotary, layer)
        mapped: Tensor = x + self.feed_forward(self.feed_norm(x))
        return mapped

    def write(self, steps: Steps, extra: Tensor | None) -> None:
        """``cached`` for one token a row; see ``models.steps``."""
        del extra
        a, f = self.attention, self.feed_forward
        steps.norm(self.attention_norm)
        joined = steps.project(a.joined)
        steps.attend(joined, joined, joined, a, joined=True)
        steps.project(a.out, onto=steps.stream)
        steps.norm(self.feed_norm)
        steps.gate(f.kind, steps.project(f.up))
        steps.project(f.down, onto=steps.stream)


class GPT2(CausalLM):
    """Tokens (B, T) to logits (B, T, vocabulary)."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.position_embedding = nn.Embedding(config.context, config.width)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, i) for i in range(config.depth))
        self.norm = nn.LayerNorm(config.width, config.eps)
        self.reset_parameters()
        nn.init.normal_(self.position_embedding.weight, std=0.01)  # of the published code

    def embedded(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Token and position, added."""
        embedded: Tensor = self.dropout(self.embedding(tokens) + self.position_embedding(positions))
        return embedded
