"""Options written in a recipe, checked against the signature that will take them."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from modelwright.errors import ModelwrightError, did_you_mean

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
    declared = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
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
