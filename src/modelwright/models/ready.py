"""A trained model made ready to answer, as a server does when it begins: the same answers, sooner.

What is made ready is not trained any further: its matrices are put in the order in which a kernel
reads them. Where there is no such kernel, or none for this model, the model stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modelwright.kernels import encoder
from modelwright.kernels.quantized import GROUP, pack
from modelwright.models.quantized import PackedLinear

# Where the matrices of ``encoder.MATRICES`` are in a block.
_PLACES = {
    "query": "attention",
    "key": "attention",
    "value": "attention",
    "out": "attention",
    "up": "feed_forward",
    "down": "feed_forward",
}


def ready(model: nn.Module) -> None:
    """Make a model in evaluation mode ready; its ``make_ready``, if it has one, says how."""
    make = getattr(model, "make_ready", None)
    if make is not None and not model.training:
        make()


def blocks_in_one_call(
    blocks: Sequence[nn.Module], *, heads: int, activation: str, eps: float
) -> encoder.Blocks | None:
    """The blocks of a post-norm encoder for one call, or None where the kernel cannot run them.

    Each has ``attention`` (`packed.MultiHead`), ``feed_forward`` (`packed.TwoLayers`),
    ``attention_norm`` and ``feed_norm``. Linear maps that are not packed yet become so, in float32.
    """
    linears = [getattr(getattr(b, place), name) for b in blocks for name, place in _PLACES.items()]
    kinds = {m.kind if type(m) is PackedLinear else type(m) for m in linears}
    kind = next(iter(kinds)) if len(kinds) == 1 else None
    kind = "float32" if kind is nn.Linear else kind
    on_cpu = all(t.device.type == "cpu" for b in blocks for t in b.state_dict().values())
    whole = all(t.dtype == torch.float32 for b in blocks for t in b.parameters())
    if kind not in encoder.KINDS or activation not in encoder.ACTIVATIONS:
        return None
    if not (on_cpu and whole and encoder.available()):
        return None
    width, hidden = _widths(blocks[0])
    if width % heads or any(n % GROUP for n in (width // heads, width, hidden)):
        return None
    if kind == "float32":
        for block in blocks:
            _pack(block)
    named = [_tensors(block) for block in blocks]
    shape = {"width": width, "heads": heads, "hidden": hidden}
    return encoder.Blocks(named, kind=kind, activation=activation, eps=eps, **shape)


def _widths(block: Any) -> tuple[int, int]:
    """Of the stream, and of the feed-forward block."""
    up = block.feed_forward.up
    if isinstance(up, PackedLinear):
        return up.inputs, up.outputs
    return up.in_features, up.out_features


def _pack(block: Any) -> None:
    for name, place in _PLACES.items():
        holder = getattr(block, place)
        linear = getattr(holder, name)
        setattr(holder, name, PackedLinear(pack(linear.weight, "float32"), linear.bias))


def _tensors(block: Any) -> Mapping[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, place in _PLACES.items():
        linear = getattr(getattr(block, place), name)
        found[name] = linear.data
        if linear.bias is not None:
            found[f"{name}_bias"] = linear.bias.detach()
    for name in encoder.NORMS:
        norm = getattr(block, name)
        found |= {f"{name}_gain": norm.weight.detach(), f"{name}_bias": norm.bias.detach()}
    return found
