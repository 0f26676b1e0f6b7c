"""The steps of a corpus by their names: modules of ``data/operations``."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelwright.data import operations
from modelwright.data.operations.operation import Operation
from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.options import checked


def names() -> list[str]:
    """The names of all steps."""
    folder = Path(next(iter(operations.__path__)))
    return [m.name for m in pkgutil.iter_modules([str(folder)]) if m.name != "operation"]


def make_operation(name: str, settings: Mapping[str, Any] | None = None) -> Operation:
    """The step ``name`` with its settings.

    Raises:
        ModelwrightError: no such step, or a mistyped setting; the nearest is named.
    """
    if name not in names():
        raise ModelwrightError(
            f"step: no step {name!r}{did_you_mean(name, names())}; known: {', '.join(names())}"
        )
    cls = importlib.import_module(f"modelwright.data.operations.{name}").Operation
    made: Operation = cls(**checked(f"step {name}", cls, settings or {}))
    return made


def described(name: str, made: Any, assets: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A step or reader as JSON for the arguments of a unit: all that its rows depend on."""
    found = {"name": name, "version": made.version, "settings": dataclasses.asdict(made)}
    return found if assets is None else found | {"assets": dict(assets)}
