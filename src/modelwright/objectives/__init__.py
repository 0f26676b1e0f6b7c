"""Objectives: how a model learns, one a file; found by module name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.options import checked
from modelwright.types import Codec, Objective


def names() -> list[str]:
    """The module names of all objectives."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


def make_objective(name: str, codec: Codec, options: Mapping[str, Any]) -> Objective:
    """The objective of module ``name`` for a codec, with its options."""
    made: Objective = _class(name)(codec, **objective_options(name, options))
    return made


def objective_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the objective ``name``, checked; a mistyped one is refused."""
    return checked(f"objective {name}", _class(name), options, apart=("codec",))


def _class(name: str) -> Any:
    if name not in names():
        hint = did_you_mean(name, names())
        raise ModelwrightError(f"no objective {name!r}{hint}; known: {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}").Objective
