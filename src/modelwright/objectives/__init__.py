"""Objectives: how a model learns, one a file; found by module name."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, cast

from modelwright import extensions, rooms
from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.options import checked
from modelwright.types import Codec, Columns, Objective

_IS_OBJECTIVE = rooms.defines("Objective")


def names() -> list[str]:
    """The module names of all objectives."""
    return rooms.members(sys.modules[__name__], _IS_OBJECTIVE)


def make_objective(name: str, codec: Codec, options: Mapping[str, Any]) -> Objective:
    """The objective of module ``name``, or of a file, for a codec, with its options."""
    values = objective_options(name, options)
    needs = getattr(_module(name), "needs", None)
    if needs is not None and not hasattr(codec, needs):
        kind = extensions.short(extensions.own_name(type(codec)))
        raise ModelwrightError(
            f"objective {extensions.short(name)}: cannot learn what the {kind} codec of this task "
            "makes; leave the objective out to take the task's own"
        )
    made: Objective = objective_class(name)(codec, **values)
    return made


def objective_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the objective ``name``, checked; a mistyped one is refused."""
    return checked(
        f"objective {extensions.short(name)}", objective_class(name), options, apart=("codec",)
    )


def beside(objective: Objective, columns: Columns) -> Columns:
    """The rows of one step, or of what is measured at once, with what their loss needs of others.

    An objective whose loss of a row depends on other rows has a method ``beside`` that gives every
    row what it needs of them, before the step is cut into micro-batches; for the others the rows
    stay as they are.
    """
    of_others = getattr(objective, "beside", None)
    return columns if of_others is None else cast(Columns, of_others(columns))


def objective_class(name: str) -> Any:
    """The ``Objective`` class of a module of this room, or of a file of the user's own."""
    if extensions.is_reference(name):
        return extensions.member(name, "Objective", "an objective")
    return _module(name).Objective


def _module(name: str) -> Any:
    if extensions.is_reference(name):
        return extensions.load(name)
    module = rooms.member(sys.modules[__name__], name, _IS_OBJECTIVE)
    if module is None:
        hint = did_you_mean(name, names())
        raise ModelwrightError(f"no objective {name!r}{hint}; known: {', '.join(names())}")
    return module
