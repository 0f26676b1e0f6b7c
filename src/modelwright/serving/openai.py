"""The OpenAI-compatible request and response bodies: limits, conversions, errors.

Names and shapes follow the public API reference of OpenAI; what this server cannot do is
refused by name instead of being silently ignored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from modelwright.serving.sampling import SamplingParams
from modelwright.types import Turn, text_turn

MAX_BODY_BYTES = 2 << 20
MAX_TEXT = 1 << 20
_SEED = 1 << 63

# Fields that would change the answer and that this server has no part for, with the values
# that ask for nothing.
_NOT_OFFERED: dict[str, tuple[Any, ...]] = {
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "logit_bias": (None, {}),
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "best_of": (None, 1),
    "echo": (None, False),
    "suffix": (None, ""),
}


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


def _joined(content: Any) -> Any:
    """Content parts as one text; anything that is not text is refused."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise ValueError('must be a text or a list of {"type": "text", "text": ...}')
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text":
            raise ValueError("only parts of type 'text' are supported by this model")
        if not isinstance(part.get("text"), str):
            raise ValueError("a part of type 'text' needs a 'text' that is a string")
    return "".join(part["text"] for part in content)


def _listed(value: Any) -> Any:
    """One text as a list of one, null as an empty list."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else value


Content = Annotated[str, BeforeValidator(_joined), Field(max_length=MAX_TEXT)]
Stop = Annotated[str, Field(min_length=1, max_length=256)]
Prompt = Annotated[str, Field(max_length=MAX_TEXT)]
MaxTokens = Annotated[int, Field(ge=1, le=1 << 24)]


class _Schema(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class Message(_Schema):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content

    def turn(self) -> Turn:
        """The message as a turn; "developer" is the newer name of "system"."""
        return text_turn("system" if self.role == "developer" else self.role, self.content)


class StreamOptions(_Schema):
    """What a stream carries beside the answer."""

    include_usage: bool | None = None


class _Sampling(_Schema):
    """The fields that both kinds of request share."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    max_tokens: MaxTokens | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=4)] | None = None
    seed: Annotated[int, Field(ge=-_SEED, lt=_SEED)] | None = None
    stop: Annotated[list[Stop], BeforeValidator(_listed), Field(max_length=4, default_factory=list)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, values: Any) -> Any:
        for name, off in _NOT_OFFERED.items():
            if isinstance(values, dict) and values.get(name) not in off:
                message = f"{name}: this server does not offer it; leave it out"
                raise ApiError(400, message, param=name, code="unsupported_parameter")
        return values

    @property
    def usage_wanted(self) -> bool:
        """Whether a stream ends with a count of the tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def params(self, most: int, temperature: float = 1.0) -> list[SamplingParams]:
        """One set of parameters per choice; ``most`` tokens when the request sets no limit.

        ``temperature`` is taken where the request names none. The choices of one seeded request
        draw from seeds that follow each other.
        """
        base = SamplingParams(
            max_tokens=min(self.max_tokens or most, most),
            temperature=temperature if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            seed=self.seed,
            stop=tuple(self.stop),
        )
        seeds = [None if self.seed is None else self.seed + i for i in range(self.n or 1)]
        return [replace(base, seed=seed) for seed in seeds]


class ChatRequest(_Sampling):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=256)]
    max_completion_tokens: MaxTokens | None = None

    @property
    def conversations(self) -> list[list[Turn]]:
        """What is to be answered: one conversation."""
        return [[message.turn() for message in self.messages]]

    def params(self, most: int, temperature: float = 1.0) -> list[SamplingParams]:
        """As the base says; ``max_completion_tokens`` is the newer name of ``max_tokens``."""
        if self.max_completion_tokens is not None:
            most = min(most, self.max_completion_tokens)
        return super().params(most, temperature)


class CompletionRequest(_Sampling):
    """The body of POST /v1/completions: every prompt is the beginning of a document."""

    prompt: Annotated[list[Prompt], BeforeValidator(_listed), Field(min_length=1, max_length=16)]

    @property
    def conversations(self) -> list[list[Turn]]:
        """What is to be continued: one document a prompt."""
        return [[text_turn("document", prompt)] for prompt in self.prompt]

    def params(self, most: int, temperature: float = 1.0) -> list[SamplingParams]:
        """As the base says, with the API's default of 16 tokens."""
        return super().params(most if self.max_tokens else min(16, most), temperature)


Schema = TypeVar("Schema", bound=_Sampling)


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


@dataclass(frozen=True)
class Shape:
    """How the answers of one endpoint are written; the same id and time in all its parts."""

    chat: bool
    id: str
    created: int
    model: str

    def whole(self, choices: Sequence[tuple[str, str]], usage: dict[str, int]) -> dict[str, Any]:
        """The complete answer; ``choices`` are (text, finish_reason)."""
        written = []
        for index, (text, reason) in enumerate(choices):
            message = {"role": "assistant", "content": text, "refusal": None}
            content = {"message": message} if self.chat else {"text": text}
            written.append({"index": index, **content, "logprobs": None, "finish_reason": reason})
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self._head(kind), "choices": written, "usage": usage}

    def opening(self, index: int) -> dict[str, Any] | None:
        """The first chunk of a choice: the role, said once; completions have none."""
        if not self.chat:
            return None
        return self._chunk(index, {"role": "assistant", "content": ""}, None)

    def piece(self, index: int, text: str) -> dict[str, Any]:
        """A chunk with some text."""
        return self._chunk(index, {"content": text}, None)

    def closing(self, index: int, reason: str) -> dict[str, Any]:
        """The last chunk of a choice: no text, the reason it ended."""
        return self._chunk(index, {}, reason)

    def counted(self, usage: dict[str, int]) -> dict[str, Any]:
        """The chunk after all choices that counts the tokens."""
        return {**self._head(self._chunk_kind), "choices": [], "usage": usage}

    @property
    def _chunk_kind(self) -> str:
        return "chat.completion.chunk" if self.chat else "text_completion"

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _chunk(self, index: int, delta: dict[str, str], reason: str | None) -> dict[str, Any]:
        content = {"delta": delta} if self.chat else {"text": delta.get("content", "")}
        choice = {"index": index, **content, "logprobs": None, "finish_reason": reason}
        return {**self._head(self._chunk_kind), "choices": [choice]}


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """The count of tokens of a request."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def model_card(name: str, created: int) -> dict[str, Any]:
    """A model as /v1/models lists it."""
    return {"id": name, "object": "model", "created": created, "owned_by": "modelwright"}
