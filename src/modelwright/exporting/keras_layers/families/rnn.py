"""Recurrent networks: Keras' own SimpleRNN, GRU and LSTM, told by a mask which frames are true.

At a masked frame a layer of Keras keeps its state, so the last state is that after the last true
frame; read backwards, it waits for the first one. Gates stand in the order input, forget,
candidate, output in both libraries (LSTM), but PyTorch's reset, update, candidate are update,
reset, candidate in Keras; its ``reset_after`` is PyTorch's formula.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from modelwright.exporting.keras_layers.families import Tensor
from modelwright.exporting.keras_layers.net import Net
from modelwright.models.rnn import Config, Recurrent
from modelwright.types import Array


def build(net: Net, model: Any, given: dict[str, Tensor]) -> Tensor:
    """Layers over the frames, and a dense one on the last state."""
    config: Config = model.config
    x, seen = given["frames"], given["seen"]
    if isinstance(model, Recurrent):
        weights = [
            net.array(model.input_weight).T,
            net.array(model.hidden_weight).T,
            net.array(model.hidden_bias),
        ]
        plain = net.layers.SimpleRNN(
            config.hidden, activation=_named(config.activation), name="recurrent"
        )
        return net.dense(model.output, net.filled(plain, weights, x, mask=seen))
    for number in range(config.layers):
        layer = _layer(net, config, number)
        weights = _weights(net, model, config, f"l{number}")
        if config.bidirectional:
            layer = net.layers.Bidirectional(layer, name=f"both_ways_{number}")
            weights += _weights(net, model, config, f"l{number}_reverse")
        x = net.filled(layer, weights, x, mask=seen)
    return net.dense(model.output, x)


def _layer(net: Net, config: Config, number: int) -> Any:
    fields: dict[str, Any] = {
        "return_sequences": number < config.layers - 1,
        "name": f"recurrent_{number}",
    }
    if config.cell == "lstm":
        return net.layers.LSTM(config.hidden, **fields)
    if config.cell == "gru":
        return net.layers.GRU(config.hidden, reset_after=True, **fields)
    return net.layers.SimpleRNN(config.hidden, activation=_named(config.activation), **fields)


def _weights(net: Net, model: Any, config: Config, which: str) -> list[Array]:
    """Kernel, recurrent kernel and bias of one direction of one layer, as Keras has them."""

    def of(kind: str) -> Array:
        return net.array(getattr(model.recurrent, f"{kind}_{which}"))

    kernel, recurrent = of("weight_ih"), of("weight_hh")
    one, other = of("bias_ih"), of("bias_hh")
    if config.cell == "gru":
        kernel, recurrent, one, other = (_update_first(a) for a in (kernel, recurrent, one, other))
        return [kernel.T, recurrent.T, np.stack([one, other])]
    return [kernel.T, recurrent.T, one + other]


def _update_first(gates: Array) -> Array:
    """Rows of reset, update, candidate as update, reset, candidate."""
    reset, update, candidate = np.split(gates, 3)
    return np.concatenate([update, reset, candidate])


def _named(kind: str) -> str:
    """An activation as Keras' recurrent layers name it: "gelu" is exact there too."""
    return kind
