"""Grouped-query attention: over packed documents, or with a cache for generation."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelwright.kernels.attention import Grid, packed_attention
from modelwright.kernels.elementwise import mix, norm_rotate
from modelwright.models.layers import RMSNorm
from modelwright.models.slices import Slice


@dataclass
class Cache:
    """Keys and values of what has been read, for a batch of sequences of different lengths.

    ``keys`` and ``values`` hold one tensor (B, kv_heads, capacity, head_width) per layer;
    ``lengths`` (B,) counts the valid positions of each row; ``previous`` (B,) is the last token
    read of each row, -1 where there is none.
    """

    keys: list[Tensor]
    values: list[Tensor]
    lengths: Tensor
    previous: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))

    def __post_init__(self) -> None:
        if len(self.previous) != len(self.lengths):
            self.previous = torch.full_like(self.lengths, -1)

    @property
    def capacity(self) -> int:
        """The most positions a row can hold."""
        return self.keys[0].shape[2]

    def taken(self, rows: Tensor) -> Cache:
        """A copy with the rows of these numbers (n,), in their order; one may come twice."""
        return Cache(
            [k[rows] for k in self.keys],
            [v[rows] for v in self.values],
            self.lengths[rows],
            self.previous[rows],
        )


def positions_in(starts: Tensor | Grid, rows: int) -> Tensor:
    """Position (rows,) of every packed row in its document; starts (documents + 1,) or a grid."""
    if isinstance(starts, Grid):
        return starts.positions()
    numbers = torch.arange(rows, device=starts.device)
    return numbers - starts[torch.searchsorted(starts, numbers, right=True) - 1]


def first_rows(rows: Tensor, starts: Tensor | Grid) -> Tensor:
    """The first row (documents, width) of every document among rows (N, width)."""
    if isinstance(starts, Grid):
        return rows.view(*starts.kept.shape, -1)[:, 0]
    return rows[starts[:-1]]


def last_rows(rows: Tensor, starts: Tensor | Grid) -> Tensor:
    """The last row (documents, width) of every document among rows (N, width)."""
    if isinstance(starts, Grid):
        ends = starts.kept.sum(1) - 1
        return rows.view(*starts.kept.shape, -1)[torch.arange(len(ends)), ends]
    return rows[starts[1:] - 1]


def mean_rows(rows: Tensor, starts: Tensor | Grid) -> Tensor:
    """The mean row (documents, width) of every document among rows (N, width)."""
    if isinstance(starts, Grid):
        kept = starts.kept[..., None].to(rows.dtype)
        return (rows.view(*starts.kept.shape, -1) * kept).sum(1) / kept.sum(1)
    return torch.segment_reduce(rows, "mean", lengths=starts.diff())


class Attention(nn.Module):
    """softmax(QK^T / sqrt(d)) V with fewer key/value heads than query heads (arXiv:2305.13245).

    Queries and keys are normalised before the rotation (QK-norm, arXiv:2010.04245), which keeps
    the logits bounded at high learning rates. ``mixing`` adds to every value a vector that the
    token alone decides: v <- a v + b e(token), a and b learned (arXiv:2410.17897 has the idea of
    carrying early values to every layer; tables of their own come from the GPT-2 speed runs).
    ``causal``: a row sees itself and the rows before it; otherwise its whole document.
    """

    def __init__(
        self, width: int, heads: int, kv_heads: int, *, mixing: bool = False, causal: bool = True
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_width = heads, kv_heads, width // heads
        self.causal = causal
        self.query = nn.Linear(width, heads * self.head_width, bias=False)
        self.key = nn.Linear(width, kv_heads * self.head_width, bias=False)
        self.value = nn.Linear(width, kv_heads * self.head_width, bias=False)
        self.out = nn.Linear(heads * self.head_width, width, bias=False)
        self.query_norm = RMSNorm(self.head_width)
        self.key_norm = RMSNorm(self.head_width)
        self.value_mix = nn.Parameter(torch.tensor([1.0, 0.5])) if mixing else None

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        extra: Tensor | None,
        starts: Tensor | Slice,
    ) -> Tensor:
        """Attend within the documents of the rows x (N, width).

        ``rotary`` are cosine and sine (N, 1, d/2), ``extra`` (N, kv_heads * d) is what ``mixing``
        adds, ``starts`` (documents + 1,) the documents' bounds among the rows, or the slice of a
        longer stream that the rows are.
        """
        q, k, v = self._projected(x, rotary, extra)
        scale = self.head_width**-0.5
        if isinstance(starts, Slice):
            mixed = starts.attention(q, k, v, scale)
        else:
            mixed = packed_attention(q, k, v, starts, scale, causal=self.causal)
        out: Tensor = self.out(mixed.flatten(-2))
        return out

    def cached(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        extra: Tensor | None,
        layer: tuple[Tensor, Tensor, Tensor],
    ) -> Tensor:
        """Attend over a cache with the new rows x (B, T, width).

        ``layer`` is (keys, values, positions) of the cache: the new keys and values are written
        at ``positions`` (B, T) and every query sees the positions up to its own.
        """
        b, t, _ = x.shape
        q, k, v = (y.transpose(1, 2) for y in self._projected(x, rotary, extra))
        keys, values, positions = layer
        index = positions[:, None, :, None].expand(b, self.kv_heads, t, self.head_width)
        keys.scatter_(2, index, k.to(keys.dtype))
        values.scatter_(2, index, v.to(values.dtype))
        span = int(positions.max()) + 1  # read no further than the longest row
        seen = torch.arange(span, device=x.device) <= positions[:, None, :, None]
        mixed = F.scaled_dot_product_attention(
            q,
            keys[:, :, :span].to(q.dtype),
            values[:, :, :span].to(q.dtype),
            attn_mask=seen,
            enable_gqa=self.kv_heads != self.heads,
        )
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(-2))
        return out

    def _projected(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], extra: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (..., heads, d) of x (..., width)."""

        def split(y: Tensor) -> Tensor:
            return y.view(*y.shape[:-1], -1, self.head_width)

        v = self.value(x)
        if self.value_mix is not None and extra is not None:
            v = mix(self.value_mix, v, extra)
        q = self._rotated(split(self.query(x)), self.query_norm, rotary)
        k = self._rotated(split(self.key(x)), self.key_norm, rotary)
        return q, k, split(v)

    @staticmethod
    def _rotated(heads: Tensor, norm: RMSNorm, rotary: tuple[Tensor, Tensor]) -> Tensor:
        return norm_rotate(heads, norm.gain, norm.eps, *rotary)
