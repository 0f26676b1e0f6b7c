"""Objectives: how a model learns, one a file; found by module name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from modelwright.errors import ModelwrightError
from modelwright.types import Codec, Objective


def names() -> list[str]:
    """The module names of all objectives."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


def make_objective(name: str, codec: Codec, options: Mapping[str, Any]) -> Objective:
    """The objective of module ``name`` for a codec, with its options."""
    module = importlib.import_module(f"{__name__}.{name}")
    try:
        made: Objective = module.Objective(codec, **options)
    except TypeError as error:
        raise ModelwrightError(f"objective {name}: {error}") from error
    return made
