"""The body of POST /v1/responses: a conversation as a list of items.

An item is a message, a call of a function, or what a call gave. They become the messages of a
chat, and so what the model reads is the same. Nothing is stored: a request cannot go on from an
earlier one by its id; it sends what was said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails

from modelwright.serving import fields, limits
from modelwright.serving.constraint import Grammar
from modelwright.serving.messages import (
    CalledFunction,
    Message,
    TextPart,
    ToolCall,
    conversation,
)
from modelwright.serving.openai import ApiError, Body, MaxTokens, ResponseFormat
from modelwright.serving.sampling import SamplingParams
from modelwright.serving.tools import OfResponses, ResponsesTool, Tools
from modelwright.types import Turn

# What an item of an answer has beside what it says, and what is sent back with it.
_OF_ITEMS = frozenset({"id", "status"})
_BETWEEN_CALLERS: dict[str, tuple[Any, ...]] = {
    "async": (None, False),
    "caller": (None,),
    "namespace": (None,),
}


class InputPart(TextPart):
    """A text within an item, as it is given or as an answer had it."""

    ignored: ClassVar[frozenset[str]] = TextPart.ignored | {"annotations", "logprobs"}
    type: Literal["input_text", "output_text", "text"]  # type: ignore[assignment]  # more of them


_TEXTS = TypeAdapter(list[InputPart])


def _joined(content: Any) -> Any:
    """Content parts as one text; anything that is not text is refused."""
    if isinstance(content, str):
        return content
    kinds = ("input_text", "output_text", "text")
    if not isinstance(content, list) or not content:
        raise ValueError("must be a text or a list of parts")
    for part in content:
        if not isinstance(part, dict) or part.get("type") not in kinds:
            raise ValueError("only parts of type 'input_text' are supported by this model")
        if not isinstance(part.get("text"), str):
            raise ValueError("a part needs a 'text' that is a string")
    return "".join(part.text for part in _TEXTS.validate_python(content))


def _messages(value: Any) -> Any:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


_Said = Annotated[
    str,
    BeforeValidator(
        _joined,
        json_schema_input_type=Annotated[str, Field(max_length=limits.TEXT)]
        | Annotated[list[InputPart], Field(min_length=1)],
    ),
    Field(max_length=limits.TEXT),
]
_CallId = Annotated[str, Field(min_length=1, max_length=256)]


class _Chat:
    """The messages of a chat, as items are put to them one by one.

    The calls between two messages belong to one answer of the assistant, with the message before
    them if it is the assistant's; each is followed by what it gave before anything else is said.
    """

    def __init__(self, first: Sequence[Message]) -> None:
        self.messages = list(first)
        self._known: set[str] = set()
        self._waiting: dict[str, str] = {}  # calls without a result, and where they stand
        self._answering = False  # the last message is an answer, to which calls may come

    def say(self, message: Message) -> None:
        """A message."""
        self.settle()
        self._answering = message.role == "assistant"
        self.messages.append(message)

    def call(self, where: str, call: ToolCall) -> None:
        """A call."""
        if call.id in self._known:
            raise _wrong(f"{where}.call_id", f"two calls are {call.id!r}")
        if not self._answering:
            self.say(Message(role="assistant", content=""))
        self._known.add(call.id)
        self._waiting[call.id] = where
        answer = self.messages[-1]
        answer.tool_calls = [*(answer.tool_calls or ()), call]

    def result(self, where: str, call_id: str, text: str) -> None:
        """What a call gave."""
        if self._waiting.pop(call_id, None) is None:
            had = "has a result already" if call_id in self._known else "was not called before"
            raise _wrong(f"{where}.call_id", f"{call_id!r} {had}")
        self._answering = False
        self.messages.append(Message(role="tool", tool_call_id=call_id, content=text))

    def settle(self) -> None:
        """Refuse to go on while a call has no result.

        Raises:
            ApiError: 400, it names the call.
        """
        for call_id, where in self._waiting.items():
            why = f"no function_call_output follows for {call_id!r} before anything else"
            raise _wrong(f"{where}.call_id", why)


def _wrong(where: str, why: str) -> ApiError:
    return ApiError(400, f"{where}: {why}", param=where, code="invalid_value")


class InputMessage(Body):
    """A message of the input."""

    ignored: ClassVar[frozenset[str]] = _OF_ITEMS | {"phase"}
    type: Literal["message"] | None = None
    role: Literal["system", "developer", "user", "assistant"]
    content: _Said

    def put(self, chat: _Chat, where: str) -> None:  # noqa: ARG002
        """Put it to a chat."""
        chat.say(Message(role=self.role, content=self.content))


class FunctionCall(CalledFunction):
    """A call of a function that the assistant has made."""

    ignored: ClassVar[frozenset[str]] = CalledFunction.ignored | _OF_ITEMS
    not_offered: ClassVar[Mapping[str, tuple[Any, ...]]] = _BETWEEN_CALLERS
    type: Literal["function_call"]
    call_id: _CallId

    def put(self, chat: _Chat, where: str) -> None:
        """Put it to a chat.

        Raises:
            ApiError: 400, it stands where no call can.
        """
        chat.call(where, ToolCall(id=self.call_id, function=self))


class FunctionCallOutput(Body):
    """What a call gave."""

    ignored: ClassVar[frozenset[str]] = _OF_ITEMS | {"name"}
    not_offered: ClassVar[Mapping[str, tuple[Any, ...]]] = _BETWEEN_CALLERS
    type: Literal["function_call_output"]
    call_id: _CallId
    output: _Said

    def put(self, chat: _Chat, where: str) -> None:
        """Put it to a chat.

        Raises:
            ApiError: 400, nothing waits for it.
        """
        chat.result(where, self.call_id, self.output)


Item = InputMessage | FunctionCall | FunctionCallOutput
_ITEMS: dict[str, type[Item]] = {
    "message": InputMessage,
    "function_call": FunctionCall,
    "function_call_output": FunctionCallOutput,
}


def _item(value: Any) -> Item:
    """An item of its type, so that an error names the field of the item alone."""
    kind = value.get("type") if isinstance(value, dict) else None
    if kind is not None and (not isinstance(kind, str) or kind not in _ITEMS):
        known = " or ".join(f"'{name}'" for name in _ITEMS)
        wrong = InitErrorDetails(
            type="literal_error", loc=("type",), input=kind, ctx={"expected": known}
        )
        raise ValidationError.from_exception_data("item", [wrong])
    return _ITEMS[kind or "message"].model_validate(value)


_AnyItem = Annotated[Item, PlainValidator(_item, json_schema_input_type=Item)]


class Format(Body):
    """What an answer must be; a schema lies beside its type here."""

    ignored: ClassVar[frozenset[str]] = frozenset({"description"})
    type: Literal["text", "json_object", "json_schema", "regex"] = "text"
    name: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None
    regex: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Format:
        self.grammar()
        return self

    def grammar(self) -> Grammar | None:
        """What the answer must match."""
        schema = None if self.schema_ is None else {"name": "answer", "schema": self.schema_}
        given = {"type": self.type, "json_schema": schema, "regex": self.regex}
        try:
            return ResponseFormat.model_validate(given).grammar()
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


# Beside log-probabilities there is nothing here that could be included.
_LOGPROBS = "message.output_text.logprobs"
Included = Literal[
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
]


class TextSettings(Body):
    """How the text is to be written."""

    not_offered: ClassVar[Mapping[str, tuple[Any, ...]]] = {"verbosity": (None, "medium")}
    format: Format | None = None


class ResponsesRequest(Body):
    """The body of POST /v1/responses."""

    # Only tools that a server has itself are counted by max_tool_calls.
    ignored: ClassVar[frozenset[str]] = (fields.ACCOUNTS - {"metadata"}) | {
        "max_tool_calls",
        "stream_options",
    }
    not_offered: ClassVar[Mapping[str, tuple[Any, ...]]] = fields.RESPONSES
    model: Annotated[str, Field(min_length=1, max_length=256)]
    input: Annotated[
        list[_AnyItem],
        BeforeValidator(
            _messages,
            json_schema_input_type=Annotated[str, Field(max_length=limits.TEXT)]
            | Annotated[list[_AnyItem], Field(min_length=1, max_length=limits.MESSAGES)],
        ),
        Field(min_length=1, max_length=limits.MESSAGES),
    ]
    instructions: Annotated[str, Field(max_length=limits.TEXT)] | None = None
    max_output_tokens: MaxTokens | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=limits.TOP_LOGPROBS)] | None = None
    include: Annotated[list[Included], Field(max_length=16)] | None = None
    text: TextSettings | None = None
    tools: Annotated[list[ResponsesTool], Field(max_length=limits.TOOLS)] | None = None
    tool_choice: OfResponses | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None

    @model_validator(mode="after")
    def _callable(self) -> ResponsesRequest:
        if (offered := self.offered) is not None:
            offered.check(self.form.grammar(), "text.format")
        self._chat()
        return self

    @property
    def scores_wanted(self) -> int | None:
        """How many of the likeliest tokens are told; None: no log-probabilities at all."""
        told = self.top_logprobs is None and _LOGPROBS in (self.include or ())
        return 0 if told else self.top_logprobs

    @property
    def form(self) -> Format:
        """What the answer must be."""
        return self.text.format if self.text and self.text.format else Format()

    @property
    def offered(self) -> Tools | None:
        """What the answer may call."""
        return Tools.of(self.tools or [], self.tool_choice, parallel=self.parallel_tool_calls)

    @property
    def choice(self) -> str | dict[str, Any]:
        """Whether to call, or which function, as the response tells it."""
        choice = self.tool_choice
        if choice is None or choice.named is None:
            return choice.type if choice else "auto"
        return {"type": choice.type, "name": choice.named}

    @property
    def turns(self) -> list[Turn]:
        """The conversation: instructions are what the system says first."""
        return conversation(self._chat(), self.offered)

    def _chat(self) -> list[Message]:
        first = [Message(role="system", content=self.instructions)] if self.instructions else []
        chat = _Chat(first)
        for number, item in enumerate(self.input):
            item.put(chat, f"input[{number}]")
        chat.settle()
        return chat.messages

    def params(self, most: int, temperature: float) -> SamplingParams:
        """How the answer is drawn; ``most`` and ``temperature`` where the request names none."""
        return SamplingParams(
            max_tokens=min(self.max_output_tokens or most, most),
            temperature=temperature if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            logprobs=self.scores_wanted,
            grammar=self.form.grammar() if (offered := self.offered) is None else offered.grammar(),
        )
