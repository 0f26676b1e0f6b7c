"""The decoders that came after Llama: one architecture, told apart by a few options.

Blocks x + attention(norm x), then x + feed_forward(norm x), with RMSNorm, rotary positions,
grouped-query attention and a gated feed-forward down(silu(gate x) * up x). What the families
change:

* Llama 2, SmolLM: nothing (arXiv:2307.09288). Llama 3: ``rope_scaling`` "llama3".
* Mistral: ``windows`` (arXiv:2310.06825). Qwen 2: ``qkv_bias`` (arXiv:2407.10671).
* Qwen 3: ``qk_norm`` and a ``head_width`` of its own (arXiv:2505.09388).
* Gemma: ``centred`` norms, ``scaled_embedding``, a tanh GELU (arXiv:2403.08295).
* Gemma 2: norms behind the parts too (``sandwich``), soft caps, every second layer with a window
  (arXiv:2408.00118). Gemma 3: five of six layers with a window, which have a rotary base of
  their own, and ``qk_norm`` (arXiv:2503.19786).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.kernels.attention import Grid
from modelwright.kernels.elementwise import rotate
from modelwright.models import reading
from modelwright.models.attention import last_rows
from modelwright.models.causal import (
    GATES,
    CausalAttention,
    CausalLM,
    Layer,
    Tables,
    shape_of_size,
)
from modelwright.models.model import ModelConfig, outputs_of
from modelwright.models.rope import SCALINGS, YARN, Rope, stretched
from modelwright.models.steps import Steps, UnsteppableError

GEMMA3 = (512, 512, 512, 512, 512, 0)


@dataclass(frozen=True)
class Config(ModelConfig):
    """Shape of such a decoder.

    Attributes:
        vocabulary: number of tokens.
        depth: layers.
        width: of the stream.
        heads: of the queries.
        kv_heads: of keys and values.
        head_width: of a head; 0: width / heads.
        hidden: width of the feed-forward block; 0: 8/3 x width rounded to 64.
        context: the longest sequence.
        activation: of the gate, a name of ``models.causal.GATES``.
        eps: of the norms.
        tied: whether the head is the embedding.
        qkv_bias: a bias of queries, keys and values.
        out_bias: a bias of what attention gives back.
        feed_bias: biases of the feed-forward block.
        qk_norm: a norm of queries and keys before the rotation.
        windows: how many positions a row of a layer sees, itself among them, 0 for all; repeated
            over the layers.
        rope_base: of the rotary frequencies; ``rope_local`` those of layers with a window, plain
            (0: as the others). ``rope_scaling``, ``rope_factor``, ``rope_context``, ``rope_low``,
            ``rope_high`` and ``rope_gain`` are the fields of ``models.rope.Rope``.
        centred: gains are stored less 1, and norms multiply in float32.
        sandwich: a norm behind attention and feed-forward, too.
        scaled_embedding: the embedding times sqrt(width), rounded to the embedding's dtype.
        query_width: products of attention are divided by its root; 0: head_width.
        softcap: of the logits, ``attention_softcap`` of attention's products; 0: none.
        head: "causal" for the next token; "classification" for one of ``classes`` labels, of what
            stands at a text's last token.
    """

    family: ClassVar[str] = "llama"
    inputs = reading.texts
    compiles: ClassVar[bool] = True
    specimen: ClassVar[dict[str, Any]] = {
        "vocabulary": 300,
        "depth": 2,
        "width": 16,
        "heads": 4,
        "kv_heads": 2,
        "context": 512,
        "windows": (4, 0),
        "qkv_bias": True,
        "qk_norm": True,
        "sandwich": True,
        "attention_softcap": 30.0,
    }
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "smollm2-135m": {
            "depth": 30,
            "width": 576,
            "heads": 9,
            "kv_heads": 3,
            "hidden": 1536,
            "context": 8192,
            "vocabulary": 49152,
            "tied": True,
            "rope_base": 1e5,
            "eps": 1e-5,
        },
        "llama2-7b": {
            "depth": 32,
            "width": 4096,
            "heads": 32,
            "kv_heads": 32,
            "hidden": 11008,
            "context": 4096,
            "vocabulary": 32000,
            "eps": 1e-5,
        },
        "llama3.2-1b": {
            "depth": 16,
            "width": 2048,
            "heads": 32,
            "kv_heads": 8,
            "hidden": 8192,
            "context": 131072,
            "vocabulary": 128256,
            "tied": True,
            "rope_base": 5e5,
            "rope_scaling": "llama3",
            "rope_factor": 32.0,
            "rope_context": 8192,
            "eps": 1e-5,
        },
        "mistral-7b": {
            "depth": 32,
            "width": 4096,
            "heads": 32,
            "kv_heads": 8,
            "hidden": 14336,
            "context": 32768,
            "vocabulary": 32000,
            "windows": (4096,),
            "eps": 1e-5,
        },
        "qwen2.5-0.5b": {
            "depth": 24,
            "width": 896,
            "heads": 14,
            "kv_heads": 2,
            "hidden": 4864,
            "context": 32768,
            "vocabulary": 151936,
            "tied": True,
            "qkv_bias": True,
            "rope_base": 1e6,
        },
        "qwen3-0.6b": {
            "depth": 28,
            "width": 1024,
            "heads": 16,
            "kv_heads": 8,
            "head_width": 128,
            "hidden": 3072,
            "context": 40960,
            "vocabulary": 151936,
            "tied": True,
            "qk_norm": True,
            "rope_base": 1e6,
        },
        "gemma3-270m": {
            "depth": 18,
            "width": 640,
            "heads": 4,
            "kv_heads": 1,
            "head_width": 256,
            "hidden": 2048,
            "context": 32768,
            "vocabulary": 262144,
            "tied": True,
            "qk_norm": True,
            "centred": True,
            "sandwich": True,
            "scaled_embedding": True,
            "activation": "gelu_tanh",
            "windows": GEMMA3,
            "rope_base": 1e6,
            "rope_local": 1e4,
        },
    }
    vocabulary: PositiveInt
    depth: PositiveInt = 12
    width: PositiveInt = 768
    heads: PositiveInt = 12
    kv_heads: PositiveInt = 4
    head_width: NonNegativeInt = 0
    hidden: NonNegativeInt = 0
    context: PositiveInt = 1024
    activation: str = "silu"
    eps: PositiveFloat = 1e-6
    tied: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    feed_bias: bool = False
    qk_norm: bool = False
    windows: tuple[NonNegativeInt, ...] = (0,)
    rope_base: PositiveFloat = 10_000.0
    rope_local: NonNegativeFloat = 0.0
    rope_scaling: str = "none"
    rope_factor: PositiveFloat = 1.0
    rope_context: NonNegativeInt = 0
    rope_low: PositiveFloat = 1.0
    rope_high: PositiveFloat = 4.0
    rope_gain: NonNegativeFloat = 0.0
    centred: bool = False
    sandwich: bool = False
    scaled_embedding: bool = False
    query_width: NonNegativeInt = 0
    softcap: NonNegativeFloat = 0.0
    attention_softcap: NonNegativeFloat = 0.0
    head: Literal["causal", "classification"] = "causal"
    classes: PositiveInt = 2

    def __post_init__(self) -> None:
        if not self.head_width and self.width % self.heads:
            raise ModelwrightError(
                f"model.width: {self.width} is not a multiple of heads={self.heads}"
            )
        if self.head_size % 2:
            raise ModelwrightError(
                f"model.head_width: {self.head_size} is odd, but rotations take pairs"
            )
        if self.heads % self.kv_heads:
            raise ModelwrightError(
                f"model.kv_heads: {self.kv_heads} does not divide heads={self.heads}"
            )
        for name, known in (("activation", tuple(GATES)), ("rope_scaling", SCALINGS)):
            if (value := getattr(self, name)) not in known:
                raise ModelwrightError(f"model.{name}: {value!r} is none of {', '.join(known)}")
        if self.rope_scaling in ("llama3", "yarn") and not (
            self.rope_context and self.rope_low < self.rope_high
        ):
            raise ModelwrightError(
                f"model.rope_scaling: {self.rope_scaling!r} needs rope_context, and rope_low below "
                "rope_high"
            )
        if not self.windows:
            raise ModelwrightError("model.windows: give at least one number; 0 sees all")

    @property
    def head_size(self) -> int:
        """The width of a head, with the default filled in."""
        return self.head_width or self.width // self.heads

    @property
    def hidden_width(self) -> int:
        """The width of the feed-forward block, with the default filled in."""
        return self.hidden or -(-8 * self.width // 192) * 64

    def window(self, layer: int) -> int:
        """How far a layer sees; 0: all."""
        return self.windows[layer % len(self.windows)]

    def rope(self, *, local: bool) -> Rope:
        """The rotary angles of layers with a window (``local``) or of the others."""
        if local and self.rope_local:
            return Rope(self.head_size, self.rope_local)
        return Rope(
            self.head_size,
            self.rope_base,
            self.rope_scaling,
            self.rope_factor,
            self.rope_context,
            self.rope_low,
            self.rope_high,
            self.rope_gain,
        )

    def stretched(self, context: int, kind: str) -> dict[str, Any]:
        """See ``models.rope.stretched``; layers with a window stay as they are."""
        if self.rope_scaling != "none":
            raise ModelwrightError(
                f"context: the model's positions are stretched already ({self.rope_scaling}); "
                "leave it out"
            )
        found = stretched(
            kind, base=self.rope_base, width=self.head_size, old=self.context, new=context
        )
        if kind == "yarn":
            found |= {"rope_low": YARN[0], "rope_high": YARN[1]}
        if any(self.window(i) for i in range(self.depth)) and not self.rope_local:
            found["rope_local"] = self.rope_base
        return found

    def build(self) -> CausalLM:
        """The module with fresh parameters."""
        return Classifier(self) if self.head == "classification" else Llama(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """A text codec decides the vocabulary, one with labels also the head."""
        fields: dict[str, Any] = {"vocabulary": codec.vocabulary}
        if hasattr(codec, "labels"):
            fields |= {"head": "classification", "classes": outputs_of(codec)}
        return fields

    @classmethod
    def of_size(cls, parameters: int, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """The depth and width whose matrices hold about ``parameters``."""
        return shape_of_size(cls, parameters, fixed, ("depth", "width", "heads", "kv_heads"))

    def attention_parameters(self) -> int:
        """Parameters in the matrices of one layer's attention."""
        return 2 * self.width * self.head_size * (self.heads + self.kv_heads)

    def matrix_parameters(self) -> int:
        """Parameters in the blocks' matrices, without embedding and head."""
        return self.depth * (self.attention_parameters() + 3 * self.width * self.hidden_width)

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:
        """FLOPs of forward and backward per token; see ``models.decoder.Config``.

        A layer with a window looks back on as many positions at most.
        """
        products = self.matrix_parameters() + learned * self.vocabulary * self.width
        longest = self.context if length is None else min(length, self.context)
        windows = [self.window(i) for i in range(self.depth)]
        # Half of the rows before, on average, and a window whole.
        seen = sum(min(longest / 2, w) if w else longest / 2 for w in windows)
        return 6.0 * products + 12.0 * self.heads * self.head_size * seen


