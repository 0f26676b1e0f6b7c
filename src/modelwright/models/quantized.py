"""A trained model with its matrices in 4, 8 or 16 bits a weight, to answer with: it is not trained.

Every linear map of the blocks, and the head of a language model with its table of embeddings, is
kept as `kernels.quantized.Packed`; norms, biases and small tables stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.kernels.quantized import KINDS as NUMBERS
from modelwright.kernels.quantized import Packed, pack, product, unpack

KINDS = tuple(NUMBERS)


class PackedLinear(nn.Module):
    """x W^T + b for a packed W; x (..., inputs) to (..., outputs) float32."""

    data: Tensor

    def __init__(self, packed: Packed, bias: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("data", packed.data)
        self.bias = None if bias is None else nn.Parameter(bias.detach().float(), False)
        self.kind, self.outputs, self.inputs = packed.kind, packed.outputs, packed.inputs

    @property
    def packed(self) -> Packed:
        """The matrix."""
        return Packed(self.data, self.kind, self.outputs, self.inputs)

    @property
    def weight(self) -> Tensor:
        """The matrix (outputs, inputs) in float32, made anew at every call."""
        return unpack(self.packed)

    def forward(self, x: Tensor) -> Tensor:
        """Map x."""
        mapped = product(x, self.packed)
        return mapped if self.bias is None else mapped.add_(self.bias)


def is_packed(model: nn.Module) -> bool:
    """Whether matrices of a model are kept in few bits."""
    return any(isinstance(module, PackedLinear) for module in model.modules())


class PackedEmbedding(nn.Module):
    """The rows of a packed matrix, which may be the head's as well: (...) to (..., width)."""

    def __init__(self, linear: PackedLinear) -> None:
        super().__init__()
        self.held = [linear]  # in a list, so that the matrix is kept once

    def forward(self, tokens: Tensor) -> Tensor:
        """Rows by their numbers."""
        rows = unpack(self.held[0].packed, tokens.flatten())
        return rows.view(*tokens.shape, -1)


def quantize(model: nn.Module, kind: str, importance: Mapping[str, Tensor] | None = None) -> None:
    """Pack the matrices of a model in place.

    Args:
        model: in evaluation mode, on the CPU.
        kind: one of ``KINDS``.
        importance: for modules by name what `pack` weighs errors by; see `observed`.

    Raises:
        ModelwrightError: an unknown kind, or a model that has no linear map to pack.
    """
    known(kind)
    found = list(_linears(model))
    if not found:
        raise ModelwrightError(
            f"model: a {type(model).__name__} has no linear maps to pack; leave its weights as"
            " they are"
        )
    for name, linear in found:
        given = (importance or {}).get(name)
        _put(model, name, PackedLinear(pack(linear.weight, kind, given), linear.bias))
    _pack_tied(model, kind, (importance or {}).get("output"))
    _forget_steps(model)


def known(kind: str) -> str:
    """The same, if it is one of ``KINDS``.

    Raises:
        ModelwrightError: it is not.
    """
    if kind not in KINDS:
        hint = did_you_mean(kind, KINDS)
        raise ModelwrightError(f"weights: {kind!r} is none of {', '.join(KINDS)}{hint}")
    return kind


def _linears(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    for name, module in model.named_modules():
        if type(module) is nn.Linear:
            yield name, module


def _pack_tied(model: nn.Module, kind: str, importance: Tensor | None) -> None:
    """The head of a language model whose embedding is the same matrix, and the embedding."""
    held = cast(Any, model)
    table = getattr(held, "embedding", None)
    if not isinstance(table, nn.Embedding) or not getattr(held.config, "tied", False):
        return
    if getattr(held, "output", table) is not None:  # a head of its own: of labels, for instance
        return
    held.output = PackedLinear(pack(table.weight, kind, importance))
    held.embedding = PackedEmbedding(held.output)


def _forget_steps(model: nn.Module) -> None:
    """What `steps.Stepping` knows is of other matrices."""
    if hasattr(model, "stepping"):
        cast(Any, model).stepping = None


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


def layout(model: nn.Module) -> dict[str, Any]:
    """What ``laid_out`` needs beside the tensors: plain values for a checkpoint's document."""
    packed = {n: m for n, m in model.named_modules() if isinstance(m, PackedLinear)}
    kind = next(iter(packed.values())).kind
    tied = isinstance(getattr(model, "embedding", None), PackedEmbedding)
    shapes = {n: [m.outputs, m.inputs, m.bias is not None] for n, m in packed.items()}
    return {"kind": kind, "tied": tied, "matrices": shapes}


def laid_out(model: nn.Module, stored: Mapping[str, Any]) -> None:
    """Give a model the modules that ``layout`` tells of, with empty matrices to be loaded.

    Raises:
        ModelwrightError: it does not tell of this model.
    """
    kind = known(stored["kind"])
    linears = dict(_linears(model))
    for name, (outputs, inputs, biased) in stored["matrices"].items():
        shape = linears[name].weight.shape if name in linears else (outputs, inputs)
        there = name in linears or (stored["tied"] and name == "output")
        if not there or tuple(shape) != (outputs, inputs):
            raise ModelwrightError(f"weights: {name} ({outputs} x {inputs}) is not in this model")
        empty = Packed(torch.empty(0, dtype=torch.uint8), kind, outputs, inputs)
        data = torch.empty(empty.nbytes, dtype=torch.uint8, device="meta")
        bias = torch.empty(outputs, device="meta") if biased else None
        _put(model, name, PackedLinear(Packed(data, kind, outputs, inputs), bias))
    if stored["tied"]:
        held = cast(Any, model)
        held.embedding = PackedEmbedding(held.output)
    _forget_steps(model)


@contextmanager
def observed(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Within the block, gather for every linear map the mean square of each of its inputs.

    What `quantize` takes as ``importance``: an error of a weight costs as much as what it is
    multiplied with is large.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def watcher(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def watch(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            rows = given[0].detach().float().flatten(0, -2)
            sums[name] = sums.get(name, 0.0) + rows.square().sum(0)
            counts[name] = counts.get(name, 0) + len(rows)

        return watch

    hooks = [m.register_forward_pre_hook(watcher(n)) for n, m in _linears(model)]
    means: dict[str, Tensor] = {}
    try:
        yield means
    finally:
        for hook in hooks:
            hook.remove()
        means.update({name: total / counts[name] for name, total in sums.items()})
