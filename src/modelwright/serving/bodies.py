"""Request bodies and errors of the API: JSON in, fields checked, errors named in OpenAI's shape."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, InitErrorDetails, PydanticCustomError

from modelwright.errors import did_you_mean

_SHOWN = 100  # characters of a name that nobody knows
_UNKNOWN, _NOT_OFFERED = "unknown_parameter", "unsupported_parameter"


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
    """A request body: types are not guessed, and a field that nobody knows is refused by name.

    Fields in ``ignored`` may have any value: what is answered does not depend on them. Of fields in
    ``not_offered`` it gives the values that ask for nothing; any other is refused.
    """

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)
    ignored: ClassVar[frozenset[str]] = frozenset()
    not_offered: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    @model_validator(mode="wrap")
    @classmethod
    def _known(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        refused = cls._refused(values) if isinstance(values, dict) else None
        if refused is None:
            return handler(values)
        try:
            handler(values)
        except ValidationError as error:
            # Of an object of another type the type is what is wrong, not its fields.
            if error.errors(include_url=False)[0]["loc"] == ("type",):
                raise
        raise refused

    @classmethod
    def _refused(cls, values: Mapping[str, Any]) -> ValidationError | None:
        """What is said of the first field that is not known here, or else not offered."""
        known = {field.alias or name for name, field in cls.model_fields.items()} | cls.ignored
        found = [
            (_UNKNOWN, name, f"there is no such field{did_you_mean(name[:_SHOWN], sorted(known))}")
            for name in values
            if name not in known and name not in cls.not_offered
        ]
        found += [
            (_NOT_OFFERED, name, "this server does not offer it; leave it out")
            for name, off in cls.not_offered.items()
            if name not in cls.model_fields and values.get(name) not in off
        ]
        for kind, name, why in found:
            told = PydanticCustomError(kind, "{why}", {"why": why})
            shown = name[:_SHOWN] if name[:_SHOWN].isprintable() else ascii(name[:_SHOWN])
            wrong = InitErrorDetails(type=told, loc=(shown,), input=None)
            return ValidationError.from_exception_data(cls.__name__, [wrong])
        return None

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        made = handler.resolve_ref_schema(handler(core_schema))
        without = {name: {"description": "without effect"} for name in sorted(cls.ignored)}
        made["properties"] = {**made.get("properties", {}), **without}
        made["additionalProperties"] = False
        return made


Schema = TypeVar("Schema", bound=Body)
# How errors of pydantic, and ours, are called where a client sees them.
_CODES = {
    "missing": "missing_required_parameter",
    _UNKNOWN: _UNKNOWN,
    _NOT_OFFERED: _NOT_OFFERED,
}
# What pydantic finds wrong, by its names, in our words; its own may name classes of ours.
_WRONG = {
    "missing": "is missing",
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "literal_error": "must be {expected}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "string_pattern_mismatch": "must match {pattern}",
}
_KEY = "[key]"  # what pydantic writes behind a key of a mapping that is wrong itself
_OURS = ("value_error", _UNKNOWN, _NOT_OFFERED)  # whose words are ours already


def _reason(wrong: ErrorDetails) -> str:
    """What is wrong with a field."""
    if wrong["type"] in _OURS:
        return wrong["msg"].removeprefix("Value error, ")
    said = _WRONG.get(wrong["type"], "is not what it must be; /openapi.json says what that is")
    return said.format(**wrong.get("ctx", {}))


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
        first = error.errors(include_url=False, include_input=False)[0]
        param = _path(first["loc"])
        code = _CODES.get(first["type"], "invalid_value")
        raise ApiError(400, f"{param}: {_reason(first)}", param=param, code=code) from None


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
        if step == _KEY:
            continue
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path or "body"
