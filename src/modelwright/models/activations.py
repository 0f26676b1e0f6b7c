"""The elementwise nonlinearities that a recipe may name, each with its formula."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from modelwright.errors import ModelwrightError, did_you_mean

Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: dict[str, Activation] = {
    "relu": torch.relu,  # max(0, z)
    "sigmoid": torch.sigmoid,  # 1 / (1 + exp(-z))
    "tanh": torch.tanh,  # (exp(z) - exp(-z)) / (exp(z) + exp(-z))
    "gelu": F.gelu,  # z Phi(z), Phi the normal distribution function (arXiv:1606.08415)
    "gelu_tanh": partial(F.gelu, approximate="tanh"),  # the same with Phi approximated by tanh
    "silu": F.silu,  # z / (1 + exp(-z))
}


def activation(name: str) -> Activation:
    """The nonlinearity called ``name``.

    Raises:
        ModelwrightError: there is none of that name.
    """
    if name not in ACTIVATIONS:
        hint = did_you_mean(name, ACTIVATIONS)
        known = ", ".join(ACTIVATIONS)
        raise ModelwrightError(f"model.activation: no activation {name!r}{hint}; known: {known}")
    return ACTIVATIONS[name]
