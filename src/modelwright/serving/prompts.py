"""Texts as clients send them: as they are, or as the ids of their tokens."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, PlainValidator, TypeAdapter

from modelwright.serving import limits

Given = str | list[int]
TokenId = Annotated[int, Field(ge=0, lt=1 << 31)]
Tokens = Annotated[list[TokenId], Field(min_length=1, max_length=limits.TEXT)]

_STRICT = ConfigDict(strict=True)
_TOKENS = TypeAdapter(Tokens, config=_STRICT)


def listed(value: Any) -> Any:
    """One text, or the ids of one, as a list of one; null as an empty list."""
    if value is None:
        return []
    one = isinstance(value, str) or (isinstance(value, list) and value and type(value[0]) is int)
    return [value] if one else value


def text_or_tokens(text: Any) -> PlainValidator:
    """What checks a text of this type, or ids: an error names the field alone, and no type."""
    texts: TypeAdapter[str] = TypeAdapter(text, config=_STRICT)

    def checked(value: Any) -> Given:
        return (_TOKENS if isinstance(value, list) else texts).validate_python(value)

    return PlainValidator(checked, json_schema_input_type=text | Tokens)
