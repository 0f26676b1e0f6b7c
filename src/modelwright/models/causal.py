"""What decoders of published architectures share: attention with windows, caches, a tied head."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from modelwright.kernels.attention import Grid, any_number, packed_attention
from modelwright.models.attention import Cache, positions_in
from modelwright.models.likelihood import linear_cross_entropy, token_log_probabilities
from modelwright.models.steps import Stepping

Tables = tuple[Tensor, Tensor] | None  # cosine and sine of rotary positions
Layer = tuple[Tensor, Tensor, Tensor]  # keys, values and the positions that are read now


def gelu_tanh(x: Tensor) -> Tensor:
    """x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), the GELU of GPT-2 and Gemma."""
    return F.gelu(x, approximate="tanh")


# The nonlinearities of feed-forward blocks (arXiv:1606.08415).
GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,  # x / (1 + exp(-x))
    "gelu": F.gelu,  # x Phi(x)
    "gelu_tanh": gelu_tanh,
    "relu": F.relu,
}


def attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, *, scale: float, cap: float) -> Tensor:
    """softmax(c tanh(scale QK^T / c)) V over what is ``seen``; without a cap c plain attention.

    Args:
        q: (B, heads, T, d).
        k: (B, kv_heads, S, d).
        v: (B, kv_heads, S, d).
        seen: bool, broadcast to (B, heads, T, S); every row sees something.
        scale: factor of the products.
        cap: c (arXiv:2408.00118), 0 for none.

    Returns:
        (B, heads, T, d).
    """
    groups = q.shape[1] // k.shape[1]
    if not cap:
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, scale=scale, enable_gqa=groups > 1
        )
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    products = cap * torch.tanh((q @ k.transpose(-1, -2)).float() * (scale / cap))
    shares = products.masked_fill(~seen, -math.inf).softmax(dim=-1)
    return shares.to(v.dtype) @ v


def document_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    starts: Tensor | Grid,
    scale: float,
    *,
    window: int,
    cap: float,
) -> Tensor:
    """Causal attention within packed documents; see ``kernels.attention.packed_attention``.

    ``window`` is the number of rows that a row sees, itself among them (0: all before it), ``cap``
    as in ``attend``. Products with a window are computed in blocks of as many rows, each with its
    own keys and those of the block before, so that they grow with rows x window.
    """
    if isinstance(starts, Grid):
        seen = starts.seen(causal=True, window=window)
        mixed = attend(
            starts.split(q), starts.split(k), starts.split(v), seen, scale=scale, cap=cap
        )
        return starts.joined(mixed)
    if window:
        return _in_blocks(q, k, v, starts, window, scale=scale, cap=cap)
    if not cap:
        return packed_attention(q, k, v, starts, scale)
    parts = []
    for first, last in pairwise(starts.tolist()):
        one, two, three = (x[None, first:last].transpose(1, 2) for x in (q, k, v))
        seen = torch.ones(last - first, last - first, dtype=torch.bool, device=q.device).tril()
        parts.append(attend(one, two, three, seen, scale=scale, cap=cap).transpose(1, 2)[0])
    return torch.cat(parts)


def _in_blocks(
    q: Tensor, k: Tensor, v: Tensor, starts: Tensor, window: int, *, scale: float, cap: float
) -> Tensor:
    rows = len(q)
    blocks = -(-rows // window)
    after = blocks * window - rows

    def with_previous(x: Tensor) -> Tensor:
        """Rows (window + blocks * window, ...) as (blocks, 2 * window, ...)."""
        cut = x.view(blocks + 1, window, *x.shape[1:])
        return torch.cat((cut[:-1], cut[1:]), dim=1)

    own = F.pad(q, (0, 0, 0, 0, 0, after)).view(blocks, window, *q.shape[1:])
    keys, values = (with_previous(F.pad(x, (0, 0, 0, 0, window, after))) for x in (k, v))
    numbers = torch.arange(blocks * window, device=q.device)
    # What is filled up stands after the last document, as one more of its own, and before all.
    document = torch.searchsorted(starts, numbers, right=True)
    behind = with_previous(F.pad(document, (window, 0), value=-1))
    back = numbers[:window, None] + torch.arange(window, -window, -1, device=q.device)
    near = (back >= 0) & (back < window)
    seen = near & (document.view(blocks, window, 1) == behind[:, None])
    mixed = attend(
        own.transpose(1, 2),
        keys.transpose(1, 2),
        values.transpose(1, 2),
        seen[:, None],
        scale=scale,
        cap=cap,
    )
    return mixed.transpose(1, 2).flatten(0, 1)[:rows]


class CausalAttention(nn.Module, ABC):
    """Attention of a decoder; a family adds ``projected`` and ``out``."""

    out: nn.Module

    def __init__(
        self,
        heads: int,
        kv_heads: int,
        head_width: int,
        *,
        scale: float = 0.0,
        window: int = 0,
        cap: float = 0.0,
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_width = heads, kv_heads, head_width
        self.scale, self.window, self.cap = scale or head_width**-0.5, window, cap

    @abstractmethod
    def projected(self, x: Tensor, rotary: Tables) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (..., heads, d) of x (..., width)."""

    def forward(self, x: Tensor, rotary: Tables, starts: Tensor, reaching: bool) -> Tensor:
        """Attend within the documents of the rows x (N, width).

        ``starts`` (documents + 1,) are the bounds of the documents; ``reaching`` says that one
        of them is longer than this layer's window.
        """
        q, k, v = self.projected(x, rotary)
        window = self.window if reaching else 0
        mixed = document_attention(q, k, v, starts, self.scale, window=window, cap=self.cap)
        mapped: Tensor = self.out(mixed.flatten(-2))
        return mapped

    def cached(self, x: Tensor, rotary: Tables, layer: Layer) -> Tensor:
        """Attend over a cache with the new rows x (B, T, width).

        The new keys and values are written at the positions (B, T) of ``layer``, and every query
        sees the positions up to its own, as far back as the window reaches.
        """
        q, k, v = (y.transpose(1, 2) for y in self.projected(x, rotary))
        keys, values, positions = layer
        index = positions[:, None, :, None].expand(k.shape)
        keys.scatter_(2, index, k.to(keys.dtype))
        values.scatter_(2, index, v.to(values.dtype))
        last = int(positions.max()) + 1  # read no further than the longest row
        first = max(0, int(positions.min()) + 1 - self.window) if self.window else 0
        if not self.cap and last == x.shape[1] > 1 and not (0 < self.window < last):
            # Every row is read from its beginning: the mask is the triangle, of which half is work.
            k, v = (y[:, :, :last].to(q.dtype) for y in (keys, values))
            begun = F.scaled_dot_product_attention(
                q, k, v, is_causal=True, scale=self.scale, enable_gqa=self.heads != self.kv_heads
            )
            whole: Tensor = self.out(begun.transpose(1, 2).flatten(-2))
            return whole
        back = positions[:, None, :, None] - torch.arange(first, last, device=x.device)
        seen = (back >= 0) & (back < self.window) if self.window else back >= 0
        keys, values = (y[:, :, first:last].to(q.dtype) for y in (keys, values))
        mixed = attend(q, keys, values, seen, scale=self.scale, cap=self.cap)
        mapped: Tensor = self.out(mixed.transpose(1, 2).flatten(-2))
        return mapped


