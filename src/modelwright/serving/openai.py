"""The OpenAI-compatible request bodies: limits, conversions, errors.

Names and shapes follow the public API reference of OpenAI; what this server cannot do is
refused by name instead of being silently ignored.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from modelwright.serving import fields, limits
from modelwright.serving.bodies import ApiError, Body, parse
from modelwright.serving.constraint import ConstraintError, Grammar
from modelwright.serving.messages import Message, conversation
from modelwright.serving.prompts import Given, TokenId, Tokens, listed, text_or_tokens
from modelwright.serving.sampling import SamplingParams
from modelwright.serving.tools import ChatTool, OfChat, Tools
from modelwright.types import Turn, text_turn

__all__ = ["ApiError", "Body", "ChatRequest", "CompletionRequest", "ResponseFormat", "parse"]

_SEED = 1 << 63


Stop = Annotated[str, Field(min_length=1, max_length=limits.STOP_TEXT)]
Prompt = Annotated[str, Field(max_length=limits.TEXT)]
MaxTokens = Annotated[int, Field(ge=1, le=1 << 24)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Bias = Annotated[float, Field(ge=-100, le=100)]
TokenName = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]  # JSON has only texts as keys


class JsonSchema(Body):
    """A schema by which an answer is written."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None
    description: Annotated[str, Field(max_length=4096)] | None = None


class ResponseFormat(Body):
    """What an answer must be: "regex" is ours, the others are OpenAI's."""

    type: Literal["text", "json_object", "json_schema", "regex"]
    json_schema: JsonSchema | None = None
    regex: Annotated[str, Field(min_length=1, max_length=4096)] | None = None

    @model_validator(mode="after")
    def _complete(self) -> ResponseFormat:
        given = {"json_schema": self.json_schema, "regex": self.regex}.get(self.type, "")
        if given is None:
            raise ValueError(f"needs {self.type!r} beside its type")
        try:
            self.grammar()
        except ConstraintError as error:
            raise ValueError(str(error)) from error
        return self

    def grammar(self) -> Grammar | None:
        """What the answer must match."""
        if self.type == "regex":
            return Grammar("regex", self.regex or "")
        if self.type == "text":
            return None
        schema = self.json_schema.schema_ if self.json_schema else {"type": "object"}
        return Grammar("json_schema", json.dumps(schema))


class StreamOptions(Body):
    """What a stream carries beside the answer."""

    ignored: ClassVar[frozenset[str]] = frozenset({"include_obfuscation"})
    not_offered: ClassVar[Mapping[str, tuple[Any, ...]]] = {"continuous_usage_stats": (None, False)}
    include_usage: bool | None = None


