"""Parts that published encoders and encoder-decoders share: attention over packed documents.

Documents stand one after another, so nothing is padded. Where a kernel of ours does not reach
(a bias added to the products, a window, dropout of the weights, another document's keys),
PyTorch's attention is called on documents padded to the longest of them, or document by document
where they are too unlike for that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from modelwright.kernels.attention import Grid, packed_attention
from modelwright.models.activations import activation
from modelwright.models.model import outputs_of

LOGIT_BYTES = 64 << 20  # of a chunk of logits that exist at once, in training
# Tokens of a document up to which, on a CPU, the products are cheaper to hold than to make twice:
# 128 documents of 40 tokens took 14 ms there and back on one core, 76 by PyTorch's attention.
SHORT = 128
PADDING = 4  # times the work of attention that padding of longer documents may cost, to be at once


def encoder_fields(codec: Any) -> dict[str, Any]:
    """What a codec decides of an encoder: its tokens, its labels, and what its head is for.

    Without labels or a ``head`` masked tokens are guessed; a codec that has no mask among its
    tokens gets one after them.
    """
    if not hasattr(codec, "labels") and not hasattr(codec, "head"):
        rows = codec.vocabulary + (not hasattr(codec, "mask"))
        return {"vocabulary": rows, "head": "masked_language"}
    fields = {"vocabulary": codec.vocabulary, "classes": outputs_of(codec)}
    if (head := getattr(codec, "head", None)) is not None:
        fields["head"] = head
    return {**fields, "context": codec.longest}


def equal_starts(tokens: Tensor) -> Tensor:
    """The bounds (B + 1,) of tokens (B, T) of which every row is a document."""
    rows, length = tokens.shape
    return torch.arange(0, rows * length + 1, length, device=tokens.device)


def _documents(
    starts: Tensor, sources: Tensor
) -> Iterator[tuple[tuple[int, int], tuple[int, int], int]]:
    """Bounds of queries, bounds of keys, and how many documents of one shape they are."""
    rows, columns = starts.tolist(), sources.tolist()
    shapes = {
        (b - a, d - c) for (a, b), (c, d) in zip(pairwise(rows), pairwise(columns), strict=True)
    }
    if len(shapes) == 1:
        yield (0, rows[-1]), (0, columns[-1]), len(rows) - 1
        return
    for query, key in zip(pairwise(rows), pairwise(columns), strict=True):
        yield query, key, 1


def _split(x: Tensor, bounds: tuple[int, int], documents: int) -> Tensor:
    """Rows of x (N, heads, d) as (documents, heads, T, d)."""
    part = x[bounds[0] : bounds[1]]
    return part.view(documents, -1, *x.shape[1:]).transpose(1, 2)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    starts: Tensor | Grid,
    scale: float,
    *,
    sources: Tensor | None = None,
    causal: bool = False,
    bias: Tensor | None = None,
    window: int = 0,
    dropout: float = 0.0,
) -> Tensor:
    """softmax(scale q.k + bias) v within documents.

    Args:
        q: (rows, heads, d), documents as ``starts`` (documents + 1,) says.
        k: (columns, heads, d), documents as ``sources`` says; left out: those of ``starts``.
        v: as k.
        starts: bounds of the documents among the rows of q, or a grid.
        scale: factor of the products.
        sources: bounds of what each document of q looks at.
        causal: a row sees itself and the rows before it.
        bias: (heads, T, S) for the longest document; shorter ones take its upper left corner.
        window: a row sees those at most this far from itself, on both sides; 0: all.
        dropout: share of the weights zeroed.

    Returns:
        (rows, heads, d).
    """
    if isinstance(starts, Grid):
        if sources is not None or bias is not None or dropout:
            raise TypeError("attention: a grid goes without bias, dropout and other documents")
        seen = starts.seen(causal=causal, window=window)
        asked, keys, values = starts.split(q), starts.split(k), starts.split(v)
        mixed = F.scaled_dot_product_attention(asked, keys, values, attn_mask=seen, scale=scale)
        return starts.joined(mixed)
    if window:
        return _windowed(q, k, v, starts, scale, window=window, dropout=dropout)
    if sources is None and bias is None and not dropout:
        return packed_attention(q, k, v, starts, scale, causal=causal)
    columns_at = starts if sources is None else sources
    if (sides := _rectangles(starts, columns_at)) is not None:
        return _padded(q, k, v, sides, scale, causal=causal, bias=bias, dropout=dropout)
    parts = []
    for rows, columns, count in _documents(starts, columns_at):
        one, other = (rows[1] - rows[0]) // count, (columns[1] - columns[0]) // count
        mixed = F.scaled_dot_product_attention(
            _split(q, rows, count),
            _split(k, columns, count),
            _split(v, columns, count),
            attn_mask=None if bias is None else bias[:, :one, :other].to(q.dtype),
            is_causal=causal and bias is None,
            scale=scale,
            dropout_p=dropout,
        )
        parts.append(mixed.transpose(1, 2).flatten(0, 1))
    return torch.cat(parts)


@dataclass(frozen=True)
class _Rectangle:
    """Documents as rows padded on the right: ``place`` (N,) of every row among B x ``longest``."""

    place: Tensor
    lengths: Tensor
    longest: int

    def split(self, x: Tensor) -> Tensor:
        """Rows of x (N, heads, d) as (B, heads, longest, d), zero at padding."""
        count = len(self.lengths)
        blank = x.new_zeros(count * self.longest, x.shape[1] * x.shape[2])
        filled = blank.index_copy(0, self.place, x.flatten(1))
        return filled.view(count, self.longest, *x.shape[1:]).transpose(1, 2)

    def joined(self, x: Tensor) -> Tensor:
        """What ``split`` was given, of x (B, heads, longest, d)."""
        rows = x.transpose(1, 2).reshape(-1, x.shape[1] * x.shape[3])
        return rows.index_select(0, self.place).view(-1, x.shape[1], x.shape[3])


def _rectangles(starts: Tensor, sources: Tensor) -> tuple[_Rectangle, _Rectangle] | None:
    """Both sides padded, or None: documents alike in length, or too unlike for padding to pay."""
    found = []
    for bounds in (starts, sources):
        lengths = bounds.diff()
        longest = int(lengths.max())
        numbers = torch.arange(int(bounds[-1]), device=bounds.device)
        shift = torch.arange(len(lengths), device=bounds.device) * longest - bounds[:-1]
        found.append(_Rectangle(numbers + shift.repeat_interleave(lengths), lengths, longest))
    rows, columns = found
    used = int((rows.lengths * columns.lengths).sum())
    one = rows.longest * columns.longest
    area = len(rows.lengths) * one
    # Of short documents calls cost more than all their padding, however unlike they are: 128 pairs
    # of up to 40 tokens took 8 ms there and back at once and 57 one by one, of up to 90 40 and 51.
    pays = area <= PADDING * used or one <= SHORT * SHORT
    return (rows, columns) if used < area and pays else None


def _padded(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sides: tuple[_Rectangle, _Rectangle],
    scale: float,
    *,
    causal: bool,
    bias: Tensor | None,
    dropout: float,
) -> Tensor:
    """Attention of all documents at once, each padded to the longest."""
    rows, columns = sides
    span = torch.arange(columns.longest, device=q.device)
    seen = (span < columns.lengths[:, None])[:, None, None]
    if causal:
        seen = seen & (span <= torch.arange(rows.longest, device=q.device)[:, None])
    if bias is not None:
        bias = bias[:, : rows.longest, : columns.longest].to(q.dtype)
    one, other, values = rows.split(q), columns.split(k), columns.split(v)
    if q.device.type == "cpu" and rows.longest * columns.longest <= SHORT * SHORT:
        products = (one * scale) @ other.transpose(-1, -2)
        products = products if bias is None else products + bias
        weights = products.masked_fill(~seen, -torch.inf).softmax(-1)
        return rows.joined(F.dropout(weights, dropout) @ values)
    mask = seen if bias is None else bias.masked_fill(~seen, -torch.inf)
    mixed = F.scaled_dot_product_attention(
        one, other, values, attn_mask=mask, scale=scale, dropout_p=dropout
    )
    return rows.joined(mixed)


def _windowed(
    q: Tensor, k: Tensor, v: Tensor, starts: Tensor, scale: float, *, window: int, dropout: float
) -> Tensor:
    """Attention within ``window`` on both sides: blocks of queries against three blocks of keys.

    The cost grows with the length, not with its square.
    """
    lengths = starts.diff()
    if int(lengths.max()) <= window + 1:
        return attend(q, k, v, starts, scale, dropout=dropout)
    parts = []
    for rows, _, count in _documents(starts, starts):
        one = (rows[1] - rows[0]) // count
        qs, ks, vs = (_split(x, rows, count) for x in (q, k, v))
        numbers = torch.arange(one, device=q.device)
        blocks = []
        for first in range(0, one, window):
            here = slice(first, min(first + window, one))
            near = slice(max(0, first - window), min(first + 2 * window, one))
            seen = (numbers[here, None] - numbers[near]).abs() <= window
            mixed = F.scaled_dot_product_attention(
                qs[:, :, here],
                ks[:, :, near],
                vs[:, :, near],
                attn_mask=seen,
                scale=scale,
                dropout_p=dropout,
            )
            blocks.append(mixed)
        parts.append(torch.cat(blocks, dim=2).transpose(1, 2).flatten(0, 1))
    return torch.cat(parts)


class MultiHead(nn.Module):
    """softmax(scale QK^T + bias) V with as many key heads as query heads (arXiv:1706.03762).

    ``bias`` of the constructor says whether the four linear maps have one; ``scale`` is that of
    the products (0: head_width^-0.5); ``dropout`` thins out the weights in training, for which
    PyTorch's attention is needed in place of our kernel.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        head_width: int = 0,
        bias: bool = True,
        scale: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.heads, self.head_width = heads, head_width or width // heads
        self.scale = scale or self.head_width**-0.5
        self.dropout = dropout
        inner = heads * self.head_width
        self.query = nn.Linear(width, inner, bias=bias)
        self.key = nn.Linear(width, inner, bias=bias)
        self.value = nn.Linear(width, inner, bias=bias)
        self.out = nn.Linear(inner, width, bias=bias)

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, self.head_width)

    @property
    def _thinned(self) -> float:
        return self.dropout if self.training else 0.0

    def forward(
        self, x: Tensor, starts: Tensor, *, causal: bool = False, bias: Tensor | None = None
    ) -> Tensor:
        """Attend within the documents of the rows x (N, width); see ``attend``."""
        q, k, v = self._heads(self.query(x)), *self.keys_values(x)
        mixed = attend(q, k, v, starts, self.scale, causal=causal, bias=bias, dropout=self._thinned)
        out: Tensor = self.out(mixed.flatten(-2))
        return out

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (..., heads, d) of memory (..., width)."""
        return self._heads(self.key(memory)), self._heads(self.value(memory))

    def across(self, x: Tensor, memory: Tensor, starts: Tensor, sources: Tensor) -> Tensor:
        """Every document of x (N, width) looks at its own document of memory (M, width)."""
        q, k, v = self._heads(self.query(x)), *self.keys_values(memory)
        mixed = attend(q, k, v, starts, self.scale, sources=sources, dropout=self._thinned)
        out: Tensor = self.out(mixed.flatten(-2))
        return out

    def cached(
        self, x: Tensor, layer: tuple[Tensor, Tensor, Tensor], bias: Tensor | None = None
    ) -> Tensor:
        """Attend over a cache with the new rows x (B, T, width).

        ``layer`` is (keys, values, positions): the new keys and values are written at
        ``positions`` (B, T), and every query sees the positions up to its own. ``bias``
        (B, heads, T, span) is added to the products, span the longest row's length.
        """
        keys, values, positions = layer
        b, t, _ = x.shape
        k, v = (y.transpose(1, 2) for y in self.keys_values(x))
        index = positions[:, None, :, None].expand(b, self.heads, t, self.head_width)
        keys.scatter_(2, index, k.to(keys.dtype))
        values.scatter_(2, index, v.to(values.dtype))
        span = int(positions.max()) + 1
        seen = torch.arange(span, device=x.device) <= positions[:, None, :, None]
        mask = seen if bias is None else bias.masked_fill(~seen, -torch.inf)
        return self.looking(x, keys[:, :, :span], values[:, :, :span], mask)

    def looking(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Rows x (B, T, width) look at keys (B, heads, S, d), as mask (B, 1, 1 or T, S) allows."""
        q = self._heads(self.query(x)).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(
            q, keys.to(q.dtype), values.to(q.dtype), attn_mask=mask, scale=self.scale
        )
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(-2))
        return out


