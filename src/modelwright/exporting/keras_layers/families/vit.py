"""The Vision Transformer."""

from __future__ import annotations

from typing import Any

from modelwright.exporting.keras_layers.families import Tensor
from modelwright.exporting.keras_layers.net import Net
from modelwright.models.vit import VisionTransformer


def build(net: Net, model: VisionTransformer, given: dict[str, Tensor]) -> Tensor:
    """Patches, the class token, positions, blocks, the head."""
    config, ops = model.config, net.ops
    x = net.conv(model.patch, given["image"])
    x = net.shaped(x, config.patches, config.width)
    if model.token is not None:
        first = net.fixed("token", net.array(model.token)[0], net.zeros(x))
        x = ops.concatenate([first, x], axis=1)
    x = x + net.fixed("positions", net.array(model.positions)[0], net.positions(x))
    for block in model.blocks:
        x = _block(net, block, x)
    x = net.norm(model.norm, x)
    kept = ops.take(x, 0, axis=1) if model.token is not None else ops.mean(x, axis=1)
    return net.dense(model.head, kept)


def _block(net: Net, block: Any, x: Tensor) -> Tensor:
    width = block.attention.query.out_features // block.attention.heads
    x = x + net.attention(block.attention, net.norm(block.attention_norm, x), None, width)
    fed = net.activation("gelu", net.dense(block.up, net.norm(block.feed_norm, x)))
    return x + net.dense(block.down, fed)
