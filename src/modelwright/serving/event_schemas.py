"""What the events of streams look like, for the document of the API alone.

Each class of a stream is the JSON behind ``data: `` of one event; as ``answer_schemas``, which has
the whole answers, it makes and checks nothing that is sent (``tests/serving/test_openapi.py``).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, RootModel

from modelwright.serving.answer_schemas import (
    BegunCall,
    BegunMessage,
    ChatLogprobs,
    ChosenLogprob,
    CompletionLogprobs,
    Head,
    OutputCall,
    OutputMessage,
    OutputText,
    ResponseAnswer,
    ResponseBegun,
    TextUsage,
    Told,
)

_Nothing = Annotated[list[str], Field(max_length=0)]


class ErrorFields(Told):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorChunk(Told):
    """The last event of a stream that failed; no finish and no ``[DONE]`` follows."""

    error: ErrorFields


class DeltaFunction(Told):
    """What comes to a call: its name at first, then pieces of its arguments."""

    name: str = ""
    arguments: str


class DeltaCall(Told):
    """What comes to the call ``index``; the first of it has the id."""

    index: int
    id: str = ""
    type: Literal["function"] = "function"
    function: DeltaFunction


class ChatDelta(Told):
    """What comes to a message."""

    role: Literal["assistant"] = "assistant"
    content: str = ""
    tool_calls: Annotated[list[DeltaCall], Field(default_factory=list)]


class ChatChunkChoice(Told):
    """What comes to one answer of a chat."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"] | None


class ChatChunk(Head):
    """A piece of one answer of a chat."""

    object: Literal["chat.completion.chunk"]
    choices: Annotated[list[ChatChunkChoice], Field(min_length=1)]


class ChatUsageChunk(Head):
    """The tokens, behind all answers; with ``stream_options.include_usage``."""

    object: Literal["chat.completion.chunk"]
    choices: _Nothing
    usage: TextUsage


class ChatEvent(RootModel[ChatChunk | ChatUsageChunk | ErrorChunk]):
    """An event of POST /v1/chat/completions; behind the last stands ``data: [DONE]``."""


class CompletionChunkChoice(Told):
    """How one prompt goes on from here."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class CompletionChunk(Head):
    """A piece of how one prompt goes on."""

    object: Literal["text_completion"]
    choices: Annotated[list[CompletionChunkChoice], Field(min_length=1)]


class CompletionUsageChunk(Head):
    """The tokens, behind all answers; with ``stream_options.include_usage``."""

    object: Literal["text_completion"]
    choices: _Nothing
    usage: TextUsage


class CompletionEvent(RootModel[CompletionChunk | CompletionUsageChunk | ErrorChunk]):
    """An event of POST /v1/completions; behind the last stands ``data: [DONE]``."""


class _Numbered(Told):
    sequence_number: int


class ResponseStartedEvent(_Numbered):
    """The response before its answer."""

    type: Literal["response.created", "response.in_progress"]
    response: ResponseBegun


class ResponseEndedEvent(_Numbered):
    """The whole response."""

    type: Literal["response.completed", "response.incomplete"]
    response: ResponseAnswer


class ItemAddedEvent(_Numbered):
    """An item begins."""

    type: Literal["response.output_item.added"]
    output_index: int
    item: BegunMessage | BegunCall


class ItemDoneEvent(_Numbered):
    """An item is at its end."""

    type: Literal["response.output_item.done"]
    output_index: int
    item: OutputMessage | OutputCall


class _InItem(_Numbered):
    item_id: str
    output_index: int


class _InMessage(_InItem):
    content_index: int


class ContentPartEvent(_InMessage):
    """A text begins, or is at its end."""

    type: Literal["response.content_part.added", "response.content_part.done"]
    part: OutputText


class TextDeltaEvent(_InMessage):
    """What comes to a text."""

    type: Literal["response.output_text.delta"]
    delta: str
    logprobs: list[ChosenLogprob]


class TextDoneEvent(_InMessage):
    """A whole text."""

    type: Literal["response.output_text.done"]
    text: str
    logprobs: list[ChosenLogprob]


class ArgumentsDeltaEvent(_InItem):
    """What comes to the arguments of a call."""

    type: Literal["response.function_call_arguments.delta"]
    delta: str


class ArgumentsDoneEvent(_InItem):
    """Whole arguments, as JSON."""

    type: Literal["response.function_call_arguments.done"]
    arguments: str


class ResponseErrorEvent(_Numbered):
    """The last event of a stream that failed."""

    type: Literal["error"]
    code: str | None
    message: str
    param: str | None


class ResponseEvent(
    RootModel[
        ResponseStartedEvent
        | ResponseEndedEvent
        | ItemAddedEvent
        | ItemDoneEvent
        | ContentPartEvent
        | TextDeltaEvent
        | TextDoneEvent
        | ArgumentsDeltaEvent
        | ArgumentsDoneEvent
        | ResponseErrorEvent
    ]
):
    """An event of POST /v1/responses."""


class ErrorEvent(Told):
    """The last event of a stream that failed."""

    type: Literal["error"]
    error: ErrorFields


class TranscriptDeltaEvent(Told):
    """What is said next."""

    type: Literal["transcript.text.delta"]
    delta: str


class TranscriptDoneEvent(Told):
    """All that is said."""

    type: Literal["transcript.text.done"]
    text: str


class TranscriptEvent(RootModel[TranscriptDeltaEvent | TranscriptDoneEvent | ErrorEvent]):
    """An event of POST /v1/audio/transcriptions."""


class MadeUsage(Told):
    """None: neither sound nor pictures are made of tokens."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class SpeechDeltaEvent(Told):
    """The next piece of one WAV file, in base64."""

    type: Literal["speech.audio.delta"]
    audio: str


class SpeechDoneEvent(Told):
    """The end of what is spoken."""

    type: Literal["speech.audio.done"]
    usage: MadeUsage


class SpeechEvent(RootModel[SpeechDeltaEvent | SpeechDoneEvent | ErrorEvent]):
    """An event of POST /v1/audio/speech."""


class PromptTokens(Told):
    """Of pictures and of texts."""

    image_tokens: int
    text_tokens: int


class PictureUsage(MadeUsage):
    """As said there, with that of the prompt apart."""

    input_tokens_details: PromptTokens


class _Picture(Told):
    created_at: int
    background: Literal["auto"]
    output_format: Literal["png"]
    quality: Literal["auto"]
    size: Literal["auto"]
    b64_json: str


class PartialPictureEvent(_Picture):
    """Where a picture is heading."""

    type: Literal["image_generation.partial_image"]
    partial_image_index: int


class PictureDoneEvent(_Picture):
    """The picture."""

    type: Literal["image_generation.completed"]
    usage: PictureUsage


class PictureEvent(RootModel[PartialPictureEvent | PictureDoneEvent | ErrorEvent]):
    """An event of POST /v1/images/generations."""
