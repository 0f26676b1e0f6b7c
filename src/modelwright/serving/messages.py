"""The messages of a chat as turns: what people, models and tools have said."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, model_validator
from pydantic_core import PydanticCustomError

from modelwright.data import conversations
from modelwright.serving import limits
from modelwright.serving.bodies import ApiError, Body
from modelwright.serving.tools import Tools
from modelwright.types import Turn, text_turn

_MISSING = object()  # stands for content that is not there


class TextPart(Body):
    """A text within a message."""

    ignored: ClassVar[frozenset[str]] = frozenset({"cache_control", "prompt_cache_breakpoint"})
    type: Literal["text"]
    text: str


_TEXTS = TypeAdapter(list[TextPart])


def _joined(content: Any) -> Any:
    """Content parts as one text; anything that is not text is refused."""
    if content is _MISSING:
        raise PydanticCustomError("missing", "Field required")
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise ValueError('must be a text or a list of {"type": "text", "text": ...}')
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text":
            raise ValueError("only parts of type 'text' are supported by this model")
        if not isinstance(part.get("text"), str):
            raise ValueError("a part of type 'text' needs a 'text' that is a string")
    return "".join(part.text for part in _TEXTS.validate_python(content))


# What a client may write: a text, or its parts.
Parts = (
    Annotated[str, Field(max_length=limits.TEXT)] | Annotated[list[TextPart], Field(min_length=1)]
)
Content = Annotated[
    str,
    BeforeValidator(_joined, json_schema_input_type=Parts),
    Field(max_length=limits.TEXT),
]


class CalledFunction(Body):
    """What an assistant has called."""

    ignored: ClassVar[frozenset[str]] = frozenset({"parsed_arguments"})
    name: Annotated[str, Field(min_length=1, max_length=64)]
    arguments: Annotated[str, Field(max_length=limits.TEXT)]


class ToolCall(Body):
    """A call in an assistant's message, as an answer of this server has it."""

    ignored: ClassVar[frozenset[str]] = frozenset({"index"})
    id: Annotated[str, Field(min_length=1, max_length=256)]
    type: Literal["function"] = "function"
    function: CalledFunction

    @property
    def stated(self) -> dict[str, Any]:
        """Name and arguments, as the model writes them; arguments that are no JSON are a text."""
        try:
            arguments = json.loads(self.function.arguments)
        except (ValueError, RecursionError):
            arguments = self.function.arguments
        return {"name": self.function.name, "arguments": arguments}


class Message(Body):
    """One message of a conversation; what an answer had beside its text may stay in it."""

    ignored: ClassVar[frozenset[str]] = frozenset(
        {"annotations", "name", "parsed", "reasoning", "reasoning_content"}
    )
    not_offered: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "audio": (None,),
        "function_call": (None,),
        "refusal": (None, ""),
    }
    role: Literal["system", "developer", "user", "assistant", "tool"]
    tool_calls: Annotated[list[ToolCall], Field(max_length=limits.TOOLS)] | None = None
    tool_call_id: Annotated[str, Field(max_length=256)] | None = None
    content: Content | None = None

    @model_validator(mode="before")
    @classmethod
    def _some_content(cls, values: Any) -> Any:
        """Only an assistant that calls tools need say nothing."""
        if isinstance(values, dict) and values.get("content") is None:
            if values.get("role") == "assistant" and values.get("tool_calls"):
                return values
            # An empty list is refused by the field, in its own words.
            return {**values, "content": [] if "content" in values else _MISSING}
        return values

    @property
    def text(self) -> str:
        """What is said, the calls included."""
        calls: list[Mapping[str, Any]] = [call.stated for call in self.tool_calls or ()]
        return conversations.said(conversations.Message(self.role, self.content or "", calls=calls))


def conversation(messages: Sequence[Message], tools: Tools | None) -> list[Turn]:
    """The turns of a chat; "developer" is the newer name of "system".

    What tools have answered is given as a user's turn, and the tools themselves are told of at the
    end of what the system says first, so that every chat template can write them.

    Raises:
        ApiError: 400, a tool answers a call that nobody has made.
    """
    turns: list[Turn] = []
    if tools is not None and messages[0].role not in ("system", "developer"):
        turns.append(text_turn("system", tools.told()))
    results: list[str] = []
    called: set[str] = set()
    for number, message in enumerate(messages):
        if message.role == "tool":
            if message.tool_call_id not in called:
                why = f"no message before calls {message.tool_call_id!r}"
                raise _wrong(f"messages[{number}].tool_call_id", why)
            results.append(message.text)
            continue
        if message.tool_calls and message.role != "assistant":
            raise _wrong(f"messages[{number}].tool_calls", "only an assistant calls")
        turns += _answered(results)
        called |= {call.id for call in message.tool_calls or ()}
        text = message.text
        if number == 0 and message.role in ("system", "developer") and tools is not None:
            text = tools.told(text)
        turns.append(text_turn("system" if message.role == "developer" else message.role, text))
    return [*turns, *_answered(results)]


def _wrong(where: str, why: str) -> ApiError:
    return ApiError(400, f"{where}: {why}", param=where, code="invalid_value")


def _answered(results: list[str]) -> Iterator[Turn]:
    """What tools have answered since the last turn, taken out of ``results``."""
    if results:
        yield text_turn("user", "\n".join(results))
        results.clear()
