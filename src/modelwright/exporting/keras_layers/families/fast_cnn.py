"""The small convolutional network."""

from __future__ import annotations

from typing import Any

from modelwright.exporting.keras_layers.families import Tensor
from modelwright.exporting.keras_layers.net import Net
from modelwright.models.fast_cnn import FastCNN


def build(net: Net, model: FastCNN, given: dict[str, Tensor]) -> Tensor:
    """Stem, blocks, the largest value of every plane, the head."""
    x = net.conv(model.stem.conv, given["image"])
    x = net.activation("gelu", net.norm(model.stem.norm, x))
    for block in model.blocks:
        x = _block(net, block, x)
    x = net.layers.GlobalMaxPooling2D(data_format="channels_last")(x)
    return net.layers.Rescaling(model.config.logit_scale)(net.dense(model.head, x))


def _block(net: Net, block: Any, x: Tensor) -> Tensor:
    pool = net.layers.MaxPooling2D(2, padding="valid", data_format="channels_last")
    y = net.activation("gelu", net.norm(block.first.norm, pool(net.conv(block.first.conv, x))))
    second = net.norm(block.second.norm, net.conv(block.second.conv, y))
    return y + net.activation("gelu", second)
