"""Attention over documents that stand one after another (packed, of any lengths).

    o_i = sum_j softmax_j(scale * q_i . k_j) v_j,   j in the document of i; j <= i when causal

with fewer key/value heads than query heads where wanted (arXiv:2305.13245). On processors with
AVX-512 BF16 a kernel of ours does it (``attention.cpp``), elsewhere PyTorch's.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from modelwright.kernels.build import compiler_loaded, constant, library

NEEDS = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16")


@constant
def available() -> bool:
    """Whether the kernel can run here."""
    return library("attention", NEEDS) is not None


def fits(q: Tensor) -> bool:
    """Whether the kernel takes such queries: bfloat16 on a CPU, heads a multiple of 16 wide."""
    return (
        q.device.type == "cpu"
        and q.dtype == torch.bfloat16
        and q.shape[-1] % 16 == 0
        and available()
    )


@dataclass(frozen=True, eq=False)
class Grid:
    """Documents as the rows of a rectangle, padded on the right, in place of their bounds.

    A graph for other programs has no loop over documents. Whatever takes ``starts`` takes this as
    well, for rows that are the rectangle read row by row; what comes out at padding means nothing.
    ``kept`` (documents, length) is true where a row is no padding.
    """

    kept: Tensor
    _seen: dict[tuple[bool, int], Tensor] = field(default_factory=dict, repr=False)

    def positions(self) -> Tensor:
        """Position (rows,) of every row in its document."""
        numbers = torch.arange(self.kept.shape[1], device=self.kept.device)
        return numbers.expand(self.kept.shape).flatten()

    def split(self, x: Tensor) -> Tensor:
        """Rows (rows, heads, width) as (documents, heads, length, width)."""
        return x.view(*self.kept.shape, *x.shape[1:]).transpose(1, 2)

    def joined(self, x: Tensor) -> Tensor:
        """What ``split`` was given."""
        return x.transpose(1, 2).flatten(0, 1)

    def seen(self, *, causal: bool, window: int = 0) -> Tensor:
        """Which rows a row sees: bool (documents, 1, length, length).

        ``window``: of causal rows how many, itself among them; else how far to both sides. Padding
        sees itself, so that no row sees nothing.
        """
        if (known := self._seen.get((causal, window))) is not None:
            return known  # by another layer
        numbers = torch.arange(self.kept.shape[1], device=self.kept.device)
        back = numbers[:, None] - numbers
        near = back >= 0 if causal else torch.ones_like(back, dtype=torch.bool)
        if window:
            near = near & (back < window if causal else back.abs() <= window)
        self._seen[causal, window] = near & (self.kept[:, None, None] | (back == 0))
        return self._seen[causal, window]


def any_number(starts: Tensor) -> Tensor:
    """The bounds of documents, marked so that one compiled graph serves any number of them."""
    if compiler_loaded() and not isinstance(starts, Grid):
        torch._dynamo.maybe_mark_dynamic(starts, 0)
    return starts


def packed_attention(
    q: Tensor, k: Tensor, v: Tensor, starts: Tensor | Grid, scale: float, *, causal: bool = True
) -> Tensor:
    """Attend within documents; see the module.

    Args:
        q: (rows, heads, width).
        k: (rows, kv_heads, width).
        v: (rows, kv_heads, width).
        starts: int64 (documents + 1,): document i is rows starts[i] .. starts[i + 1] - 1; or a
            grid.
        scale: factor of the products, usually width^-0.5.
        causal: whether a row sees only itself and the rows before it.

    Returns:
        (rows, heads, width).
    """
    if isinstance(starts, Grid):
        mixed = F.scaled_dot_product_attention(
            starts.split(q),
            starts.split(k),
            starts.split(v),
            attn_mask=starts.seen(causal=causal),
            scale=scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        return starts.joined(mixed)
    if fits(q):
        out: Tensor = torch.ops.modelwright.attention(q, k, v, starts, scale, causal)[0]
        return out
    return _by_document(q, k, v, starts, scale, causal=causal)


def equal_attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False) -> Tensor:
    """Attend within documents of one length: (documents, length, heads, width) to the same shape.

    As ``packed_attention`` with the usual scale, without a look at the bounds.
    """
    documents, length = q.shape[:2]
    q_rows, k_rows, v_rows = (x.flatten(0, 1) for x in (q, k, v))
    scale = q.shape[-1] ** -0.5
    if fits(q):
        starts = torch.arange(0, documents * length + 1, length)
        mixed = torch.ops.modelwright.attention(q_rows, k_rows, v_rows, starts, scale, causal)[0]
    else:
        mixed = _equal(q_rows, k_rows, v_rows, documents, scale, causal=causal)
    found: Tensor = mixed.view(q.shape)
    return found


def _by_document(
    q: Tensor, k: Tensor, v: Tensor, starts: Tensor, scale: float, *, causal: bool
) -> Tensor:
    """The same with PyTorch's attention, a document at a time, equal lengths together."""
    bounds = starts.tolist()
    lengths = {b - a for a, b in pairwise(bounds)}
    if len(lengths) == 1:
        return _equal(q, k, v, len(bounds) - 1, scale, causal=causal)
    parts = [_equal(q[a:b], k[a:b], v[a:b], 1, scale, causal=causal) for a, b in pairwise(bounds)]
    return torch.cat(parts)