class Norm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * gain (arXiv:1910.07467); ``centred``: * (1 + gain)."""

    def __init__(self, width: int, eps: float, *, centred: bool) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(width) if centred else torch.ones(width))
        self.eps, self.centred = eps, centred

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (..., width)."""
        if self.centred:
            gain = 1.0 + self.gain.float()
            return F.rms_norm(x.float(), gain.shape, gain, self.eps).to(x.dtype)
        return F.rms_norm(x, self.gain.shape, self.gain.to(x.dtype), self.eps)


class Attention(CausalAttention):
    """Grouped-query attention with rotary positions, after a norm of queries and keys if wanted."""

    def __init__(self, config: Config, number: int) -> None:
        c, width = config, config.head_size
        scale = (c.query_width or width) ** -0.5
        window, cap = c.window(number), c.attention_softcap
        super().__init__(c.heads, c.kv_heads, width, scale=scale, window=window, cap=cap)
        self.query = nn.Linear(c.width, c.heads * width, bias=c.qkv_bias)
        self.key = nn.Linear(c.width, c.kv_heads * width, bias=c.qkv_bias)
        self.value = nn.Linear(c.width, c.kv_heads * width, bias=c.qkv_bias)
        self.out = nn.Linear(c.heads * width, c.width, bias=c.out_bias)
        self.query_norm, self.key_norm = (
            Norm(width, c.eps, centred=c.centred) if c.qk_norm else nn.Identity() for _ in range(2)
        )

    def projected(self, x: Tensor, rotary: Tables) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (..., heads, d) of x (..., width)."""
        q, k, v = (
            y.view(*y.shape[:-1], -1, self.head_width)
            for y in (self.query(x), self.key(x), self.value(x))
        )
        if rotary is None:
            return q, k, v
        return rotate(self.query_norm(q), *rotary), rotate(self.key_norm(k), *rotary), v


class FeedForward(nn.Module):
    """down(f(gate x) * up x) (arXiv:2002.05202)."""

    def __init__(self, width: int, hidden: int, activation: str, *, bias: bool = False) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=bias)
        self.up = nn.Linear(width, hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)
        self.kind, self.activation = activation, GATES[activation]

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., width) to the same shape."""
        opened = self.activation(self.gate(x))
        # Without gradients nobody asks for the factors again: one array less to go through.
        wide = opened * self.up(x) if torch.is_grad_enabled() else opened.mul_(self.up(x))
        mapped: Tensor = self.down(wide)
        return mapped


