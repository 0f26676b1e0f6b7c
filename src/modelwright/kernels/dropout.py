"""Dropout that costs next to nothing on a CPU; see ``dropout.cpp``.

PyTorch draws its mask with one serial generator: up to 41 % of a training step. Here the mask is
a hash of (seed, position), the seed one number drawn from PyTorch's generator.
"""

from __future__ import annotations

import ctypes

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelwright.kernels.build import constant, library

NEEDS = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16")
_DTYPES = (torch.float32, torch.bfloat16)


@constant
def available() -> bool:
    """Whether the kernel can run here."""
    return library("dropout", NEEDS) is not None


class Dropout(nn.Module):
    """Zero each number with probability p in training, scale the others by 1/(1-p).

    Srivastava et al. 2014. Off in evaluation, as PyTorch's.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Map x of any shape."""
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu" or x.dtype not in _DTYPES or self.p >= 1 or not available():
            return F.dropout(x, self.p)
        seed = torch.randint(1 << 62, (1,))
        dropped: Tensor = torch.ops.modelwright.dropout(x, seed, self.p)
        return dropped


@torch.library.custom_op("modelwright::dropout", mutates_args=())
def _dropout(x: Tensor, seed: Tensor, p: float) -> Tensor:
    kernel = library("dropout", NEEDS)
    assert kernel is not None  # noqa: S101 - asked before
    x = x.contiguous()
    out = torch.empty_like(x)
    kernel.dropout(
        ctypes.c_void_p(x.data_ptr()),
        ctypes.c_void_p(out.data_ptr()),
        ctypes.c_long(x.numel()),
        ctypes.c_int(x.dtype == torch.bfloat16),
        ctypes.c_long(int(seed)),
        ctypes.c_double(p),
        ctypes.c_int(torch.get_num_threads()),
    )
    return out


@_dropout.register_fake
def _(x: Tensor, seed: Tensor, p: float) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype)


def _keep(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    _, seed, ctx.p = inputs
    ctx.save_for_backward(seed)


def _slope(ctx, grad):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    (seed,) = ctx.saved_tensors
    return torch.ops.modelwright.dropout(grad, seed, ctx.p), None, None


_dropout.register_autograd(_slope, setup_context=_keep)
