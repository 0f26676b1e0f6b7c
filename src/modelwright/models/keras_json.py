"""Which architectures of Keras are built: those of its own layers, which run no stranger's code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from modelwright.errors import ModelwrightError

# Layers that run code, read files, or keep other libraries' models.
REFUSED: tuple[str, ...] = ("Lambda", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer")
REFUSED += ("StringLookup", "IntegerLookup", "TextVectorization")
_VALUES = ("__keras_tensor__", "__tensor__", "__numpy__", "__slice__", "__ellipsis__")
_MODELS = ("Sequential", "Functional", "Model")


def safe_architecture(text: str | bytes, where: str) -> str:
    """The JSON of an architecture without what belongs to training, checked.

    Raises:
        ModelwrightError: it is no Sequential or Functional model, or not of Keras' layers alone.
    """
    try:
        values = json.loads(text)
        if not isinstance(values, dict) or values.get("class_name") not in _MODELS:
            raise ValueError("no Sequential or Functional model")
    except (ValueError, RecursionError) as error:
        raise ModelwrightError(
            f"{where}: cannot be read ({str(error)[:100]}); save the model with Keras 3"
        ) from error
    values.pop("compile_config", None)
    for one in _described(values):
        _check(one, where)
    return json.dumps(values, sort_keys=True)


def _described(values: Any) -> Iterator[dict[str, Any]]:
    """Every object that the JSON describes."""
    if isinstance(values, dict):
        if "class_name" in values:
            yield values
        for inner in values.values():
            yield from _described(inner)
    elif isinstance(values, list):
        for inner in values:
            yield from _described(inner)


def _check(one: dict[str, Any], where: str) -> None:
    kind, module = str(one["class_name"]), one.get("module")
    if kind in _VALUES:
        return
    registered = one.get("registered_name")
    of_keras = isinstance(module, str) and (module == "keras" or module.startswith("keras."))
    named = kind == "function" and module == "builtins"  # "relu": looked up within Keras
    custom = registered is not None and ">" in str(registered)
    if kind in REFUSED or custom or not (of_keras or named):
        raise ModelwrightError(
            f"{where}: holds {registered or kind}, which is no plain layer of Keras and could run "
            "code or read files; build the model without it"
        )
    policy = one.get("config") if kind.endswith("DTypePolicy") else None
    if policy is not None and policy.get("name") != "float32":
        raise ModelwrightError(
            f"{where}: computes in {policy.get('name')}; save it with the policy float32, the "
            "recipe's precision says how it is trained"
        )