class Block(nn.Module):
    """Attention and feed-forward, each after a norm and added to the stream."""

    def __init__(self, config: Config, number: int) -> None:
        super().__init__()
        c = config

        def norm(*, wanted: bool = True) -> nn.Module:
            return Norm(c.width, c.eps, centred=c.centred) if wanted else nn.Identity()

        self.attention_norm = norm()
        self.attention = Attention(c, number)
        self.attention_after = norm(wanted=c.sandwich)
        self.feed_norm = norm()
        self.feed_forward: nn.Module = FeedForward(
            c.width, c.hidden_width, c.activation, bias=c.feed_bias
        )
        self.feed_after = norm(wanted=c.sandwich)

    def forward(self, x: Tensor, rotary: Tables, starts: Tensor, reaching: bool) -> Any:
        """Map the stream x (N, width) of packed documents; see ``CausalAttention.forward``."""
        mixed = self.attention(self.attention_norm(x), rotary, starts, reaching)
        x = x + self.attention_after(mixed)
        return x + self.feed_after(self.feed_forward(self.feed_norm(x)))

    def cached(self, x: Tensor, rotary: Tables, layer: Layer) -> Tensor:
        """The same for rows x (B, T, width) that continue a cache."""
        mixed = self.attention.cached(self.attention_norm(x), rotary, layer)
        x = x + self.attention_after(mixed)
        mapped: Tensor = x + self.feed_after(self.feed_forward(self.feed_norm(x)))
        return mapped

    def write(self, steps: Steps, extra: Tensor | None) -> None:
        """``cached`` for one token a row; see ``models.steps``."""
        del extra
        a, f = self.attention, self.feed_forward
        if a.cap or not isinstance(self.attention_after, nn.Identity) or type(f) is not FeedForward:
            raise UnsteppableError
        norms = None if isinstance(a.query_norm, nn.Identity) else (a.query_norm, a.key_norm)
        steps.norm(self.attention_norm)
        q, k, v = (steps.project(m) for m in (a.query, a.key, a.value))
        steps.attend(q, k, v, a, norms=norms)
        steps.project(a.out, onto=steps.stream)
        steps.norm(self.feed_norm)
        gate, up = steps.project(f.gate), steps.project(f.up)
        steps.gate(f.kind, gate, up)
        steps.project(f.down, onto=steps.stream)


