"""Steps that clean, annotate and filter rows, one a file.

A step of a corpus is named by its module; ``operation`` makes it from its settings. There is no
list to edit: a file ``mine.py`` with a frozen dataclass ``Operation`` adds the step ``mine``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from modelwright.data.operations.operation import Operation, Step, WorkRow
from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.options import checked

__all__ = ["Operation", "Step", "WorkRow", "names", "operation", "operation_class"]


def names() -> list[str]:
    """The names of all steps: the modules of this room."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "operation")


def operation_class(name: str) -> type[Any]:
    """The dataclass ``Operation`` of the module ``name``.

    Raises:
        ModelwrightError: there is no such step; the nearest name is given.
    """
    if name not in names():
        raise ModelwrightError(
            f"steps: no step {name!r}{did_you_mean(name, names())}; known: {', '.join(names())}"
        )
    module = importlib.import_module(f"{__name__}.{name}")
    found: type[Any] = module.Operation
    return found


def operation(name: str, settings: Mapping[str, Any] | None = None) -> Operation:
    """The step ``name`` with its settings; fields left out keep their defaults.

    Raises:
        ModelwrightError: the step or a field is unknown, or a value is of a wrong type or out of
            its range.
    """
    cls = operation_class(name)
    made: Operation = cls(**checked(f"step {name}", cls, settings or {}))
    return made
