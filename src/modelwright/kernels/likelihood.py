"""Loss and gradient of a chunk of logits in one pass over it; see ``likelihood.cpp``."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from modelwright.kernels.build import hollow, library

NEEDS = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16")


def fits(hidden: Tensor) -> bool:
    """Whether the kernel can take logits of such hidden states: bfloat16 on a CPU."""
    on_cpu = hidden.device.type == "cpu" and hidden.dtype == torch.bfloat16
    return on_cpu and library("likelihood", NEEDS) is not None


def likelihood_(logits: Tensor, targets: Tensor, cap: float) -> float:
    """Summed -log p of ``targets`` (n,), in nats; ``logits`` (n, V) become their gradient.

    With a cap the scores are c tanh(z / c), and the gradient is that of the loss by z.
    """
    if hollow(logits):
        return 0.0
    kernel = library("likelihood", NEEDS)
    assert kernel is not None  # noqa: S101 - asked before by ``fits``
    kernel.likelihood.restype = ctypes.c_double
    total: float = kernel.likelihood(*_given(logits, targets, cap))
    if total <= -1e300:
        raise MemoryError("likelihood: not enough memory for its scratch")
    return total


def likelihoods_(logits: Tensor, targets: Tensor, cap: float) -> Tensor:
    """-log p of every row's target, (n,) float64 in nats; otherwise as ``likelihood_``."""
    losses = torch.empty(len(logits), dtype=torch.float64)
    if hollow(logits):
        return losses
    kernel = library("likelihood", NEEDS)
    assert kernel is not None  # noqa: S101
    if kernel.likelihoods(*_given(logits, targets, cap), ctypes.c_void_p(losses.data_ptr())):
        raise MemoryError("likelihood: not enough memory for its scratch")
    return losses


def _given(logits: Tensor, targets: Tensor, cap: float) -> tuple[object, ...]:
    """What both of them are called with."""
    if targets.dtype != torch.int64:
        raise TypeError(f"likelihood: targets are {targets.dtype}, not int64")
    if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < logits.shape[1]:
        raise IndexError(f"likelihood: a target is not in 0..{logits.shape[1] - 1}")
    return (
        ctypes.c_void_p(logits.data_ptr()),
        ctypes.c_void_p(targets.data_ptr()),
        ctypes.c_long(logits.shape[0]),
        ctypes.c_long(logits.shape[1]),
        ctypes.c_float(cap),
        ctypes.c_int(torch.get_num_threads()),
    )


def accumulate_(into: Tensor, part: Tensor) -> None:
    """``into`` (float32) += ``part`` (bfloat16), both contiguous and of one shape."""
    if hollow(into):
        return
    kernel = library("likelihood", NEEDS)
    assert kernel is not None  # noqa: S101
    kernel.accumulate(
        ctypes.c_void_p(into.data_ptr()),
        ctypes.c_void_p(part.data_ptr()),
        ctypes.c_long(into.numel()),
        ctypes.c_int(torch.get_num_threads()),
    )