def _equal(
    q: Tensor, k: Tensor, v: Tensor, documents: int, scale: float, *, causal: bool
) -> Tensor:
    def split(x: Tensor) -> Tensor:
        return x.view(documents, -1, *x.shape[1:]).transpose(1, 2)

    mixed = F.scaled_dot_product_attention(
        split(q),
        split(k),
        split(v),
        is_causal=causal,
        scale=scale,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return mixed.transpose(1, 2).reshape(q.shape)


def _pointer(x: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.data_ptr())


def _sizes(q: Tensor, k: Tensor, starts: Tensor, scale: float, causal: bool) -> tuple[object, ...]:
    """The arguments that both passes share, after the pointers of their inputs."""
    numbers = (len(starts) - 1, q.shape[0], q.shape[1], k.shape[1], q.shape[2])
    return (
        _pointer(starts),
        *(ctypes.c_long(n) for n in numbers),
        ctypes.c_float(scale),
        ctypes.c_int(causal),
        ctypes.c_int(torch.get_num_threads()),
    )


def _check(q: Tensor, k: Tensor, v: Tensor, starts: Tensor) -> None:
    """Refuse what would make the kernel read or write beside its tensors."""
    rows, bounds = q.shape[0], starts.tolist()
    alike = k.shape == v.shape and k.shape[0] == rows and k.shape[2] == q.shape[2]
    if not alike or q.shape[1] % k.shape[1] or {q.dtype, k.dtype, v.dtype} != {torch.bfloat16}:
        raise ValueError(f"attention: q {q.shape}, k {k.shape} and v {v.shape} do not go together")
    rising = all(a <= b for a, b in pairwise(bounds))
    if starts.dtype != torch.int64 or not rising or bounds[0] != 0 or bounds[-1] != rows:
        raise ValueError(f"attention: the documents' starts do not rise from 0 to {rows} rows")


@torch.library.custom_op("modelwright::attention", mutates_args=())
def _attention(
    q: Tensor, k: Tensor, v: Tensor, starts: Tensor, scale: float, causal: bool
) -> tuple[Tensor, Tensor]:
    kernel = library("attention", NEEDS)
    assert kernel is not None  # noqa: S101 - asked before by ``fits``
    _check(q, k, v, starts)
    starts = starts.contiguous()
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    out = torch.empty_like(q)
    lse = torch.empty(q.shape[1], q.shape[0], dtype=torch.float32)
    inputs = (_pointer(q), _pointer(k), _pointer(v))
    sizes = _sizes(q, k, starts, scale, causal)
    if kernel.attention_forward(*inputs, *sizes, _pointer(out), _pointer(lse)):
        raise MemoryError("attention: not enough memory for its scratch")
    return out, lse


@_attention.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, starts: Tensor, scale: float, causal: bool
) -> tuple[Tensor, Tensor]:
    return torch.empty(q.shape, dtype=q.dtype), q.new_empty(
        q.shape[1], q.shape[0], dtype=torch.float32
    )


@torch.library.custom_op("modelwright::attention_backward", mutates_args=())
def _attention_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    grad: Tensor,
    lse: Tensor,
    starts: Tensor,
    scale: float,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    kernel = library("attention", NEEDS)
    assert kernel is not None  # noqa: S101
    starts, grad = starts.contiguous(), grad.contiguous()
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    inputs = (_pointer(x) for x in (q, k, v, out, grad, lse))
    outputs = (_pointer(x) for x in (dq, dk, dv))
    if kernel.attention_backward(*inputs, *_sizes(q, k, starts, scale, causal), *outputs):
        raise MemoryError("attention: not enough memory for its scratch")
    return dq, dk, dv


@_attention_backward.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    grad: Tensor,
    lse: Tensor,
    starts: Tensor,
    scale: float,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(torch.empty(x.shape, dtype=x.dtype) for x in (q, k, v))  # type: ignore[return-value]


def _keep(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    q, k, v, starts, scale, causal = inputs
    out, lse = output
    ctx.save_for_backward(q, k, v, out, lse, starts)
    ctx.scale, ctx.causal = scale, causal
    ctx.set_materialize_grads(False)


def _slopes(ctx, grad, _):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    q, k, v, out, lse, starts = ctx.saved_tensors
    grads = torch.ops.modelwright.attention_backward(
        q, k, v, out, grad, lse, starts, ctx.scale, ctx.causal
    )
    return (*grads, None, None, None)


_attention.register_autograd(_slopes, setup_context=_keep)
