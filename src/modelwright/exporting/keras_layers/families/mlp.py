"""The perceptron."""

from __future__ import annotations

from typing import Any

from modelwright.exporting.keras_layers.families import Tensor
from modelwright.exporting.keras_layers.net import Net
from modelwright.models.mlp import Perceptron


def build(net: Net, model: Perceptron, given: dict[str, Tensor]) -> Any:
    """Flatten, then dense layers."""
    x = net.layers.Flatten(data_format="channels_last")(given["features"])
    *inner, last = model.layers
    for layer in inner:
        x = net.activation(model.config.activation, net.dense(layer, x))  # type: ignore[arg-type]
    return net.dense(last, x)  # type: ignore[arg-type]
