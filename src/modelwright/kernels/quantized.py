"""Matrices stored in 4, 8 or 16 bits a weight, and products with them; see ``quantized.cpp``.

``int4`` and ``int8`` keep a float16 scale for every 32 weights of a row, as llama.cpp's q4_0 and
q8_0 do: 4.5 and 8.5 bits a weight. The other factor is rounded to int8 for them, 32 numbers at a
time. Where the kernel cannot run, PyTorch computes the same sums, in another order.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from modelwright.kernels.build import hollow, library

NEEDS = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16", "avx512_vnni")
GROUP = 32  # weights with one scale
LANES = 16  # outputs in a block
# Of a weight, its share of a scale included. float32 is only an order, that of ``encoder.cpp``.
BITS = {"int4": 4.5, "int8": 8.5, "bfloat16": 16.0, "float32": 32.0}
KINDS = {"int4": 0, "int8": 1, "bfloat16": 2}
_RAISED = {"int4": 8, "int8": 128}  # so that numbers are not negative
_AT_ONCE = 1 << 16  # numbers whose scales are looked for together
# Scales tried for a group of int4, as shares of the one that just holds its largest number.
_SHRUNK = (1.0, 0.95, 0.9, 0.86, 0.82, 0.78, 0.74, 0.7, -0.98, -0.92, -0.86, -0.8)


def available() -> bool:
    """Whether the kernel can run here."""
    return library("quantized", NEEDS) is not None


@dataclass(frozen=True)
class Packed:
    """A matrix (outputs, inputs) in few bits.

    ``data`` is uint8 in the kernel's order of ``kind`` "int4", "int8", "bfloat16" or "float32"; see
    ``quantized.cpp`` and, for the last, ``panels.h``.
    """

    data: Tensor
    kind: str
    outputs: int
    inputs: int

    @property
    def groups(self) -> int:
        """Groups of 32 in a row."""
        return -(-self.inputs // GROUP)

    @property
    def blocks(self) -> int:
        """Blocks of 16 outputs."""
        return -(-self.outputs // LANES)

    @property
    def nbytes(self) -> int:
        """The length of ``data``."""
        return int(self.blocks * self.groups * LANES * GROUP * BITS[self.kind]) // 8


def pack(weight: Tensor, kind: str, importance: Tensor | None = None) -> Packed:
    """A matrix (outputs, inputs) in few bits, on the CPU.

    The scale of a group of int4 is the one of a dozen with the least sum of squared errors, which
    ``importance`` (inputs,) weighs: the mean square of what each column is multiplied with.
    """
    outputs, inputs = weight.shape
    weight = weight.detach().float().cpu()
    filled = F.pad(weight, (0, -inputs % GROUP, 0, -outputs % LANES))
    blocks, groups = filled.shape[0] // LANES, filled.shape[1] // GROUP
    if kind == "bfloat16":
        pairs = filled.bfloat16().view(blocks, LANES, groups * GROUP // 2, 2).transpose(1, 2)
        data = pairs.contiguous().view(torch.uint8)
        return Packed(data.reshape(-1), kind, outputs, inputs)
    if kind == "float32":
        lanes = filled.view(blocks, LANES, groups * GROUP).transpose(1, 2)
        data = lanes.contiguous().view(torch.uint8)
        return Packed(data.reshape(-1), kind, outputs, inputs)
    if importance is not None:
        importance = F.pad(importance.float().cpu(), (0, -inputs % GROUP)).view(groups, GROUP)
    grouped = filled.view(blocks * LANES, groups, GROUP)
    if kind == "int4":
        scales = _best_scales(grouped, importance)
    else:
        scales = (grouped.abs().amax(-1) / 127).half()
    raised = _RAISED[kind]
    numbers = _rounded(grouped, scales.float(), raised).add_(raised).to(torch.uint8)
    numbers = numbers.view(blocks, LANES, groups, GROUP).transpose(1, 2)
    if kind == "int4":
        halves = numbers.reshape(blocks, groups, LANES, 4, 2, 4).transpose(2, 3)
        stored = halves[..., 0, :] | (halves[..., 1, :] << 4)  # (blocks, groups, 4, LANES, 4)
    else:
        stored = numbers.reshape(blocks, groups, LANES, 8, 4).transpose(2, 3)
    first = scales.view(blocks, LANES, groups).transpose(1, 2).contiguous().view(torch.uint8)
    data = torch.cat((first, stored.flatten(2)), dim=2)
    return Packed(data.reshape(-1), kind, outputs, inputs)


def _rounded(grouped: Tensor, scales: Tensor, most: int) -> Tensor:
    inverse = torch.where(scales == 0, 0.0, 1.0 / scales)
    return (grouped * inverse[..., None]).round_().clamp_(-most, most - 1)


def _best_scales(grouped: Tensor, importance: Tensor | None) -> Tensor:
    """Scales (rows, groups) of grouped numbers (rows, groups, 32)."""
    # A few rows at a time stay in the processor's cache through all tries.
    rows = max(1, _AT_ONCE // grouped[0].numel())
    return torch.cat([_tried(part, importance) for part in torch.split(grouped, rows)])


def _tried(grouped: Tensor, importance: Tensor | None) -> Tensor:
    at = grouped.abs().argmax(-1, keepdim=True)
    # The largest becomes -8, which has no positive counterpart: a scale may be negative.
    whole = grouped.gather(-1, at)[..., 0] / -8
    best = torch.zeros_like(whole, dtype=torch.half)
    least = torch.full_like(whole, torch.inf)
    for share in _SHRUNK:
        scales = (whole * share).half()
        error = _rounded(grouped, scales.float(), 8).mul_(scales.float()[..., None])
        error = error.sub_(grouped).square_()
        wrong = (error if importance is None else error.mul_(importance)).sum(-1)
        better = wrong < least
        best, least = torch.where(better, scales, best), torch.where(better, wrong, least)
    return best


def unpack(packed: Packed, rows: Tensor | None = None) -> Tensor:
    """The stored numbers (outputs, inputs) as float32, or ``rows`` (n,) of them alone."""
    scales, numbers = _parts(packed)
    if rows is not None:
        block, lane = rows // LANES, rows % LANES
        numbers, scales = numbers[block, :, lane], scales[block, :, lane]
    else:
        numbers = numbers.transpose(1, 2).flatten(0, 1)[: packed.outputs]
        scales = scales.transpose(1, 2).flatten(0, 1)[: packed.outputs]
    return (numbers.float() * scales[..., None].float()).flatten(1)[:, : packed.inputs]


def _parts(packed: Packed) -> tuple[Tensor, Tensor]:
    """Scales (blocks, groups, 16) and numbers (blocks, groups, 16, 32) as they are stored."""
    blocks, groups = packed.blocks, packed.groups
    data = packed.data.view(blocks, groups, -1)
    if packed.kind == "bfloat16":
        pairs = data.view(torch.bfloat16).view(blocks, groups, GROUP // 2, LANES, 2)
        numbers = pairs.transpose(2, 3).flatten(3)
        return torch.ones(blocks, groups, LANES, dtype=torch.bfloat16), numbers
    if packed.kind == "float32":
        numbers = data.view(torch.float32).view(blocks, groups, GROUP, LANES).transpose(2, 3)
        return torch.ones(blocks, groups, LANES), numbers
    scales = data[..., : 2 * LANES].contiguous().view(torch.half)
    stored = data[..., 2 * LANES :]
    if packed.kind == "int4":
        stored = stored.view(blocks, groups, 4, LANES, 1, 4)
        stored = torch.cat((stored & 15, stored >> 4), dim=-2)
    raised = stored.reshape(blocks, groups, -1, LANES, GROUP // (4 if packed.kind == "int4" else 8))
    return scales, raised.transpose(2, 3).flatten(3).to(torch.int16) - _RAISED[packed.kind]


def product(x: Tensor, packed: Packed) -> Tensor:
    """X W^T in float32 for x (..., inputs): (..., outputs); no gradient passes."""
    wide = x.reshape(-1, packed.inputs).float()
    if short := -packed.inputs % GROUP:
        wide = F.pad(wide, (0, short))
    wide = wide.contiguous()
    known = packed.kind in KINDS and not hollow(x) and x.device.type == "cpu"
    kernel = library("quantized", NEEDS) if known else None
    if kernel is None:
        out = _plain_product(wide, packed)
    else:
        out = torch.empty(len(wide), packed.outputs)
        room = torch.empty(len(wide) * packed.groups * 72, dtype=torch.uint8)
        kernel.packed_product(
            KINDS[packed.kind],
            ctypes.c_void_p(packed.data.data_ptr()),
            ctypes.c_void_p(wide.data_ptr()),
            ctypes.c_void_p(out.data_ptr()),
            ctypes.c_long(len(wide)),
            ctypes.c_long(packed.outputs),
            ctypes.c_long(packed.groups),
            ctypes.c_void_p(room.data_ptr()),
            torch.get_num_threads(),
        )
    return out.view(*x.shape[:-1], packed.outputs)


def _plain_product(x: Tensor, packed: Packed) -> Tensor:
    """With PyTorch's operators: the same integers, their sums in another order."""
    data = unpack(packed)
    if packed.kind == "float32":
        return x[:, : packed.inputs] @ data.T
    if packed.kind == "bfloat16":
        return x[:, : packed.inputs].bfloat16().float() @ data.T
    grouped = x.view(len(x), -1, GROUP)
    most = grouped.abs().amax(-1, keepdim=True)
    # A number before "/" would be multiplied by the inverse: rounded twice, and other integers.
    factor = torch.where(most == 0, 0.0, torch.full_like(most, 127.0) / most)
    rounded = (grouped * factor).round_().mul_(most / 127.0)
    return rounded.flatten(1)[:, : packed.inputs] @ data.T


