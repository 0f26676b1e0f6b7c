"""How each family is said in layers of Keras: a module a family, by the name of the family.

Each has ``build(net, model, given)``: the logits for what ``given`` holds, as Keras' tensors.
Images are channels-last there as they are in the data; sequences are padded on the right, and
``given["seen"]`` says which places are true.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any, Protocol, cast

from modelwright.errors import ModelwrightError

Tensor = Any  # of Keras


class Family(Protocol):
    """A module of this folder."""

    def build(self, net: Any, model: Any, given: dict[str, Tensor]) -> Tensor:
        """The logits (B, outputs)."""


def family(name: str) -> Family:
    """The way of a family into Keras.

    Raises:
        ModelwrightError: there is none.
    """
    known = sorted(m.name for m in pkgutil.iter_modules(__path__))
    if name not in known:
        raise ModelwrightError(
            f"--to keras: a {name} has no counterpart in layers of Keras here; there are "
            f"{', '.join(known)}; --to hub, onnx or torch-export take other families"
        )
    return cast(Family, importlib.import_module(f"{__name__}.{name}"))
