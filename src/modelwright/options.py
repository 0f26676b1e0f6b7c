"""Options written in a recipe, checked against the signature that will take them."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from modelwright.errors import ModelwrightError, did_you_mean

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_CONFIG = ConfigDict(coerce_numbers_to_str=True, allow_inf_nan=False)


def checked(
    where: str,
    function: Callable[..., Any],
    options: Mapping[str, Any],
    *,
    apart: Collection[str] = (),
    joint: str = ": ",
) -> dict[str, Any]:
    """``options`` as the types that the parameters of ``function`` declare.

    Args:
        where: what the message begins with, such as "task documents".
        function: a function or a class; its annotations may bear pydantic's constraints.
        options: what the recipe gives.
        apart: parameters that are no options, because the caller gives them.
        joint: what stands between ``where`` and the option.

    Raises:
        ModelwrightError: an option is unknown (the nearest is named) or of a wrong type.
    """
    known = [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.kind not in _VARIADIC and p.name not in apart
    ]
    declared: Any = function
    if isinstance(function, type) and not dataclasses.is_dataclass(function):
        declared = function.__init__  # type: ignore[misc]
    # Of a dataclass those of the class: fields that it inherits are named in another module.
    hints = typing.get_type_hints(declared, include_extras=True)
    values: dict[str, Any] = {}
    for option, value in options.items():
        if option not in known:
            hint = did_you_mean(option, known)
            allowed = ", ".join(known) or "none"
            raise ModelwrightError(f"{where}: no option {option!r}{hint}; known: {allowed}")
        try:
            values[option] = TypeAdapter(hints[option], config=_CONFIG).validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            inner = "".join(f".{part}" for part in first["loc"])
            shown = f" (got {value!r})" if isinstance(value, str | int | float) else ""
            raise ModelwrightError(
                f"{where}{joint}{option}{inner}: {first['msg']}{shown}"
            ) from None
    return values


def problem_said(problem: ErrorDetails, known: Callable[[], list[str]], missing: str) -> str:
    """What pydantic found wrong with one key, in the words of a recipe.

    Args:
        problem: the first of a ValidationError.
        known: tells the keys of the section that it lies in, asked only of an unknown key.
        missing: what is said of a key that is not there.
    """
    if problem["type"] == "extra_forbidden":
        names = known()
        hint = did_you_mean(str(problem["loc"][-1]), names)
        return f"unknown key{hint}; known: {', '.join(names)}"
    if problem["type"] == "missing":
        return missing
    given = problem.get("input")
    shown = f" (got {given!r})" if isinstance(given, str | int | float | bool) else ""
    said = problem["msg"].removeprefix("Value error, ") + shown
    if problem["type"] == "literal_error":
        said += did_you_mean(str(given), re.findall("'([^']+)'", problem["ctx"]["expected"]))
    return said


def seconds(text: str) -> float:
    """Seconds of a duration such as "90s", "3m", "1.5h", "1h30m"."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not parts or "".join(n + u for n, u in parts) != text.replace(" ", ""):
        raise ModelwrightError(
            f"budget: {text!r} is no time, tokens or FLOPs; "
            "write it like 90s, 1h30m, 20Mtok or 1e15flop"
        )
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    total = float(sum(float(n) * unit[u] for n, u in parts))
    if total <= 0:
        raise ModelwrightError(f"budget: {text!r} is no time at all; write it like 90s or 3m")
    return total


def amount(text: str) -> tuple[str, float]:
    """What a budget gives, and of what: ("seconds" | "tokens" | "flops", a number above 0)."""
    number = r"(\d+(?:\.\d+)?(?:[eE]\+?\d+)?)\s*([KMBT]?)"
    match = re.fullmatch(number + r"\s*(tok|flop)(?:en)?s?", text.strip(), re.IGNORECASE)
    if not match:
        return "seconds", seconds(text)
    unit = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}[match[2].upper()]
    total = float(match[1]) * unit
    if not 0 < total < 1e30:
        raise ModelwrightError(f"budget: {text!r} cannot be trained; write it like 20Mtok")
    return ("tokens" if match[3].lower() == "tok" else "flops"), total


def count(text: str | int) -> int:
    """A number such as 5000000, "5M" or "1.2B"."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMB]?)", str(text).strip(), re.IGNORECASE)
    if not match:
        raise ModelwrightError(f"model.parameters: {text!r} is not a count; write it like 5M")
    return int(float(match[1]) * {"": 1, "K": 1e3, "M": 1e6, "B": 1e9}[match[2].upper()])
