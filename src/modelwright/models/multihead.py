"""Attention of many heads over padded batches (arXiv:1706.03762), as speech models have it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class MultiHead(nn.Module):
    """softmax(Q K^T / sqrt(d)) V with biases, of the stream over itself or over a memory.

    ``key_bias`` is a switch of its own: a bias of the keys adds the same number to all logits of
    a query, which the softmax takes away again, so some models leave it out.
    """

    def __init__(self, width: int, heads: int, *, key_bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=key_bias)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def keys_and_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, heads, S, d) of what is attended to, ``memory`` (B, S, width)."""
        return self._split(self.key(memory)), self._split(self.value(memory))

    def attend(
        self,
        x: Tensor,
        keys: Tensor,
        values: Tensor,
        seen: Tensor | None = None,
        *,
        causal: bool = False,
    ) -> Tensor:
        """What the rows x (B, T, width) read of keys and values (B, heads, S, d).

        ``seen`` is boolean, broadcast to (B, heads, T, S): what a row may read. ``causal``: row t
        reads the first t + 1.
        """
        q = self._split(self.query(x))
        mixed = F.scaled_dot_product_attention(
            q, keys.to(q.dtype), values.to(q.dtype), attn_mask=seen, is_causal=causal
        )
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(-2))
        return out

    def forward(self, x: Tensor, seen: Tensor | None = None, *, causal: bool = False) -> Tensor:
        """Attention of x (B, T, width) over itself; see ``attend``."""
        return self.attend(x, *self.keys_and_values(x), seen, causal=causal)

    def _split(self, y: Tensor) -> Tensor:
        return y.view(*y.shape[:-1], self.heads, -1).transpose(1, 2)
