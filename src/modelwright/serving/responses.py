"""POST /v1/responses: the newer shape of a conversation's answer, for one message of text.

Nothing is stored, so a request cannot go on from an earlier one by its id; it sends what was said.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from modelwright.serving import limits
from modelwright.serving.constraint import Grammar
from modelwright.serving.messages import Parts
from modelwright.serving.openai import ApiError, Body, MaxTokens, ResponseFormat
from modelwright.serving.row import Completion, Scored
from modelwright.serving.sampling import SamplingParams
from modelwright.serving.shapes import chat_logprobs
from modelwright.types import Turn, text_turn

_NOT_OFFERED: dict[str, tuple[Any, ...]] = {
    "tools": (None, []),
    "previous_response_id": (None,),
    "conversation": (None,),
    "prompt": (None,),
    "background": (None, False),
}


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
    return "".join(part["text"] for part in content)


def _messages(value: Any) -> Any:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


class InputMessage(Body):
    """One message of the input."""

    type: Literal["message"] | None = None
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        str,
        BeforeValidator(_joined, json_schema_input_type=Parts),
        Field(max_length=limits.TEXT),
    ]


class Format(Body):
    """What an answer must be; a schema lies beside its type here."""

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


class TextSettings(Body):
    """How the text is to be written."""

    format: Format | None = None


class ResponsesRequest(Body):
    """The body of POST /v1/responses."""

    not_offered: ClassVar[Mapping[str, tuple[Any, ...]]] = _NOT_OFFERED
    model: Annotated[str, Field(min_length=1, max_length=256)]
    input: Annotated[
        list[InputMessage],
        BeforeValidator(
            _messages,
            json_schema_input_type=Annotated[str, Field(max_length=limits.TEXT)]
            | Annotated[list[InputMessage], Field(min_length=1, max_length=limits.MESSAGES)],
        ),
        Field(min_length=1, max_length=limits.MESSAGES),
    ]
    instructions: Annotated[str, Field(max_length=limits.TEXT)] | None = None
    max_output_tokens: MaxTokens | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=limits.TOP_LOGPROBS)] | None = None
    text: TextSettings | None = None
    stream: bool | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None

    @property
    def turns(self) -> list[Turn]:
        """The conversation: instructions are what the system says first."""
        first = [text_turn("system", self.instructions)] if self.instructions else []
        names = {"developer": "system"}
        return first + [text_turn(names.get(m.role, m.role), m.content) for m in self.input]

    def params(self, most: int, temperature: float) -> SamplingParams:
        """How the answer is drawn; ``most`` and ``temperature`` where the request names none."""
        return SamplingParams(
            max_tokens=min(self.max_output_tokens or most, most),
            temperature=temperature if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            logprobs=self.top_logprobs,
            grammar=self.text.format.grammar() if self.text and self.text.format else None,
        )


class ResponseWriter:
    """The object of an answer, and the events of its stream; see ``streaming.Writer``."""

    sentinel = b""

    def __init__(self, asked: ResponsesRequest, created: int, prompt_tokens: int) -> None:
        self.id = f"resp_{secrets.token_hex(16)}"
        self._item = f"msg_{secrets.token_hex(16)}"
        self._asked, self._created, self._prompt_tokens = asked, created, prompt_tokens
        self._number = 0

    def whole(self, done: Completion | None) -> dict[str, Any]:
        """The response, or what it is before its answer."""
        asked = self._asked
        cut = done is not None and done.finish_reason == "length"
        status = "in_progress" if done is None else "incomplete" if cut else "completed"
        asked_format = asked.text.format if asked.text and asked.text.format else Format()
        return {
            "id": self.id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": asked.metadata or {},
            "model": asked.model,
            "output": [] if done is None else [self._message(done)],
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "store": False,
            "temperature": asked.temperature,
            "text": {"format": asked_format.model_dump(exclude_none=True, by_alias=True)},
            "tool_choice": "auto",
            "tools": [],
            "top_p": asked.top_p,
            "truncation": "disabled",
            "usage": None if done is None else self._usage(done),
        }

    def _usage(self, done: Completion) -> dict[str, Any]:
        written = len(done.tokens)
        return {
            "input_tokens": self._prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": written,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self._prompt_tokens + written,
        }

    def _message(self, done: Completion | None) -> dict[str, Any]:
        cut = done is not None and done.finish_reason == "length"
        status = "in_progress" if done is None else "incomplete" if cut else "completed"
        content = [] if done is None else [self._part(done)]
        head = {"type": "message", "id": self._item, "status": status}
        return {**head, "role": "assistant", "content": content}

    @staticmethod
    def _part(done: Completion | None) -> dict[str, Any]:
        text, scores = ("", ()) if done is None else (done.text, done.scores)
        told = (chat_logprobs(scores) or {}).get("content", [])
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": told}

    def _event(self, kind: str, **fields: Any) -> dict[str, Any]:
        self._number += 1
        return {"type": f"response.{kind}", "sequence_number": self._number - 1, **fields}

    def begin(self) -> Iterator[dict[str, Any]]:
        """What stands before all text."""
        yield self._event("created", response=self.whole(None))
        yield self._event("in_progress", response=self.whole(None))
        yield self._event("output_item.added", output_index=0, item=self._message(None))
        yield self._event("content_part.added", **self._place, part=self._part(None))

    @property
    def _place(self) -> dict[str, Any]:
        return {"item_id": self._item, "output_index": 0, "content_index": 0}

    def piece(self, index: int, said: str | Scored) -> Iterator[dict[str, Any]]:  # noqa: ARG002
        """A piece of text."""
        text, scores = (said, ()) if isinstance(said, str) else (said.text, said.scores)
        told = (chat_logprobs(scores) or {}).get("content", [])
        yield self._event("output_text.delta", **self._place, delta=text, logprobs=told)

    def ended(self, index: int, done: Completion) -> Iterator[dict[str, Any]]:  # noqa: ARG002
        """The end of the text."""
        part = self._part(done)
        text = {"text": done.text, "logprobs": part["logprobs"]}
        yield self._event("output_text.done", **self._place, **text)
        yield self._event("content_part.done", **self._place, part=part)
        yield self._event("output_item.done", output_index=0, item=self._message(done))

    def end(self, done: Sequence[Completion]) -> Iterator[dict[str, Any]]:
        """The whole response."""
        response = self.whole(done[0])
        yield self._event(response["status"], response=response)

    def failed(self, error: ApiError) -> dict[str, Any]:
        """What stands where the stream ends because something failed."""
        fields = {"code": error.code, "message": error.message, "param": error.param}
        return {**self._event("error", **fields), "type": "error"}
