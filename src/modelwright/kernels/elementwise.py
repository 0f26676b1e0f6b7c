"""What surrounds the matrix products of a block in one pass each; see ``elementwise.cpp``.

PyTorch takes a pass over memory for every operation: in a bfloat16 step of a small decoder that
is not compiled these take two fifths of the time. Each function here does what its formula says
with PyTorch's operations too, where the kernel cannot run: in float32, on other devices, and while
a compiler traces, which joins the passes by itself.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from modelwright.kernels.build import constant, library
from modelwright.kernels.calls import DTYPES, applied, call, plain

NEEDS = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16")


@constant
def available() -> bool:
    """Whether the kernel can run here."""
    return library("elementwise", NEEDS) is not None


def rms_norm(x: Tensor, gain: Tensor, eps: float, *, feeds_product: bool = False) -> Tensor:
    """X / sqrt(mean(x^2) + eps) * gain over the last dimension.

    Args:
        x: (..., width).
        gain: (width,).
        eps: keeps rows of zeros finite.
        feeds_product: the result goes into matrix products alone, so under autocast it may be as
            narrow as they want it.

    Returns:
        (..., width), of x's type or the narrower.
    """
    narrow = feeds_product and _narrow()
    fits = (narrow or x.dtype == torch.bfloat16) and _fits(x, gain)
    if fits and gain.shape == x.shape[-1:]:
        return applied(_RMSNorm, x, gain, eps, torch.bfloat16 if narrow else x.dtype)
    return F.rms_norm(x, gain.shape, gain.to(x.dtype), eps)


def norm_rotate(x: Tensor, gain: Tensor, eps: float, cos: Tensor, sin: Tensor) -> Tensor:
    """RMSNorm of every head, then its rotation by the angles of its row.

    Args:
        x: (..., heads, d).
        gain: (d,).
        eps: keeps rows of zeros finite.
        cos: (..., 1, d/2).
        sin: (..., 1, d/2).
    """
    if x.dtype == torch.bfloat16 and _fits(x, gain) and _turns(x, gain, cos, sin):
        return applied(_NormRotate, x, gain, eps, cos, sin)
    return rotate(F.rms_norm(x, gain.shape, gain.to(x.dtype), eps), cos, sin)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x (..., heads, d) by the angles of its positions, in float32."""
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)


def relu_squared_(x: Tensor) -> Tensor:
    """max(x, 0)^2 (arXiv:2109.08668); may take the place of x, which is then kept only once.

    x must be a fresh result that nobody else reads and whose own gradient does not need it, as
    that of a linear map.
    """
    if x.dtype == torch.bfloat16 and x.is_contiguous() and _fits(x):
        return applied(_ReluSquared, x)
    return F.relu(x).square()


def mix(scales: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """scales[0] x + scales[1] y, of x's type; scales (2,), x and y of one shape."""
    fits = (_narrow() or x.dtype == torch.bfloat16) and _fits(x, scales)
    if fits and y.dtype in DTYPES and y.shape == x.shape:
        return applied(_Mix, scales, x, y)
    return (scales[0] * x + scales[1] * y).to(x.dtype)


def _narrow() -> bool:
    """Whether matrix products on the CPU are taken in bfloat16."""
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


def _turns(x: Tensor, gain: Tensor, cos: Tensor, sin: Tensor) -> bool:
    """Whether every row of heads has its gains and angles, in float32."""
    angles = torch.Size((*x.shape[:-2], 1, x.shape[-1] // 2))
    alike = cos.dtype == sin.dtype == torch.float32 and cos.shape == sin.shape == angles
    return alike and gain.shape == x.shape[-1:] and x.shape[-1] % 2 == 0


def _fits(x: Tensor, *parameters: Tensor) -> bool:
    """Whether the kernel can take it."""
    return plain(x, *parameters) and available()


_call = partial(call, "elementwise", NEEDS)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        x, width = x.contiguous(), x.shape[-1]
        rows = x.numel() // width
        out = torch.empty_like(x, dtype=dtype)
        roots = torch.empty(rows)
        _call("rms_norm", x, x.dtype, gain, out, dtype, roots, rows, width, eps)
        ctx.save_for_backward(x, gain, roots)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, roots = ctx.saved_tensors
        grad = grad.contiguous()
        dx, slope = torch.empty_like(x), torch.zeros_like(gain)
        sizes = (len(roots), len(gain))
        _call("rms_norm_backward", grad, grad.dtype, x, x.dtype, gain, roots, dx, slope, *sizes)
        return dx, slope, None, None


class _NormRotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float, cos: Tensor, sin: Tensor) -> Tensor:
        x, cos, sin = x.contiguous(), cos.contiguous(), sin.contiguous()
        heads, pairs = x.shape[-2], x.shape[-1] // 2
        rows = x.numel() // (heads * 2 * pairs)
        out = torch.empty_like(x)
        roots = torch.empty(rows, heads)
        _call("norm_rotate", x, gain, cos, sin, out, roots, rows, heads, pairs, eps)
        ctx.save_for_backward(x, gain, cos, sin, roots)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, cos, sin, roots = ctx.saved_tensors
        dx, slope = torch.empty_like(x), torch.zeros_like(gain)
        sizes = (*roots.shape, len(gain) // 2)
        given = (grad.contiguous(), x, gain, cos, sin, roots, dx, slope)
        _call("norm_rotate_backward", *given, *sizes)
        return dx, slope, None, None, None


class _ReluSquared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        _call("relu_squared", x, None, x.numel())
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (squares,) = ctx.saved_tensors
        slope = grad.clone(memory_format=torch.contiguous_format)
        _call("relu_squared", squares, slope, squares.numel())
        return slope


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scales: Tensor, x: Tensor, y: Tensor) -> Tensor:
        x, y = x.contiguous(), y.contiguous()
        out = torch.empty_like(x)
        _call("mix", scales, x, x.dtype, y, y.dtype, out, x.numel())
        ctx.save_for_backward(scales, x, y)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scales, x, y = ctx.saved_tensors
        dx, dy, slopes = torch.empty_like(x), torch.empty_like(y), torch.zeros_like(scales)
        given = (scales, grad.contiguous(), x, x.dtype, y, y.dtype, dx, dy, slopes)
        _call("mix_backward", *given, x.numel())
        return slopes, dx, dy