class TwoLayers(nn.Module):
    """down(dropout(f(up x))), or gated: down(dropout(f(gate x) * up x)) (arXiv:2002.05202)."""

    def __init__(
        self,
        width: int,
        hidden: int,
        kind: str,
        *,
        gated: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=bias) if gated else None
        self.up = nn.Linear(width, hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)
        self.activation = activation(kind)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., width) to the same shape."""
        up = self.up(x)
        hidden = self.activation(up) if self.gate is None else self.activation(self.gate(x)) * up
        out: Tensor = self.down(self.dropout(hidden))
        return out


def sum_of_costs(
    logits_of: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor, smoothing: float = 0.0
) -> Tensor:
    """Summed cross-entropy, in nats, of targets (n,) under logits_of(hidden (n, width)).

    Rows are taken in chunks whose logits are made anew in the backward pass, so that those of a
    large vocabulary never exist whole. ``smoothing`` is the share of the target's probability
    that is spread over the vocabulary.
    """

    def cost(h: Tensor, y: Tensor) -> Tensor:
        logits = logits_of(h).float()
        return F.cross_entropy(logits, y, reduction="sum", label_smoothing=smoothing)

    if not len(targets):
        return hidden.sum() * 0.0
    width = logits_of(hidden[:1]).shape[-1] if len(targets) > 1 else 1
    rows = max(1, LOGIT_BYTES // (4 * width))
    pieces = list(zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True))
    if len(pieces) == 1 or not torch.is_grad_enabled():
        return torch.stack([cost(h, y) for h, y in pieces]).sum()
    total = hidden.new_zeros((), dtype=torch.float32)
    for h, y in pieces:
        total = total + checkpoint(cost, h, y, use_reentrant=False)
    return total


def normal_start(model: nn.Module, deviation: float = 0.02) -> None:
    """Weights and tables from N(0, deviation^2), biases zero (arXiv:1810.04805)."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=deviation)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def near_size(
    parameters: int, fixed: Mapping[str, Any], matrices: Callable[[int, int], int]
) -> dict[str, Any]:
    """Depth, width and heads (64 wide) for about ``parameters`` in the blocks' matrices.

    ``matrices(depth, width)`` counts them. Of the shapes near the target the one is taken whose
    width is nearest 64 times its depth, as BERT's are.
    """
    best: dict[str, Any] = {}
    error = math.inf
    depths = [int(fixed["depth"])] if "depth" in fixed else range(2, 49)
    widths = [int(fixed["width"])] if "width" in fixed else range(64, 4097, 64)
    for depth in depths:
        for width in widths:
            miss = abs(math.log(matrices(depth, width) / parameters))
            miss += 0.3 * abs(math.log(width / depth / 64))
            if miss < error:
                best, error = {"depth": depth, "width": width}, miss
    heads = int(fixed.get("heads", max(1, best["width"] // 64)))
    return {**best, "heads": heads}
