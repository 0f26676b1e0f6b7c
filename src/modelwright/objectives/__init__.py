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
    values = objective_options(name, options)
    module = _module(name)
    if not hasattr(codec, module.needs):
        kind = type(codec).__module__.rpartition(".")[2]
        raise ModelwrightError(
            f"objective {name}: cannot learn what the {kind} codec of this task makes; "
            "leave the objective out to take the task's own"
        )
    made: Objective = module.Objective(codec, **values)
    return made


def objective_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the objective ``name``, checked; a mistyped one is refused."""
    return checked(f"objective {name}", _module(name).Objective, options, apart=("codec",))


def _module(name: str) -> Any:
    if name not in names():
        hint = did_you_mean(name, names())
        raise ModelwrightError(f"no objective {name!r}{hint}; known: {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")
