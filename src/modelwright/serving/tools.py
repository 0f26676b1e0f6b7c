"""Functions that a model may call: how it is told of them, what it may write, what it has called.

A call is written as in training (``data.conversations``), and as the chat models of the Hermes and
Qwen families write it, one after another:

    <tool_call>
    {"name": "weather", "arguments": {"city": "Rome"}}
    </tool_call>

From ``<tool_call>`` on a grammar holds: a name that is offered, arguments of its schema. Where the
model is free to call or to answer, that text itself is what begins a call.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from modelwright.data.conversations import CALL, said_tools
from modelwright.serving.bodies import ApiError, Body
from modelwright.serving.constraint import ConstraintError, Grammar

BEGIN, END = f"<{CALL}>", f"</{CALL}>"
_HEAD = '\n{"name": '
_BETWEEN = ', "arguments": '
_TAIL = "}\n" + END
_AT_ONCE = 16  # calls of one answer
# One way to write the arguments, so that their end is known when it is read.
_WRITTEN = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Function(Body):
    """A function that is offered; ``parameters`` is the JSON schema of its arguments."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
    description: Annotated[str, Field(max_length=8192)] | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Typed(Body):
    """A tool that is offered; there are only functions."""

    type: Literal["function"]


class ChatTool(Typed):
    """A tool as chat completions have it."""

    function: Function


class ResponsesTool(Function, Typed):
    """A tool as responses have it. Its type stands in the last base, so it is checked first."""

    not_offered: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "allowed_callers": (None, []),
        "async": (None, False),
        "defer_loading": (None, False),
        "output_schema": (None,),
    }


class Named(Body):
    """The name of a function."""

    name: Annotated[str, Field(min_length=1, max_length=64)]


class Choosing(Body):
    """Whether to call, or which function; a subclass says where the function's name stands."""

    type: Literal["none", "auto", "required", "function"]

    @property
    def named(self) -> str | None:
        """The name of the function that is to be called."""
        return None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.type == "function") != (self.named is not None):
            raise ValueError("a choice of type 'function', and no other, names a function")
        return self


class ChatChoice(Choosing):
    """A choice as chat completions have it."""

    function: Named | None = None

    @property
    def named(self) -> str | None:
        """As the base says."""
        return self.function.name if self.function else None


class ResponsesChoice(Choosing):
    """A choice as responses have it."""

    name: Annotated[str, Field(min_length=1, max_length=64)] | None = None

    @property
    def named(self) -> str | None:
        """As the base says."""
        return self.name


def _of_text(value: Any) -> Any:
    """A text is the ``type`` of a choice."""
    return {"type": value} if isinstance(value, str) else value


_Word = Literal["none", "auto", "required"]
OfChat = Annotated[ChatChoice, BeforeValidator(_of_text, json_schema_input_type=_Word | ChatChoice)]
OfResponses = Annotated[
    ResponsesChoice, BeforeValidator(_of_text, json_schema_input_type=_Word | ResponsesChoice)
]


@dataclass(frozen=True)
class Tools:
    """What an answer may call.

    ``must``: it calls, and says nothing before. ``parallel``: it may call several times.
    """

    functions: Sequence[Function]
    must: bool = False
    parallel: bool = True

    @classmethod
    def of(
        cls, functions: Sequence[Function], choice: Choosing | None, *, parallel: bool | None
    ) -> Tools | None:
        """What a request offers, None where nothing is to be called.

        Raises:
            ApiError: 400, two functions of one name, or a choice among none, or of none of them.
        """
        names = [function.name for function in functions]
        if len(set(names)) < len(names):
            raise _wrong("tools", "two functions have one name")
        if not functions:
            if choice is not None and choice.type not in ("none", "auto"):
                raise _wrong("tool_choice", "there are no tools to choose from")
            return None
        if choice is None or choice.type == "auto":
            return cls(functions, parallel=parallel is not False)
        if choice.type == "none":
            return None
        if choice.named is not None:
            functions = [f for f in functions if f.name == choice.named]
            if not functions:
                known = f"no tool is named {choice.named!r}; known: {', '.join(names)}"
                raise _wrong("tool_choice", known)
        return cls(functions, must=True, parallel=parallel is not False)

    def check(self, form: Grammar | None, field: str) -> None:
        """Refuse what cannot be kept; ``form`` is that of the answer, which ``field`` asks for.

        Raises:
            ApiError: 400, an answer of a form beside calls, or schemas that are too long.
        """
        if form is not None:
            message = f"{field}: is not kept where tools may be called; leave one out"
            raise ApiError(400, message, param=field, code="unsupported_parameter")
        try:
            self.grammar()
        except ConstraintError as error:
            raise _wrong("tools", str(error)) from error

    def told(self, system: str = "") -> str:
        """What the system says of them, after what it says otherwise; as in training."""
        return said_tools([function.model_dump() for function in self.functions], system)

    def grammar(self) -> Grammar:
        """What an answer must match, in llguidance's kind of Lark.

        Raises:
            ConstraintError: the schemas are too long.
        """
        most = _AT_ONCE - 1 if self.parallel else 0
        more = f'("\\n{BEGIN}" call){{0,{most}}}' if most else ""
        begin = f'"{BEGIN}"' if self.must else "begin"
        start = f"start: {begin} call {more}"
        lines = ["%llguidance {}", start if self.must else f"{start} | TEXT"]
        if not self.must:
            lines += [f'begin[lazy]: TEXT "{BEGIN}"', r"TEXT: /(.|\n)*/"]
        lines.append("call: " + " | ".join(f"f{i}" for i in range(len(self.functions))))
        for number, function in enumerate(self.functions):
            head = json.dumps(_HEAD + json.dumps(function.name) + _BETWEEN)
            schema = {"type": "object", **(function.parameters or {})}
            schema["x-guidance"] = {**_WRITTEN, "lenient": not function.strict}
            lines.append(f"f{number}: {head} %json {json.dumps(schema)} {json.dumps(_TAIL)}")
        return Grammar("lark", "\n".join(lines) + "\n", param="tools")


