"""Causal grouped-query attention, with a cache of keys and values for generation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelwright.models.layers import RMSNorm, rotate


@dataclass
class Cache:
    """Keys and values of what has been read, for a batch of sequences of different lengths.

    ``keys`` and ``values`` hold one tensor (B, kv_heads, capacity, head_width) per layer;
    ``lengths`` (B,) counts the valid positions of each row.
    """

    keys: list[Tensor]
    values: list[Tensor]
    lengths: Tensor

    @property
    def capacity(self) -> int:
        """The most positions a row can hold."""
        return self.keys[0].shape[2]


class Attention(nn.Module):
    """softmax(QK^T / sqrt(d)) V with fewer key/value heads than query heads (arXiv:2305.13245).

    Queries and keys are normalised before the rotation (QK-norm, arXiv:2010.04245), which keeps
    the logits bounded at high learning rates.
    """

    def __init__(self, width: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_width = heads, kv_heads, width // heads
        self.query = nn.Linear(width, heads * self.head_width, bias=False)
        self.key = nn.Linear(width, kv_heads * self.head_width, bias=False)
        self.value = nn.Linear(width, kv_heads * self.head_width, bias=False)
        self.out = nn.Linear(heads * self.head_width, width, bias=False)
        self.query_norm = RMSNorm(self.head_width)
        self.key_norm = RMSNorm(self.head_width)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        layer: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Attend within x (B, T, width), or over a cache.

        ``layer`` is (keys, values, positions) of the cache: the new keys and values are written
        at ``positions`` (B, T) and every query sees the positions up to its own.
        """
        b, t, _ = x.shape
        q = rotate(self.query_norm(self._split(self.query(x))), *rotary)
        k = rotate(self.key_norm(self._split(self.key(x))), *rotary)
        v = self._split(self.value(x))
        grouped = self.kv_heads != self.heads
        if layer is None:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        else:
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
                enable_gqa=grouped,
            )
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(b, t, -1))
        return out

    def _split(self, y: Tensor) -> Tensor:
        """(B, T, heads * head_width) to (B, heads, T, head_width)."""
        b, t, _ = y.shape
        return y.view(b, t, -1, self.head_width).transpose(1, 2)
