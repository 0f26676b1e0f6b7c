"""Frozen matrices in 4 or 8 bits a weight, through which gradients pass: the base of QLoRA.

NF4 (arXiv:2305.14314, sections 2 and 3) cuts a matrix into blocks of 64 weights. With c the largest
magnitude of a block, a weight is the nearest of c q_0 .. c q_15, where the q are quantiles of the
normal distribution scaled to -1 .. 1, with 0 among them. The c of a matrix are kept in 8 bits
themselves (double quantisation), 256 of them with one float32 s, beside their mean m:

    w = c q[code],   c = m + s k / 127,   k = -127 .. 127:   4 + 8/64 + 32/(64 * 256) bits a weight

"int8" is the same with w = c k / 127. A product makes the weights anew, in its own precision, in
the forward pass and again in the backward pass; nothing of them is kept between the two.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Container
from statistics import NormalDist
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelwright.errors import ModelwrightError

KINDS = ("nf4", "int8")
BLOCK = 64  # weights with one c
GROUP = 256  # c with one s
# Probability at which the outermost quantile is taken: the mean of 1 - 1/32 and 1 - 1/30, which
# the two sides of 8 and 7 steps would have (their appendix E has the numbers that follow).
_OUTERMOST = 1 - (1 / 32 + 1 / 30) / 2
_TABLES = "int8"  # embeddings and heads, of which a row is read by itself: 4 bits cost them more


@functools.cache
def levels() -> tuple[float, ...]:
    """The 16 values of NF4, ascending from -1 to 1."""
    inverse = NormalDist().inv_cdf
    upper = [inverse(0.5 + (_OUTERMOST - 0.5) * i / 8) for i in range(1, 9)]
    lower = [-inverse(0.5 + (_OUTERMOST - 0.5) * i / 7) for i in range(7, 0, -1)]
    return tuple(value / upper[-1] for value in (*lower, 0.0, *upper))


def bits(kind: str) -> float:
    """Bits a weight, its share of the scales included."""
    return (4 if kind == "nf4" else 8) + 8 / BLOCK + 32 / (BLOCK * GROUP)


class Narrow(nn.Module):
    """A matrix of floating-point numbers in few bits.

    Attributes:
        kind: "nf4" or "int8".
        shape: of the matrix.
        codes: uint8, two weights a byte, the first in the lower bits; or int8, one each.
        scales: int8 (blocks,), the k of the blocks.
        wide: float32 (groups + 1,): every group's s, and last m.
    """

    codes: Tensor
    scales: Tensor
    wide: Tensor
    table: Tensor
    restored: nn.Parameter | None  # what several layers share stays one parameter

    def __init__(self, weight: Tensor, kind: str) -> None:
        super().__init__()
        self.kind, self.shape = kind, tuple(weight.shape)
        flat = weight.detach().float().flatten()
        blocks = F.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
        scales, wide = _doubled(blocks.abs().amax(dim=1))
        unit = blocks / _single(scales, wide)[:, None].clamp(min=1e-30)
        if kind == "nf4":
            known = torch.tensor(levels(), device=weight.device)
            middle = (known[1:] + known[:-1]) / 2
            halves = torch.bucketize(unit, middle).to(torch.uint8).view(-1, 2)
            codes = halves[:, 0] | (halves[:, 1] << 4)
            pairs = torch.cartesian_prod(known, known).flip(1)  # by byte: lower half, upper half
        else:
            codes = (unit * 127).round_().clamp_(-127, 127).to(torch.int8).flatten()
            pairs = flat.new_empty(0)
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)
        self.register_buffer("wide", wide)
        self.register_buffer("table", pairs, persistent=False)
        self.register_parameter("restored", None)

    @property
    def held(self) -> tuple[Tensor, ...]:
        """Codes, scales, wide and the table of pairs."""
        return self.codes, self.scales, self.wide, self.table

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept, without the table."""
        return sum(t.numel() * t.element_size() for t in self.held[:3])

    def unpacked(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The matrix, made anew."""
        return _unpacked(self.held, self.shape, dtype)

    def rows(self, numbers: Tensor) -> Tensor:
        """Rows (..., columns) of a matrix in float32, by their numbers (...)."""
        columns = self.shape[1]
        at = numbers[..., None] * columns + torch.arange(columns, device=numbers.device)
        single = _single(self.scales, self.wide)[at // BLOCK]
        if self.kind != "nf4":
            return self.codes[at].float() * (single / 127)
        return self.table[self.codes[at // 2].long(), at % 2] * single

    def product(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """X W^T + b for x (..., columns) as ``F.linear`` computes it, also within autocast."""
        kind = x.device.type
        narrow = torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if narrow else x.dtype
        y: Tensor = _Product.apply(x.to(dtype), self.shape, *self.held)  # type: ignore[no-untyped-call]
        return y if bias is None else y + bias.to(dtype)


def _doubled(largest: Tensor) -> tuple[Tensor, Tensor]:
    """The c of blocks (blocks,) as k, and the s of their groups with m."""
    mean = largest.mean()
    apart = F.pad(largest - mean, (0, -len(largest) % GROUP)).view(-1, GROUP)
    spread = apart.abs().amax(dim=1)
    k = (apart * (127 / spread.clamp(min=1e-30))[:, None]).round_().clamp_(-127, 127)
    return k.to(torch.int8).flatten()[: len(largest)], torch.cat([spread, mean[None]])


def _single(scales: Tensor, wide: Tensor) -> Tensor:
    """The c of every block, float32; rounding alone could make one negative."""
    spread = wide[:-1].repeat_interleave(GROUP)[: len(scales)]
    return (wide[-1] + spread * (scales.float() / 127)).clamp(min=0)


def _unpacked(held: tuple[Tensor, ...], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    codes, scales, wide, table = held
    single = _single(scales, wide)
    if codes.dtype == torch.int8:
        unit = codes.view(-1, BLOCK).float()
        single = single / 127
    else:
        unit = table.index_select(0, codes.int()).view(-1, BLOCK)
    whole = unit.mul_(single[:, None]).to(dtype).flatten()
    return whole[: math.prod(shape)].view(shape)


class _Product(torch.autograd.Function):
    """X W^T with a gradient for x alone; the weights are made twice rather than kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shape: tuple[int, ...], *held: Tensor) -> Tensor:
        ctx.save_for_backward(*held)
        ctx.shape = shape
        return F.linear(x, _unpacked(held, shape, x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight = _unpacked(ctx.saved_tensors, ctx.shape, gradient.dtype)
        return gradient @ weight, None, None, None, None, None


# Layers whose weight is held so -------------------------------------------------------------------


class NarrowLinear(nn.Linear):
    """x W^T + b of a narrow W; ``weight`` reads as W, made anew."""

    plain: type[Any] = nn.Linear
    narrow: Narrow

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """W in float32."""
        return self.narrow.unpacked()

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., inputs) to (..., outputs)."""
        return self.narrow.product(x, self.bias)


class NarrowEmbedding(nn.Embedding):
    """Rows of a narrow W."""

    plain: type[Any] = nn.Embedding
    narrow: Narrow

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """W in float32."""
        return self.narrow.unpacked()

    def forward(self, tokens: Tensor) -> Tensor:
        """Rows (..., width) of the numbers (...)."""
        return self.narrow.rows(tokens)


def hold(
    model: nn.Module, kind: str, whole: Container[str], is_head: Callable[[str], bool]
) -> None:
    """Hold the frozen weights of linear layers and embeddings in few bits, in place.

    Args:
        model: its layers keep their classes' ``forward``.
        kind: one of ``KINDS``, of the linear layers; embeddings and heads take 8 bits.
        whole: names of parameters that stay as they are.
        is_head: whether a linear layer is one, by its name.

    Raises:
        ModelwrightError: there is no such layer, or a weight is not finite.
    """
    made: dict[int, Narrow] = {}  # a weight that two layers share is held once
    for name, module in list(model.named_modules()):
        if type(module) not in (nn.Linear, nn.Embedding) or f"{name}.weight" in whole:
            continue
        weight = cast(Tensor, module.weight)
        if not weight.is_floating_point() or not (weight.is_meta or bool(weight.isfinite().all())):
            raise ModelwrightError(
                f"tune.adapter.quantize: {name}.weight is not of finite floating-point numbers; "
                "leave quantize out"
            )
        linear = type(module) is nn.Linear
        fine = linear and not is_head(name)
        if id(weight) not in made:
            made[id(weight)] = Narrow(weight, kind if fine else _TABLES)
        module._parameters["weight"] = None
        module.narrow = made[id(weight)]
        kind_of: type[Any] = NarrowLinear if linear else NarrowEmbedding
        module.__class__ = kind_of
    if not made:
        raise ModelwrightError(
            "tune.adapter.quantize: this model has no linear layer or embedding to hold in fewer "
            "bits; leave it out"
        )


def release(layer: nn.Module) -> None:
    """Make a layer's weight a parameter again: of what it was held as."""
    held = cast(Narrow, layer.narrow)
    del layer.narrow
    if held.restored is None:
        held.restored = nn.Parameter(held.unpacked(), requires_grad=False)
    layer._parameters["weight"] = held.restored


def widen(model: nn.Module) -> None:
    """Make plain layers of all that ``hold`` has changed; the weights stay rounded."""
    for module in list(model.modules()):
        if isinstance(module, NarrowLinear | NarrowEmbedding):
            release(module)
            module.__class__ = module.plain


def held_in(model: nn.Module) -> dict[str, Narrow]:
    """The narrow matrices of a model by their layers' names, each once."""
    return {n.rpartition(".")[0]: m for n, m in model.named_modules() if isinstance(m, Narrow)}


def parameter_count(model: nn.Module) -> int:
    """The parameters of a model, those in few bits included."""
    held = sum(math.prod(m.shape) for m in held_in(model).values())
    return held + sum(p.numel() for p in model.parameters())
