"""Several low-rank adapters of one base at once: every row of a batch goes through its own.

The base's layers compute for all rows; then each adapter adds its part to the rows that are its:

    y_i = x_i W^T + s_a (x_i A_a^T) B_a^T        a: the adapter of row i; none: x_i W^T

so the base is read once for a batch of many adapters (the idea is that of arXiv:2311.03285). Rows
do not see each other: a row's numbers are those it has alone, but for the rounding of products of
another size (law 5). DoRA, and embeddings, take their own forward for their rows.

Which row has which adapter is said by ``routed`` around a call, for the thread that calls.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.models.lora import Adapter, is_head, kind_of, layers, refuse_shared
from modelwright.models.lora_layers import LoraEmbedding, LoraLayer, LoraLinear
from modelwright.models.quantized import is_packed

_local = threading.local()
_marks = count(1)


@dataclass(frozen=True, eq=False)
class Routed:
    """An adapter that rows can have.

    Attributes:
        layers: adapted layers by their names in the model; they hold the base's own weights.
        mark: another one for every adapter that there ever was in this process.
    """

    layers: Mapping[str, LoraLayer]
    mark: int


@contextmanager
def routed(adapters: Sequence[Routed | None]) -> Iterator[None]:
    """Let row i of what is computed inside have ``adapters[i]``; None: the base alone."""
    groups: dict[Routed, list[int]] = {}
    for row, adapter in enumerate(adapters):
        if adapter is not None:
            groups.setdefault(adapter, []).append(row)
    _local.groups, _local.rows = groups, len(adapters)
    try:
        yield
    finally:
        _local.groups = {}


class _Layer(nn.Module):
    """What a base's layer gains: after its own forward the adapters of some rows."""

    name: str
    plain: type[Any]

    def forward(self, x: Tensor) -> Tensor:
        """Map x (rows, ...) as the base does, and rows with an adapter as it does."""
        y = cast(Tensor, self.plain.forward(self, x))
        groups: Mapping[Routed, list[int]] = getattr(_local, "groups", {})
        for adapter, rows in groups.items():
            layer = adapter.layers.get(self.name)
            if layer is None:
                continue
            if len(x) != _local.rows:
                raise RuntimeError(f"{self.name}: {len(x)} rows, {_local.rows} have adapters")
            y = y if y.requires_grad is False else y.clone()
            y[rows] = _through(layer, x[rows], y[rows])
        return y


def _through(layer: LoraLayer, x: Tensor, y: Tensor) -> Tensor:
    """What an adapted layer makes of its rows ``x``, of which ``y`` is what the base makes."""
    if isinstance(layer, LoraLinear) and layer.magnitude is None:
        return y + F.linear(F.linear(x, layer.lora_a) * layer.scaling, layer.lora_b)
    return cast(Tensor, layer(x))


class _RoutedLinear(_Layer, nn.Linear):
    plain = nn.Linear


class _RoutedEmbedding(_Layer, nn.Embedding):
    plain = nn.Embedding


_KINDS: dict[type[LoraLayer], type[_Layer]] = {
    LoraLinear: _RoutedLinear,
    LoraEmbedding: _RoutedEmbedding,
}


def twin(model: nn.Module) -> nn.Module:
    """A model with the same parameters and buffers, not copies, in modules of its own.

    An adapter can be put on it (``models.lora.adapt``) while the model itself is at work.
    """
    shared: dict[int, Any] = {id(t): t for t in (*model.parameters(), *model.buffers())}
    made = copy.deepcopy(model, shared)
    for layer in made.modules():
        if isinstance(layer, _Layer):
            del layer.name
            layer.__class__ = layer.plain
    return made


@torch.no_grad()
def put_beside(
    model: nn.Module,
    name: str,
    down: Tensor,
    up: Tensor,
    *,
    scaling: float,
    norms: Tensor | None = None,
) -> None:
    """Give one plain layer an adapter that was trained elsewhere; its own weight stays.

    Args:
        model: has the layer.
        name: of the layer.
        down: A, as ``LoraLayer.shapes`` says, of any rank.
        up: B.
        scaling: the factor s of B A.
        norms: the m of DoRA (outputs,); None: plain.

    Raises:
        ModelwrightError: such a layer takes none, or none of this shape.
    """
    layer = model.get_submodule(name)
    kind = kind_of(layer)
    if kind is None or (norms is not None and kind is LoraEmbedding):
        raise ModelwrightError(f"adapter: {name} is a layer that takes none of this kind")
    refuse_shared(model, {name: kind})
    rank = len(down)
    with torch.random.fork_rng(devices=[]):  # what is drawn here is put aside
        layer.__class__ = kind
        adapted = cast(LoraLayer, layer)
        adapted.begin(Adapter(rank=rank, alpha=scaling * rank, dora=norms is not None))
    given = {"lora_a": down, "lora_b": up} | ({} if norms is None else {"magnitude": norms})
    for part, tensor in given.items():
        own = getattr(adapted, part)
        if own.shape != tensor.shape:
            raise ModelwrightError(
                f"adapter: {part} of {name} is {list(tensor.shape)}, {list(own.shape)} is needed"
            )
        own.copy_(tensor)


def route(model: nn.Module, adapted: nn.Module, *, whole: Sequence[str] = ()) -> Routed:
    """Make an adapter of ``adapted``, a ``twin`` with live adapters, one that rows can have.

    The model's own layers stay what they are for rows without one.

    Args:
        model: the base, which may be at work in another thread.
        adapted: its twin.
        whole: names of parameters that the adapter has trained whole.

    Raises:
        ModelwrightError: the adapter changes what cannot differ from row to row, or the base is in
            few bits.
    """
    found = dict(layers(adapted))
    heads = [n for n in found if is_head(n)]
    others = [n for n, layer in found.items() if type(layer) not in _KINDS]
    if odd := [*whole, *heads, *others]:
        raise ModelwrightError(
            f"adapter: it changes {odd[0]}, which all rows of a batch share; serve it by itself"
        )
    if is_packed(model):
        raise ModelwrightError(
            "adapter: the base is served in few bits; leave out --weights to have adapters"
        )
    for name, layer in found.items():
        base = model.get_submodule(name)
        if not isinstance(base, _Layer):
            base.name = name  # type: ignore[assignment]  # of the class that it becomes
            base.__class__ = _KINDS[type(layer)]
        layer.requires_grad_(False)
        layer.eval()
    return Routed(found, next(_marks))
