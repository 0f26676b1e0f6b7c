"""What whole answers look like, for the document of the API alone.

Answers are built as plain dicts (``shapes``, ``response_writer``, ``asking``): nothing here is made
or checked when one is sent, so no answer is slower for it. That what is sent has these shapes is
tested (``tests/serving/test_openapi.py``). Names and shapes follow OpenAI's public API reference.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

_AnyOf = list[dict[str, Any]]


class _Told(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CachedTokens(_Told):
    """Tokens of the prompt that were known from before."""

    cached_tokens: int


class PromptUsage(_Told):
    """The tokens of a request that writes none."""

    prompt_tokens: int
    total_tokens: int


class TextUsage(PromptUsage):
    """The tokens of a request and of its answers."""

    completion_tokens: int
    prompt_tokens_details: CachedTokens


class TokenLogprob(_Told):
    """A token, its log-probability, and its bytes."""

    token: str
    logprob: float | None
    bytes: list[int]


class ChosenLogprob(TokenLogprob):
    """A token of the answer, with the likeliest in its place."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(_Told):
    """Log-probabilities of an answer of a chat."""

    content: list[ChosenLogprob]
    refusal: None


class CalledName(_Told):
    """A function that is called; ``arguments`` is JSON."""

    name: str
    arguments: str


class AnswerCall(_Told):
    """A call in an answer."""

    id: str
    type: Literal["function"]
    function: CalledName


class AnswerMessage(_Told):
    """What is said, and called."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[AnswerCall] = []


class ChatAnswerChoice(_Told):
    """One answer of a chat."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class _Head(_Told):
    id: str
    created: int
    model: str


class ChatAnswer(_Head):
    """The answer of POST /v1/chat/completions."""

    object: Literal["chat.completion"]
    choices: list[ChatAnswerChoice]
    usage: TextUsage


class CompletionLogprobs(_Told):
    """Log-probabilities as lists side by side."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float | None] | None] | None
    text_offset: list[int]


class CompletionAnswerChoice(_Told):
    """How one prompt goes on."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"]


class CompletionAnswer(_Head):
    """The answer of POST /v1/completions."""

    object: Literal["text_completion"]
    choices: list[CompletionAnswerChoice]
    usage: TextUsage


class OutputText(_Told):
    """A text in a message."""

    type: Literal["output_text"]
    text: str
    annotations: _AnyOf
    logprobs: list[ChosenLogprob]


class _OutputItem(_Told):
    id: str
    status: Literal["completed", "incomplete"]


class OutputMessage(_OutputItem):
    """What is said."""

    type: Literal["message"]
    role: Literal["assistant"]
    content: list[OutputText]


class OutputCall(_OutputItem):
    """What is called; ``arguments`` is JSON."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class ReasoningTokens(_Told):
    """None: no model here reasons apart."""

    reasoning_tokens: int


class ResponseUsage(_Told):
    """The tokens of a response."""

    input_tokens: int
    input_tokens_details: CachedTokens
    output_tokens: int
    output_tokens_details: ReasoningTokens
    total_tokens: int


class ResponseAnswer(_Told):
    """The answer of POST /v1/responses."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["completed", "incomplete"]
    error: None
    incomplete_details: dict[str, str] | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    model: str
    output: list[OutputMessage | OutputCall]
    parallel_tool_calls: bool
    previous_response_id: None
    store: Literal[False]
    temperature: float | None
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: _AnyOf
    top_p: float | None
    truncation: Literal["disabled"]
    usage: ResponseUsage


class EmbeddingVector(_Told):
    """A vector: numbers, or little-endian float32 in base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingAnswer(_Told):
    """The answer of POST /v1/embeddings."""

    object: Literal["list"]
    data: list[EmbeddingVector]
    model: str
    usage: PromptUsage


class AnswerFile(_Told):
    """A file that an answer is, in base64."""

    type: str
    b64: str


class PredictedAnswer(BaseModel):
    """The answer to one question; what else its model knows stands beside these fields."""

    index: int
    said: str
    parts: _AnyOf
    file: AnswerFile | None = None


class PredictAnswer(_Head):
    """The answer of POST /predict."""

    object: Literal["prediction"]
    data: list[PredictedAnswer]


class DrawnPicture(_Told):
    """A picture in base64."""

    b64_json: str


class ImageAnswer(_Told):
    """The answer of POST /v1/images/generations."""

    created: int
    output_format: Literal["png"]
    data: list[DrawnPicture]


class TranscriptAnswer(BaseModel):
    """The answer of POST /v1/audio/transcriptions; of ``verbose_json`` with the rest."""

    text: str
    task: str = "transcribe"
    language: str = ""
    duration: float = 0.0
    words: _AnyOf = []
    segments: _AnyOf = []


class ModelCard(_Told):
    """A model; ``predicts`` says what one that answers whole reads and makes."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    context_length: int
    parent: str = ""
    predicts: dict[str, Any] = {}


class ModelList(_Told):
    """The answer of GET /v1/models."""

    object: Literal["list"]
    data: list[ModelCard]


class HealthAnswer(_Told):
    """The answer of GET /health and /ready."""

    status: Literal["ok"]
    running: int
    waiting: int
