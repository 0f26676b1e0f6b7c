"""What whole answers look like, for the document of the API alone.

Answers are built as plain dicts (``shapes``, ``response_writer``, ``asking``): nothing here is made
or checked when one is sent, so no answer is slower for it. That what is sent has these shapes is
tested (``tests/serving/test_openapi.py``). Names and shapes follow OpenAI's public API reference.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

_AnyOf = list[dict[str, Any]]


class Told(BaseModel):
    """An object with these fields and no others."""

    model_config = ConfigDict(extra="forbid")


class CachedTokens(Told):
    """Tokens of the prompt that were known from before."""

    cached_tokens: int


class PromptUsage(Told):
    """The tokens of a request that writes none."""

    prompt_tokens: int
    total_tokens: int


class TextUsage(PromptUsage):
    """The tokens of a request and of its answers."""

    completion_tokens: int
    prompt_tokens_details: CachedTokens


class TokenLogprob(Told):
    """A token, its log-probability, and its bytes."""

    token: str
    logprob: float | None
    bytes: list[int]


class ChosenLogprob(TokenLogprob):
    """A token of the answer, with the likeliest in its place."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(Told):
    """Log-probabilities of an answer of a chat."""

    content: list[ChosenLogprob]
    refusal: None


class CalledName(Told):
    """A function that is called; ``arguments`` is JSON."""

    name: str
    arguments: str


class AnswerCall(Told):
    """A call in an answer."""

    id: str
    type: Literal["function"]
    function: CalledName


class AnswerMessage(Told):
    """What is said, and called."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[AnswerCall] = []


class ChatAnswerChoice(Told):
    """One answer of a chat."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class Head(Told):
    """What begins an answer of text."""

    id: str
    created: int
    model: str


class ChatAnswer(Head):
    """The answer of POST /v1/chat/completions."""

    object: Literal["chat.completion"]
    choices: list[ChatAnswerChoice]
    usage: TextUsage


class CompletionLogprobs(Told):
    """Log-probabilities as lists side by side."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float | None] | None] | None
    text_offset: list[int]


class CompletionAnswerChoice(Told):
    """How one prompt goes on."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"]


class CompletionAnswer(Head):
    """The answer of POST /v1/completions."""

    object: Literal["text_completion"]
    choices: list[CompletionAnswerChoice]
    usage: TextUsage


class OutputText(Told):
    """A text in a message."""

    type: Literal["output_text"]
    text: str
    annotations: _AnyOf
    logprobs: list[ChosenLogprob]


class _Message(Told):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    content: list[OutputText]


class OutputMessage(_Message):
    """What is said."""

    status: Literal["completed", "incomplete"]


class BegunMessage(_Message):
    """What is being said."""

    status: Literal["in_progress"]


class _Call(Told):
    id: str
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class OutputCall(_Call):
    """What is called; ``arguments`` is JSON."""

    status: Literal["completed", "incomplete"]


class BegunCall(_Call):
    """What is being called."""

    status: Literal["in_progress"]


class ReasoningTokens(Told):
    """None: no model here reasons apart."""

    reasoning_tokens: int


class ResponseUsage(Told):
    """The tokens of a response."""

    input_tokens: int
    input_tokens_details: CachedTokens
    output_tokens: int
    output_tokens_details: ReasoningTokens
    total_tokens: int


class _Response(Told):
    id: str
    object: Literal["response"]
    created_at: int
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


class ResponseAnswer(_Response):
    """The answer of POST /v1/responses."""

    status: Literal["completed", "incomplete"]
    usage: ResponseUsage


class ResponseBegun(_Response):
    """The response before its answer."""

    status: Literal["in_progress"]
    usage: None


class EmbeddingVector(Told):
    """A vector: numbers, or little-endian float32 in base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingAnswer(Told):
    """The answer of POST /v1/embeddings."""

    object: Literal["list"]
    data: list[EmbeddingVector]
    model: str
    usage: PromptUsage


class AnswerFile(Told):
    """A file that an answer is, in base64."""

    type: str
    b64: str


class PredictedAnswer(BaseModel):
    """The answer to one question; what else its model knows stands beside these fields."""

    index: int
    said: str
    parts: _AnyOf
    file: AnswerFile | None = None


class PredictAnswer(Head):
    """The answer of POST /predict."""

    object: Literal["prediction"]
    data: list[PredictedAnswer]


class DrawnPicture(Told):
    """A picture in base64."""

    b64_json: str


class ImageAnswer(Told):
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


class ModelCard(Told):
    """A model; ``predicts`` says what one that answers whole reads and makes."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    context_length: int
    parent: str = ""
    predicts: dict[str, Any] = {}


class ModelList(Told):
    """The answer of GET /v1/models."""

    object: Literal["list"]
    data: list[ModelCard]


class HealthAnswer(Told):
    """The answer of GET /health and /ready."""

    status: Literal["ok"]
    running: int
    waiting: int
