"""Small parts that model families share: norms, rotary positions, feed-forward blocks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelwright.kernels.elementwise import relu_squared_, rms_norm
from modelwright.models.rope import Rope

# Of a pair of tokens: two odd multipliers and a prime beyond them.
_HASH = (1_000_003, 998_244_353, 2_147_483_647)


def pair_rows(tokens: Tensor, before: Tensor, rows: int) -> Tensor:
    """The row 0 .. rows - 1, by a hash, of every pair of a token and the one ``before`` it or -1.

    Hashed n-grams as embeddings: arXiv:1607.01759, section 2.2.
    """
    return (tokens * _HASH[0] + (before + 1) * _HASH[1]) % _HASH[2] % rows


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * gain over the last dimension (arXiv:1910.07467).

    ``feeds_product``: what comes out goes into matrix products alone.
    """

    def __init__(self, width: int, eps: float = 1e-6, *, feeds_product: bool = False) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))
        self.eps = eps
        self.feeds_product = feeds_product

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (..., width)."""
        return rms_norm(x, self.gain, self.eps, feeds_product=self.feeds_product)


class Rotary(nn.Module):
    """Rotary position embedding over pairs (i, i + d/2) of a head (arXiv:2104.09864).

    Angle of pair i at position p: p * base^(-2i/d), or as a ``stretched`` one has it.
    """

    def __init__(
        self, head_width: int, length: int, base: float = 10_000.0, stretched: Rope | None = None
    ) -> None:
        super().__init__()
        positions = torch.arange(length, dtype=torch.float32)
        if stretched is None:
            frequency = base ** (-torch.arange(0, head_width, 2, dtype=torch.float32) / head_width)
            angle = torch.outer(positions, frequency)
            cos, sin = angle.cos(), angle.sin()
        else:
            cos, sin = (table.squeeze(-2) for table in stretched.tables(positions))
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def tables(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine (..., 1, d/2) for integer positions (...), the same for all heads."""
        cos: Tensor = self.get_buffer("cos")[positions]
        sin: Tensor = self.get_buffer("sin")[positions]
        return cos.unsqueeze(-2), sin.unsqueeze(-2)


class FeedForward(nn.Module):
    """Two-layer block: gated SiLU (arXiv:2002.05202) or squared ReLU (arXiv:2109.08668).

    "gated": down(silu(gate x) * up x); "relu2": down(relu(up x)^2).
    """

    def __init__(self, width: int, hidden: int, kind: str) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=False) if kind == "gated" else None
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., width) to the same shape."""
        up = self.up(x)
        hidden = relu_squared_(up) if self.gate is None else F.silu(self.gate(x)) * up
        out: Tensor = self.down(hidden)
        return out
