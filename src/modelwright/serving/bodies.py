"""Request bodies and errors of the API: JSON in, fields checked, errors named in OpenAI's shape."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator


@dataclass
class ApiError(Exception):
    """An error as a client of the API sees it."""

    status: int
    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def body(self) -> dict[str, Any]:
        """The error in OpenAI's shape."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error}


class Body(BaseModel):
    """A request body: types are not guessed, unknown fields are left aside.

    Of fields in ``not_offered`` it gives the values that ask for nothing; any other is refused.
    """

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)
    not_offered: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, values: Any) -> Any:
        for name, off in cls.not_offered.items():
            if isinstance(values, dict) and values.get(name) not in off:
                message = f"{name}: this server does not offer it; leave it out"
                raise ApiError(400, message, param=name, code="unsupported_parameter")
        return values


Schema = TypeVar("Schema", bound=Body)


def parse(schema: type[Schema], body: bytes) -> Schema:
    """Read and check a request body.

    Raises:
        ApiError: 400, naming the first field that is wrong.
    """
    try:
        values = json.loads(
            body.decode("utf-8"),
            parse_constant=_no_constant,
            parse_float=_finite,
            object_pairs_hook=_unique,
        )
        if b"\\ud" in body.lower():  # escapes may spell half a character, which is no text
            json.dumps(values, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply", code="invalid_json") from None
    except ValueError:  # also bad UTF-8 and integers of thousands of digits
        raise ApiError(400, "the body is not valid JSON in UTF-8", code="invalid_json") from None
    if not isinstance(values, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_json")
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        param = _path(first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
        raise ApiError(400, f"{param}: {reason}", param=param, code=code) from None


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key appears twice")
    return values


def _path(location: Sequence[int | str]) -> str:
    """A field's place as a client writes it: messages[0].content."""
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path or "body"