class LanguageModel(nn.Module, ABC):
    """What all models that predict the next token share: cache, head, likelihood, ``forward``.

    A family sets ``config``, ``blocks`` and ``head_weight``, and says how tokens become the stream
    in ``hidden``.
    """

    blocks: nn.ModuleList
    config: Any
    recompute: bool  # activations of the blocks in the backward pass, to save memory
    stepping: Stepping | None = None  # how packed blocks go on by a token, once it was asked

    @property
    @abstractmethod
    def head_weight(self) -> Tensor:
        """The matrix (vocabulary, width) that makes logits of the stream."""

    @abstractmethod
    def hidden(
        self,
        tokens: Tensor,
        cache: Cache | None = None,
        counts: Tensor | None = None,
        starts: Tensor | None = None,
    ) -> Tensor:
        """The stream after the last norm, (B, T, width); see ``forward``."""

    def run(self, block: nn.Module, *given: Any) -> Tensor:
        """The stream behind a block."""
        if self.recompute and torch.is_grad_enabled():
            mapped: Tensor = checkpoint(block, *given, use_reentrant=False)
        else:
            mapped = block(*given)
        return mapped

    def stepped(
        self, x: Tensor, cache: Cache, tables: Sequence[Tables], extras: Sequence[Tensor | None]
    ) -> Tensor | None:
        """The stream (B, 1, width) behind the blocks in one call, or None where it is not offered.

        ``x`` (B, T, width) is the stream before them, ``tables`` the rotations of every layer,
        ``extras`` what else a layer reads.
        """
        if x.shape[1] != 1 or torch.is_grad_enabled():
            return None
        if self.stepping is None:
            self.stepping = Stepping(self)
        return self.stepping(x, cache, tables, extras)

    def new_cache(self, batch: int, capacity: int) -> Cache:
        """An empty cache for ``batch`` sequences of at most ``capacity`` <= context tokens."""
        attention = cast(Any, self.blocks[0]).attention
        shape = (batch, attention.kv_heads, capacity, attention.head_width)
        weight = next(self.parameters())
        keys = [weight.new_zeros(shape) for _ in self.blocks]
        values = [weight.new_zeros(shape) for _ in self.blocks]
        return Cache(keys, values, torch.zeros(batch, dtype=torch.long, device=weight.device))

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (..., vocabulary) in float32, capped where the config says: c * tanh(z / c).

        The cap is that of arXiv:2408.00118.
        """
        logits = self.scores(hidden).float()
        cap = getattr(self.config, "softcap", 0.0)
        return cap * torch.tanh(logits / cap) if cap else logits

    def scores(self, hidden: Tensor) -> Tensor:
        """Logits before the cap, as precise as the product."""
        return F.linear(hidden, self.head_weight)

    def negative_log_likelihood(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Sum over rows of -log p(target), in nats, for hidden (n, width) and targets (n,)."""
        cap = getattr(self.config, "softcap", 0.0)
        return linear_cross_entropy(hidden, self.head_weight, targets, cap)

    def log_probabilities(
        self, hidden: Tensor, targets: Tensor, temperature: float = 1.0
    ) -> Tensor:
        """Log p of every target (n,), float32 in nats, of logits divided by ``temperature``.

        For hidden (n, width).
        """
        if temperature != 1:  # c tanh(z / c) / t = (c / t) tanh((z / t) / (c / t))
            hidden = hidden / temperature
        cap = getattr(self.config, "softcap", 0.0) / temperature
        return token_log_probabilities(hidden, self.head_weight, targets, cap)

    def forward(
        self,
        tokens: Tensor,
        cache: Cache | None = None,
        counts: Tensor | None = None,
        starts: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, T, vocabulary) for tokens (B, T), T <= context.

        With a cache the tokens continue its rows; ``counts`` (B,) says how many of the T tokens
        of each row are real when rows are padded on the right (the padding is overwritten by
        what follows and never seen). Without one, ``starts`` (documents + 1,) may say where
        documents begin among the B * T tokens read row by row: none sees another. Left out,
        every row is a document.
        """
        return self.head(self.hidden(tokens, cache, counts, starts))


def advance(cache: Cache, tokens: Tensor, counts: Tensor | None) -> None:
    """Note in a cache that ``counts`` (B,) of the tokens (B, T) have been read; None: all."""
    b, t = tokens.shape
    read = torch.full((b,), t, device=tokens.device) if counts is None else counts
    cache.lengths = cache.lengths + read
    cache.previous = tokens.gather(1, (read - 1)[:, None])[:, 0]


class CausalLM(LanguageModel):
    """Tokens (B, T) to logits (B, T, vocabulary), for the published families.

    A family sets ``blocks`` and ``norm`` and may override ``embedded`` and ``rotations``. Blocks
    map (x, rotary, starts, reaching) and have ``cached(x, rotary, layer)`` and ``attention``; see
    ``CausalAttention``. With a tied head there is no ``output``: the embedding is the one tensor.
    """

    norm: nn.Module

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.recompute = False
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.output = (
            None if config.tied else nn.Linear(config.width, config.vocabulary, bias=False)
        )

    @property
    def head_weight(self) -> Tensor:
        """The matrix (vocabulary, width) that makes logits of the stream."""
        return self.embedding.weight if self.output is None else self.output.weight

    def embedded(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """The stream (..., width) of tokens (...) at positions (...) of their documents."""
        del positions
        embedded: Tensor = self.embedding(tokens)
        return embedded

    def scores(self, hidden: Tensor) -> Tensor:
        """Logits before the cap: by the module where the head is not the embedding."""
        if self.output is None:
            return super().scores(hidden)
        logits: Tensor = self.output(hidden)
        return logits

    def rotations(self, positions: Tensor) -> list[Tables]:
        """Rotary tables of every layer for positions (...)."""
        del positions
        return [None] * len(self.blocks)

    def reset_parameters(self) -> None:
        """Normal of deviation 0.02, into the stream 0.02 / sqrt(2 layers), biases at zero (GPT-2).

        Gains keep what their norm starts with.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for module in self.modules():
            for name in ("out", "down"):
                if isinstance(into := getattr(module, name, None), nn.Linear):
                    nn.init.normal_(into.weight, std=0.02 / math.sqrt(2 * len(self.blocks)))

    def regions(self) -> list[nn.Module]:
        """The modules to compile, each by itself: the blocks are alike, so one is compiled."""
        return [*self.blocks, self.norm]

    def hidden(
        self,
        tokens: Tensor,
        cache: Cache | None = None,
        counts: Tensor | None = None,
        starts: Tensor | None = None,
    ) -> Tensor:
        """The stream after the last norm, (B, T, width); see ``forward``."""
        if cache is not None:
            return self._continued(tokens, cache, counts)
        b, t = tokens.shape
        if starts is None:
            starts = torch.arange(0, b * t + 1, t, device=tokens.device)
        positions = positions_in(starts, b * t)
        reach = self._reaching(starts, b * t)
        starts = any_number(starts)
        x = self.embedded(tokens.flatten(), positions)
        for i, rotary in enumerate(self.rotations(positions)):
            x = self.run(self.blocks[i], x, rotary, starts, reach[i])
        normed: Tensor = self.norm(x)
        return normed.view(b, t, -1)

    def _reaching(self, starts: Tensor | Grid, rows: int) -> list[bool]:
        """Whether some document is longer than the window, for every layer."""
        windows = [cast(CausalAttention, block.attention).window for block in self.blocks]
        if isinstance(starts, Grid):  # of any length: it may be
            return [window > 0 for window in windows]
        longest = rows
        if any(0 < window < rows for window in windows):
            longest = int(starts.diff().max())
        return [0 < window < longest for window in windows]

    def _continued(self, tokens: Tensor, cache: Cache, counts: Tensor | None) -> Tensor:
        positions = cache.lengths[:, None] + torch.arange(tokens.shape[1], device=tokens.device)
        x = self.embedded(tokens, positions)
        tables = self.rotations(positions)
        stepped = self.stepped(x, cache, tables, [None] * len(tables))
        for i, rotary in enumerate(tables if stepped is None else ()):
            layer = (cache.keys[i], cache.values[i], positions)
            x = cast(Any, self.blocks[i]).cached(x, rotary, layer)
        x = x if stepped is None else stepped
        advance(cache, tokens, counts)
        normed: Tensor = self.norm(x)
        return normed