def _wrong(param: str, why: str) -> ApiError:
    return ApiError(400, f"{param}: {why}", param=param, code="invalid_value")


@dataclass
class Call:
    """A call in an answer, as far as it has come; ``arguments`` is JSON, whole when it ended."""

    name: str
    id: str = field(default_factory=lambda: f"call_{secrets.token_hex(12)}")
    arguments: str = ""
    ended: bool = False

    def shape(self) -> dict[str, Any]:
        """As a message has it."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


class Reader:
    """Tells text from calls while an answer comes, piece by piece.

    ``text`` and ``calls`` are what has come.
    """

    def __init__(self) -> None:
        self.text = ""
        self.calls: list[Call] = []
        self._held = ""
        self._next = self._outside  # what is read now: gives a delta, or None if more must come

    @property
    def called(self) -> bool:
        """Whether there are calls, and the last one is at its end."""
        return bool(self.calls) and self._next == self._outside

    def feed(self, piece: str) -> Iterator[dict[str, Any]]:
        """Deltas of a message, in OpenAI's shape, of what a piece made certain."""
        self._held += piece
        while (delta := self._next()) is not None:
            if delta:
                yield delta

    def close(self) -> Iterator[dict[str, Any]]:
        """Deltas of what was held back, when the answer has ended."""
        rest, self._held = self._held, ""
        if rest and self._next == self._arguments:
            yield self._argued(rest)
        elif rest and self._next == self._outside and not self.calls:
            yield self._said(rest)

    def _outside(self) -> dict[str, Any] | None:
        at = self._held.find(BEGIN)
        if at < 0:
            # Blanks before a call are none of the text, and there is none behind the first.
            sure = "" if self.calls else self._certain(BEGIN).rstrip()
            self._held = self._held[len(sure) :]
            return self._said(sure) if sure else None
        said = "" if self.calls else self._held[:at].rstrip()
        self._held = self._held[at + len(BEGIN) :]
        self._next = self._name
        return self._said(said) if said else {}

    def _name(self) -> dict[str, Any] | None:
        at = self._held.find(_BETWEEN)
        if at < 0:
            return None
        # The name is quoted, and one that a grammar offered: nothing in it is escaped.
        self.calls.append(Call(self._held[len(_HEAD) : at].strip('"')))
        self._held = self._held[at + len(_BETWEEN) :]
        self._next = self._arguments
        return {"tool_calls": [{"index": len(self.calls) - 1, **self.calls[-1].shape()}]}

    def _arguments(self) -> dict[str, Any] | None:
        at = self._held.find(_TAIL)
        if at < 0:
            sure = self._certain(_TAIL)
            self._held = self._held[len(sure) :]
            return self._argued(sure) if sure else None
        part, self._held = self._held[:at], self._held[at + len(_TAIL) :]
        self._next = self._outside
        self.calls[-1].ended = True
        return self._argued(part) if part else {}

    def _certain(self, mark: str) -> str:
        """What of the held text cannot belong to a mark that is still coming."""
        most = min(len(mark) - 1, len(self._held))
        keep = next((n for n in range(most, 0, -1) if mark.startswith(self._held[-n:])), 0)
        return self._held[: len(self._held) - keep]

    def _said(self, text: str) -> dict[str, Any]:
        self.text += text
        return {"content": text}

    def _argued(self, text: str) -> dict[str, Any]:
        self.calls[-1].arguments += text
        place = {"index": len(self.calls) - 1, "function": {"arguments": text}}
        return {"tool_calls": [place]}


def read(text: str) -> Reader:
    """What a whole answer says and calls."""
    reader = Reader()
    for _ in (*reader.feed(text), *reader.close()):
        pass
    return reader
