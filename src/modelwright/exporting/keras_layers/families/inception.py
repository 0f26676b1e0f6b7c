"""Inception v3, without the second head, which is for training."""

from __future__ import annotations

from typing import Any

from modelwright.exporting.keras_layers.families import Tensor
from modelwright.exporting.keras_layers.net import Net
from modelwright.models.inception import STEM, Inception, Layer


def build(net: Net, model: Inception, given: dict[str, Tensor]) -> Tensor:
    """Stem, blocks of branches, the mean of every plane, the head."""
    x = given["image"]
    for name, *_, pooled in STEM:
        x = _activated(net, model.stem[name], x)
        x = _halved(net, x) if pooled else x
    for block in model.mixed.values():
        x = _mixed(net, block, x)
    if model.auxiliary is not None:
        net.unused(model.auxiliary)
    x = net.layers.GlobalAveragePooling2D(data_format="channels_last")(x)
    return net.dense(model.head, x)


def _activated(net: Net, part: Any, x: Tensor) -> Tensor:
    return net.activation("relu", net.norm(part.norm, net.conv(part.conv, x)))


def _halved(net: Net, x: Tensor) -> Tensor:
    return net.layers.MaxPooling2D(3, 2, padding="valid", data_format="channels_last")(x)


def _averaged(net: Net, x: Tensor) -> Tensor:
    """The mean of 3 x 3, the zeros beyond the edge counted."""
    pool = net.layers.AveragePooling2D(3, 1, padding="valid", data_format="channels_last")
    return pool(net.padded((1, 1), x))


def _mixed(net: Net, block: Any, x: Tensor) -> Tensor:
    found = []
    *others, last = block.plan.branches
    for branch in (*others, last):
        y = x
        if branch is last:
            y = _averaged(net, x) if block.plan.pool == "average" else _halved(net, x)
        for place in branch:
            layers = (place,) if isinstance(place, Layer) else place
            parts = [_activated(net, block.layers[layer.name], y) for layer in layers]
            y = parts[0] if len(parts) == 1 else net.ops.concatenate(parts, axis=-1)
        found.append(y)
    return net.ops.concatenate(found, axis=-1)