class Step(ctypes.Structure):
    """What ``run_steps`` does next; the fields are those of ``Step`` in ``quantized.cpp``."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("op", "kind", "wait", "adds")),
        *((n, ctypes.c_void_p) for n in ("first", "second", "third", "to", "weight", "bias")),
        *((name, ctypes.c_long) for name in ("width", "outputs")),
        *((name, ctypes.c_void_p) for name in ("keys", "values", "cos", "sin")),
        *((n, ctypes.c_long) for n in ("heads", "kv_heads", "head", "capacity", "window")),
        ("strides", ctypes.c_long * 3),
        *((name, ctypes.c_float) for name in ("eps", "scale")),
        *((name, ctypes.c_int32) for name in ("activation", "centres", "half")),
    )


def run_steps(steps: ctypes.Array[Step], lengths: Tensor, room: Tensor) -> None:
    """Do all steps for one token of each row.

    Args:
        steps: with pointers to what is alive.
        lengths: (rows,) int64, tokens that each row's cache holds.
        room: uint8, 72 bytes for each group of 32 of the widest input and each row.
    """
    kernel = cast(ctypes.CDLL, library("quantized", NEEDS))  # whoever has steps has asked
    kernel.run_steps(
        steps,
        ctypes.c_long(len(steps)),
        ctypes.c_long(len(lengths)),
        ctypes.c_void_p(lengths.data_ptr()),
        ctypes.c_void_p(room.data_ptr()),
        torch.get_num_threads(),
    )
