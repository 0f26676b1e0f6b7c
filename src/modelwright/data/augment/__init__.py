"""Augmentation: other views of the rows of the train split, and of no other.

A recipe names transforms line by line, and a row goes through them in this order:

    augment: [{crop: {padding: 4}}, flip, {mixup: {alpha: 0.2}}]

Each is a frozen dataclass in a module of ``transforms``, one module a family; its name in a recipe
is that of the class in small letters: ``rand_augment`` for ``RandAugment``. All draw from a
generator that is handed to them, so that who calls decides what a view is a function of: of
(seed, step) in a training (``batches``), of (seed, row) in a corpus (``rows``).
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import pkgutil
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from modelwright.data.augment import transforms
from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.options import checked

__all__ = ["Line", "chain", "generator", "names", "transform_class"]

Line = str | Mapping[str, Any]  # a transform's name, or {name: settings}


@cache
def _classes() -> dict[str, type[Any]]:
    found = {}
    for family in pkgutil.iter_modules(transforms.__path__):
        module = importlib.import_module(f"{transforms.__name__}.{family.name}")
        for name, cls in inspect.getmembers(module, inspect.isclass):
            if cls.__module__ == module.__name__ and hasattr(cls, "kind"):
                found[re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()] = cls
    return found


def names() -> list[str]:
    """The names of all transforms."""
    return sorted(_classes())


def transform_class(name: str) -> type[Any]:
    """The dataclass of a transform.

    Raises:
        ModelwrightError: there is none of this name; the nearest is given.
    """
    if name not in _classes():
        raise ModelwrightError(
            f"augment: no transform {name!r}{did_you_mean(name, names())}; known: "
            f"{', '.join(names())}"
        )
    return _classes()[name]


def chain(lines: Sequence[Line]) -> tuple[Any, ...]:
    """The transforms of a recipe's lines, in their order.

    Raises:
        ModelwrightError: a line is no transform, or a setting is unknown or out of its range.
    """
    made = []
    for line in lines:
        settings: Any = None
        if isinstance(line, str):
            name = line
        elif isinstance(line, Mapping) and len(line) == 1:
            ((name, settings),) = line.items()
        else:
            raise ModelwrightError(
                f"augment: {str(line)[:60]!r} is no line; write a name, or {{name: settings}}"
            )
        settings = {} if settings is None else settings
        if not isinstance(settings, Mapping):
            raise ModelwrightError(f"augment: {name}: settings are a mapping, not {settings!r}")
        cls = transform_class(str(name))
        made.append(cls(**checked(f"augment: {name}", cls, settings)))
    return tuple(made)


def generator(*parts: object) -> np.random.Generator:
    """A generator that is a pure function of its parts: seeded with BLAKE2b of their text."""
    text = "\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(text, digest_size=16).digest()))