class Llama(CausalLM):
    """Tokens (B, T) to logits (B, T, vocabulary)."""

    block: ClassVar[type[Block]] = Block

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.blocks = nn.ModuleList(self.block(config, i) for i in range(config.depth))
        self.norm = Norm(config.width, config.eps, centred=config.centred)
        self.reset_parameters()

    def embedded(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """The embedding, scaled where the config says."""
        del positions
        x: Tensor = self.embedding(tokens)
        return x * x.new_tensor(self.config.width**0.5) if self.config.scaled_embedding else x

    def rotations(self, positions: Tensor) -> list[Tables]:
        """Rotary tables of every layer for positions (...): two kinds at most."""
        c: Config = self.config
        local = [bool(c.rope_local and c.window(i)) for i in range(c.depth)]
        tables = {kind: c.rope(local=kind).tables(positions) for kind in set(local)}
        return [tables[kind] for kind in local]


class Classifier(Llama):
    """Packed texts to logits (documents, classes), by the stream at the last token of each."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.output = nn.Linear(config.width, config.classes, bias=False)
        nn.init.normal_(self.output.weight, std=0.02)

    def forward(  # type: ignore[override]  # texts are read whole, once
        self, tokens: Tensor, starts: Tensor | Grid | None = None
    ) -> Tensor:
        """Logits for tokens (N,) with the documents' ``starts``, or for rows (documents, T)."""
        if starts is None:
            starts = torch.arange(0, tokens.numel() + 1, tokens.shape[-1], device=tokens.device)
        rows = self.hidden(tokens.view(1, -1), starts=starts)[0]  # type: ignore[arg-type]
        logits: Tensor = cast(nn.Linear, self.output)(last_rows(rows, starts)).float()
        return logits
