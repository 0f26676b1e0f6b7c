"""Residual networks."""

from __future__ import annotations

from modelwright.exporting.keras_layers.families import Tensor
from modelwright.exporting.keras_layers.net import Net
from modelwright.models.images import ConvNorm
from modelwright.models.resnet import Residual, ResNet


def build(net: Net, model: ResNet, given: dict[str, Tensor]) -> Tensor:
    """Stem, stages, the mean of every plane, the head."""
    trunk = model.trunk
    x = net.activation("relu", _conv_norm(net, trunk.stem, given["image"]))
    if not trunk.small:
        # Zeros around are PyTorch's -inf around here: after relu nothing is smaller.
        x = net.padded((1, 1), x)
        x = net.layers.MaxPooling2D(3, 2, padding="valid", data_format="channels_last")(x)
    for stage in trunk.stages:
        for block in stage:  # type: ignore[attr-defined]
            x = _residual(net, block, x)
    x = net.layers.GlobalAveragePooling2D(data_format="channels_last")(x)
    return net.dense(model.head, x)


def _conv_norm(net: Net, part: ConvNorm, x: Tensor) -> Tensor:
    return net.norm(part.norm, net.conv(part.conv, x))


def _residual(net: Net, block: Residual, x: Tensor) -> Tensor:
    y = x
    *inner, last = block.parts
    for part in inner:
        y = net.activation("relu", _conv_norm(net, part, y))  # type: ignore[arg-type]
    kept = x if block.shortcut is None else _conv_norm(net, block.shortcut, x)
    return net.activation("relu", _conv_norm(net, last, y) + kept)  # type: ignore[arg-type]
