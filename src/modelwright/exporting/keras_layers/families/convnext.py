"""ConvNeXt."""

from __future__ import annotations

from typing import Any

from modelwright.exporting.keras_layers.families import Tensor
from modelwright.exporting.keras_layers.net import Net
from modelwright.models.convnext import ConvNeXt


def build(net: Net, model: ConvNeXt, given: dict[str, Tensor]) -> Tensor:
    """Stem, stages with a reduction before each but the first, the normed mean, the head."""
    x = net.norm(model.stem_norm, net.conv(model.stem, given["image"]))
    for number, stage in enumerate(model.stages):
        if number:
            reduction: Any = model.reductions[number - 1]
            x = net.conv(reduction.conv, net.norm(reduction.norm, x))
        for block in stage:  # type: ignore[attr-defined]
            x = _block(net, block, x)
    x = net.layers.GlobalAveragePooling2D(data_format="channels_last")(x)
    return net.dense(model.head, net.norm(model.norm, x))


def _block(net: Net, block: Any, x: Tensor) -> Tensor:
    """X + scale * down(gelu(up(norm(depthwise x)))); the scale is part of the last layer."""
    y = net.norm(block.norm, net.conv(block.depthwise, x))
    y = net.activation("gelu", net.dense(block.up, y))
    return x + net.dense(block.down, y, scale=block.scale)