def halved(heads: int) -> int:
    """Heads of keys and values where nobody says how many: half as many, all where odd."""
    return heads // 2 if heads % 2 == 0 else heads


def shape_of_size(
    cls: Callable[..., Any], parameters: int, fixed: Mapping[str, Any], names: tuple[str, ...]
) -> dict[str, Any]:
    """The (depth, width) of aspect ratio near 64 whose matrices hold about ``parameters``.

    Matrices only: embedding and head cost memory but decide little of the quality. ``names`` are
    the fields of ``cls`` to choose, of depth, width, heads and kv_heads.
    """
    best: dict[str, Any] = {}
    error = math.inf
    for depth in range(3, 49):
        for heads in range(3, 65):
            free = {"depth": depth, "width": 64 * heads, "heads": heads}
            free["kv_heads"] = halved(fixed.get("heads", heads))
            shape = {k: fixed.get(k, free[k]) for k in names}
            if shape["width"] % (2 * shape["heads"]):
                continue
            if shape["heads"] % shape.get("kv_heads", 1):
                continue
            size = cls(**{"vocabulary": 1, **fixed, **shape}).matrix_parameters()
            miss = abs(math.log(size / parameters))
            miss += 0.3 * abs(math.log(shape["width"] / shape["depth"] / 64))
            if miss < error:
                best, error = shape, miss
    return best