class Asked(Body):
    """The fields that both kinds of request share."""

    ignored: ClassVar[frozenset[str]] = fields.ACCOUNTS | fields.HINTS
    not_offered: ClassVar[Mapping[str, tuple[Any, ...]]] = fields.CHAT
    model: Annotated[str, Field(min_length=1, max_length=256)]
    max_tokens: MaxTokens | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=1 << 20)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=10)] | None = None
    logit_bias: Annotated[dict[TokenName, Bias], Field(max_length=limits.BIASES)] | None = None
    n: Annotated[int, Field(ge=1, le=limits.CHOICES)] | None = None
    seed: Annotated[int, Field(ge=-_SEED, lt=_SEED)] | None = None
    stop: Annotated[
        list[Stop],
        BeforeValidator(
            listed,
            json_schema_input_type=Stop
            | Annotated[list[Stop], Field(max_length=limits.STOPS)]
            | None,
        ),
        Field(max_length=limits.STOPS, default_factory=list),
    ]
    stop_token_ids: Annotated[list[TokenId], Field(max_length=limits.STOP_TOKENS)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=1 << 24)] | None = None
    ignore_eos: bool | None = None
    response_format: ResponseFormat | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def most(self) -> int | None:
        """The most tokens that the request lets an answer have."""
        return self.max_tokens

    @property
    def form(self) -> Grammar | None:
        """What the answer must match by its ``response_format``."""
        return self.response_format.grammar() if self.response_format else None

    @model_validator(mode="after")
    def _lasting(self) -> Self:
        """Refuse least lengths that cannot be kept."""
        wrong = {}
        formed = self.form is not None or self.offered is not None
        if formed and (self.min_tokens or self.ignore_eos):
            name = "min_tokens" if self.min_tokens else "ignore_eos"
            wrong[name] = "an answer of a form, or with calls, ends where that does; leave it out"
        if self.most is not None and (self.min_tokens or 0) > self.most:
            wrong["min_tokens"] = f"{self.min_tokens} is more than the most, {self.most}"
        _refuse(wrong)
        return self

    @property
    @abstractmethod
    def scores_wanted(self) -> int | None:
        """How many of the likeliest tokens are told; None: no log-probabilities at all."""

    @property
    def echoed(self) -> bool:
        """Whether the answer begins with the prompt."""
        return False

    @property
    def offered(self) -> Tools | None:
        """What the answer may call."""
        return None

    @property
    def usage_wanted(self) -> bool:
        """Whether a stream ends with a count of the tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def params(self, most: int, temperature: float = 1.0) -> list[SamplingParams]:
        """One set of parameters per choice; ``most`` tokens when the request sets no limit.

        ``temperature`` is taken where the request names none. The choices of one seeded request
        draw from seeds that follow each other.
        """
        if self.most is not None:
            most = min(self.most, most)
        base = SamplingParams(
            max_tokens=most,
            temperature=temperature if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=max(0, self.top_k or 0),
            min_p=self.min_p or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            repetition_penalty=self.repetition_penalty or 1.0,
            logit_bias=tuple((int(k), v) for k, v in (self.logit_bias or {}).items()),
            seed=self.seed,
            stop=tuple(self.stop),
            stop_token_ids=tuple(self.stop_token_ids or ()),
            min_tokens=self.min_tokens or 0,
            ignore_eos=bool(self.ignore_eos),
            logprobs=self.scores_wanted,
            echo=self.echoed,
            grammar=self.form if self.offered is None else self.offered.grammar(),
        )
        seeds = [_following(self.seed, i) for i in range(self.n or 1)]
        return [replace(base, seed=seed) for seed in seeds]


def _following(seed: int | None, number: int) -> int | None:
    """The seed of a choice; behind the last integer of 64 bits comes the first."""
    return None if seed is None else (seed + number + 2**63) % 2**64 - 2**63


def _refuse(wrong: Mapping[str, str]) -> None:
    """Name the first field that is wrong, with the reason.

    Raises:
        ApiError: 400, if there is one.
    """
    for name, why in wrong.items():
        raise ApiError(400, f"{name}: {why}", param=name, code="invalid_value")


class ChatRequest(Asked):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=limits.MESSAGES)]
    max_completion_tokens: MaxTokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=limits.TOP_LOGPROBS)] | None = None
    tools: Annotated[list[ChatTool], Field(max_length=limits.TOOLS)] | None = None
    tool_choice: OfChat | None = None
    parallel_tool_calls: bool | None = None

    @model_validator(mode="after")
    def _callable(self) -> ChatRequest:
        offered = self.offered
        if offered is not None:
            offered.check(self.form, "response_format")
        return self

    @property
    def offered(self) -> Tools | None:
        """What the answer may call."""
        functions = [tool.function for tool in self.tools or ()]
        return Tools.of(functions, self.tool_choice, parallel=self.parallel_tool_calls)

    @model_validator(mode="after")
    def _both(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            _refuse({"top_logprobs": "needs logprobs to be true"})
        return self

    @property
    def most(self) -> int | None:
        """As the base says; ``max_completion_tokens`` is the newer name of ``max_tokens``."""
        given = (self.max_tokens, self.max_completion_tokens)
        return min((one for one in given if one is not None), default=None)

    @property
    def scores_wanted(self) -> int | None:
        """``top_logprobs``, where ``logprobs`` asks for any."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def conversations(self) -> list[list[Turn] | list[int]]:
        """What is to be answered: one conversation."""
        return [conversation(self.messages, self.offered)]


class CompletionRequest(Asked):
    """The body of POST /v1/completions: every prompt is the beginning of a document."""

    prompt: Annotated[
        list[Annotated[Given, text_or_tokens(Prompt)]],
        BeforeValidator(
            listed,
            json_schema_input_type=Prompt
            | Tokens
            | Annotated[list[Prompt | Tokens], Field(min_length=1, max_length=limits.PROMPTS)],
        ),
        Field(min_length=1, max_length=limits.PROMPTS),
    ]
    max_tokens: Annotated[int, Field(ge=0, le=1 << 24)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=limits.TOP_LOGPROBS)] | None = None
    echo: bool | None = None

    @model_validator(mode="after")
    def _agree(self) -> CompletionRequest:
        wrong = {}
        if self.max_tokens == 0 and not self.echo:
            wrong["max_tokens"] = "must be at least 1 where the prompt is not echoed"
        if self.echo and self.stream and self.logprobs is not None:
            wrong["echo"] = "a stream has no log-probabilities of the prompt; leave one out"
        _refuse(wrong)
        return self

    @property
    def scores_wanted(self) -> int | None:
        """``logprobs``: how many of the likeliest; 0 tells those of the answer's own tokens."""
        return self.logprobs

    @property
    def echoed(self) -> bool:
        """Whether the answer begins with the prompt."""
        return bool(self.echo)

    @property
    def conversations(self) -> list[list[Turn] | list[int]]:
        """What is to be continued: one document a prompt, or its tokens."""
        return [
            [text_turn("document", prompt)] if isinstance(prompt, str) else prompt
            for prompt in self.prompt
        ]

    def params(self, most: int, temperature: float = 1.0) -> list[SamplingParams]:
        """As the base says, with the API's default of 16 tokens."""
        return super().params(most if self.max_tokens is not None else min(16, most), temperature)
