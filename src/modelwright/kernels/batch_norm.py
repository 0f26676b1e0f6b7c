"""Batch normalisation, the sum and the activation after it as one; see ``batch_norm.cpp``.

In bfloat16 training PyTorch goes over the planes five times for a norm and a ReLU and eight times
with the sum of a residual block, and as often back; the kernel goes over them two times each way.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from modelwright.kernels.build import constant, library
from modelwright.kernels.calls import applied, call, plain

NEEDS = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16")
Act = Literal["none", "relu", "gelu"]
_CODES: dict[str, int] = {"none": 0, "relu": 1, "gelu": 2}  # as in the kernel

_call = partial(call, "batch_norm", NEEDS)


@constant
def available() -> bool:
    """Whether the kernel can run here."""
    return library("batch_norm", NEEDS) is not None


def activated(u: Tensor, act: Act, added: Tensor | None = None) -> Tensor:
    """act(u + added), by PyTorch's operations."""
    summed = u if added is None else u + added
    if act == "relu":
        return F.relu(summed)
    return F.gelu(summed) if act == "gelu" else summed


def fits(x: Tensor, act: Act, added: Tensor | None, *parameters: Tensor) -> bool:
    """Whether ``batch_norm`` can be asked: bfloat16 planes, channels last, on a CPU that can.

    Args:
        x: (B, C, H, W).
        act: the activation.
        added: of x's shape, or None; a GELU takes none.
        parameters: gain, bias and the running statistics.
    """
    return (
        x.dtype == torch.bfloat16
        and x.ndim == 4
        and x.numel() > 0
        and x.is_contiguous(memory_format=torch.channels_last)
        and (added is None or (act != "gelu" and _alike(added, x)))
        and plain(x, *parameters)
        and available()
    )


def _alike(added: Tensor, x: Tensor) -> bool:
    return (
        added.dtype == x.dtype
        and added.shape == x.shape
        and added.is_contiguous(memory_format=torch.channels_last)
    )


def batch_norm(
    x: Tensor,
    gain: Tensor,
    bias: Tensor,
    statistics: tuple[Tensor, Tensor],
    *,
    eps: float,
    momentum: float,
    act: Act,
    added: Tensor | None,
) -> Tensor:
    """act((x - mean) / sqrt(variance + eps) * gain + bias + added) by the batch's statistics.

    For what ``fits``.

    Args:
        x: (B, C, H, W).
        gain: (C,).
        bias: (C,).
        statistics: the running mean and variance, (C,) each, which take in this batch's mean and
            unbiased variance where these are finite.
        eps: keeps planes of zeros finite.
        momentum: the batch's share of the new statistics.
        act: what is done to the sum.
        added: (B, C, H, W) or None.

    Returns:
        (B, C, H, W), channels last.
    """
    return applied(_BatchNorm, x, gain, bias, added, statistics, eps, momentum, _CODES[act])


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gain: Tensor,
        bias: Tensor,
        added: Tensor | None,
        statistics: tuple[Tensor, Tensor],
        eps: float,
        momentum: float,
        act: int,
    ) -> Tensor:
        rows, channels = x.numel() // x.shape[1], x.shape[1]
        mean, root, scale, offset = (torch.empty_like(gain) for _ in range(4))
        out = torch.empty_like(x)
        found = (mean, root, scale, offset, out)
        _call(
            "batch_norm",
            *(x, added, gain, bias, *statistics, *found, rows, channels, act, eps, momentum),
        )
        ctx.act, ctx.sums = act, added is not None
        ctx.save_for_backward(x, out if ctx.sums else None, scale, offset, mean, root)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, out, scale, offset, mean, root = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        dx, kept = torch.empty_like(x), torch.empty_like(x) if ctx.sums else None
        slopes = torch.empty_like(mean), torch.empty_like(mean)
        rows, channels = x.numel() // len(mean), len(mean)
        given = (grad, x, out, scale, offset, mean, root, dx, kept, *slopes)
        _call("batch_norm_backward", *given, rows, channels, ctx.act)
        return dx, *slopes, kept, None, None, None, None
