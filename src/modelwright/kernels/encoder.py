"""All blocks of an encoder whose norms stand after the sums, in one call; see ``encoder.cpp``.

    x <- norm(x + out(attention(x))),   x <- norm(x + down(f(up x)))

over packed documents, each of which sees itself. The matrices are `kernels.quantized.Packed`:
float32, bfloat16 or int8. The stream and the norms are float32; queries, keys and values are
bfloat16 where the matrices are narrower than float32. A document's result does not depend on those
beside it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor

from modelwright.kernels.build import library
from modelwright.kernels.quantized import GROUP

NEEDS = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16", "avx512_vnni")
KINDS = {"int8": 1, "bfloat16": 2, "float32": 3}
ACTIVATIONS = {"silu": 0, "gelu_tanh": 1, "relu": 2, "gelu": 4}
MATRICES = ("query", "key", "value", "out", "up", "down")
NORMS = ("attention_norm", "feed_norm")


def available() -> bool:
    """Whether the kernel can run here."""
    return library("encoder", NEEDS) is not None


class _Layer(ctypes.Structure):
    """Where a block's numbers lie; the fields are those of ``Layer`` in ``encoder.cpp``."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in MATRICES),
        *((f"{name}_bias", ctypes.c_void_p) for name in MATRICES),
        *((f"{name}_{part}", ctypes.c_void_p) for name in NORMS for part in ("gain", "bias")),
    )


class _Shape(ctypes.Structure):
    """``Shape`` of ``encoder.cpp``."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("kind", "activation", "only_first", "threads")),
        *((name, ctypes.c_long) for name in ("depth", "width", "heads", "hidden")),
        ("eps", ctypes.c_float),
        ("scale", ctypes.c_float),
    )


class Blocks:
    """Blocks written down once, to be run with any documents.

    Args:
        blocks: of each the tensors by their names in ``MATRICES`` (the data of packed matrices),
            the same with ``_bias`` (float32), and ``attention_norm_gain``,
            ``attention_norm_bias``, ``feed_norm_gain``, ``feed_norm_bias`` (float32).
        kind: of the matrices, one of ``KINDS``.
        width: of the stream, a multiple of 32.
        heads: their width is a multiple of 32.
        hidden: width of the feed-forward block, a multiple of 32.
        activation: f, one of ``ACTIVATIONS``.
        eps: of the norms.
    """

    def __init__(
        self,
        blocks: Sequence[Mapping[str, Tensor]],
        *,
        kind: str,
        width: int,
        heads: int,
        hidden: int,
        activation: str,
        eps: float,
    ) -> None:
        if width % heads or any(n % GROUP for n in (width // heads, width, hidden)):
            raise ValueError(f"encoder: widths {width} / {heads} and {hidden}: no multiples of 32")
        self.width = width
        self._held = [dict(block) for block in blocks]  # what pointers point to stays alive
        self._layers = (_Layer * len(blocks))()
        for layer, block in zip(self._layers, blocks, strict=True):
            for name, tensor in block.items():
                if not tensor.is_contiguous():
                    raise ValueError(f"encoder: {name} does not lie in one piece")
                setattr(layer, name, tensor.data_ptr())
        self._shape = {
            "kind": KINDS[kind],
            "activation": ACTIVATIONS[activation],
            "depth": len(blocks),
            "width": width,
            "heads": heads,
            "hidden": hidden,
            "eps": eps,
            "scale": (width // heads) ** -0.5,
        }

    def run(self, x: Tensor, starts: Tensor, *, only_first: bool = False) -> Tensor:
        """The stream after the last block.

        Args:
            x: (rows, width) float32.
            starts: int64 (documents + 1,): document i is rows starts[i] .. starts[i + 1] - 1, at
                least one.
            only_first: make only the first row of each document.

        Returns:
            (rows, width), or (documents, width) of the first rows.
        """
        bounds = starts.tolist()
        rising = all(a < b for a, b in pairwise(bounds))
        if x.dtype != torch.float32 or x.shape[1:] != (self.width,) or starts.dtype != torch.int64:
            raise ValueError(f"encoder: {x.dtype} {tuple(x.shape)} is no stream of {self.width}")
        if not rising or bounds[0] != 0 or bounds[-1] != len(x):
            raise ValueError(f"encoder: the documents' starts do not rise from 0 to {len(x)} rows")
        kernel = cast(ctypes.CDLL, library("encoder", NEEDS))  # whoever has blocks has asked
        stream, starts = x.clone(memory_format=torch.contiguous_format), starts.contiguous()
        first = torch.empty(len(bounds) - 1, self.width) if only_first else None
        threads = torch.get_num_threads()
        shape = _Shape(only_first=int(only_first), threads=threads, **self._shape)
        failed = kernel.encode(
            ctypes.byref(shape),
            self._layers,
            ctypes.c_void_p(stream.data_ptr()),
            ctypes.c_void_p(starts.data_ptr()),
            ctypes.c_long(len(bounds) - 1),
            ctypes.c_void_p(None if first is None else first.data_ptr()),
        )
        if failed:
            raise MemoryError("encoder: not enough memory for its scratch")
        return stream if first is None else first
