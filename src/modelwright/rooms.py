"""The members of a room, found by what its modules hold: there is no list to edit."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from types import ModuleType

Holds = Callable[[ModuleType], bool]  # whether a module is a member, or a part that members share


def defines(name: str) -> Holds:
    """Whether a module has a ``name`` of its own, imported from no other."""

    def holds(module: ModuleType) -> bool:
        return getattr(getattr(module, name, None), "__module__", None) == module.__name__

    return holds


def members(room: ModuleType, holds: Holds) -> list[str]:
    """The names of all members, in order. Every module of the room is imported."""
    return sorted(n for n in _modules(room) if holds(_imported(room, n)))


def member(room: ModuleType, name: str, holds: Holds) -> ModuleType | None:
    """The member of that name, or None. Nothing is imported but a module of the room."""
    if name not in _modules(room):
        return None
    module = _imported(room, name)
    return module if holds(module) else None


def _modules(room: ModuleType) -> set[str]:
    return {found.name for found in pkgutil.iter_modules(room.__path__)}


def _imported(room: ModuleType, name: str) -> ModuleType:
    return importlib.import_module(f"{room.__name__}.{name}")
