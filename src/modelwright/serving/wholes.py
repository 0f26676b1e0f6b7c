"""The routes of answers that come whole: predictions, pictures, speech, transcriptions, vectors."""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from modelwright.data.sounds import WAV_HEAD, opened_wav
from modelwright.errors import CorruptError, MachineError, ModelwrightError
from modelwright.serving import fields
from modelwright.serving.asking import TYPES, Asking, PredictForm, PredictRequest, told
from modelwright.serving.hosting import FORM, JSON, body_of
from modelwright.serving.media import SOUND, form
from modelwright.serving.openai import ApiError, Body, parse
from modelwright.serving.passes import PassEngine
from modelwright.serving.roster import (
    IMAGES,
    PREDICT,
    SPEECH,
    TRANSCRIPTIONS,
    Asked,
    Roster,
)
from modelwright.serving.row import Cancellable, Completion, Listener, Scored
from modelwright.serving.service import refusal
from modelwright.serving.streaming import Answers, EventStream, Writer
from modelwright.serving.transcripts import requested
from modelwright.serving.turns import answered
from modelwright.tasks.speech_synthesis import named_voice
from modelwright.types import Answer, Turn

AUTO = "auto"  # what a picture's field says that leaves it to the model


class ImageRequest(Body):
    """The body of POST /v1/images/generations."""

    ignored: ClassVar[frozenset[str]] = fields.ACCOUNTS | {"moderation"}
    not_offered: ClassVar[Mapping[str, tuple[Any, ...]]] = fields.IMAGES
    model: Annotated[str, Field(max_length=256)] | None = None
    prompt: Annotated[str, Field(max_length=4096)]
    n: Annotated[int, Field(ge=1, le=10)] | None = None
    response_format: Literal["b64_json"] | None = None
    size: Annotated[str, Field(max_length=32)] | None = None
    seed: Annotated[int, Field(ge=0, lt=1 << 62)] | None = None
    stream: bool | None = None
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = None


_Name = Annotated[str, Field(max_length=256)]
_Voice = Annotated[
    _Name,
    BeforeValidator(
        lambda value: value["id"] if isinstance(value, dict) and [*value] == ["id"] else value,
        json_schema_input_type=_Name | dict[Literal["id"], _Name],
    ),
]


class SpeechRequest(Body):
    """The body of POST /v1/audio/speech; a voice is a name, or an object with it as ``id``."""

    ignored: ClassVar[frozenset[str]] = fields.ACCOUNTS
    not_offered: ClassVar[Mapping[str, tuple[Any, ...]]] = {"instructions": (None, "")}
    model: Annotated[str, Field(max_length=256)]
    input: Annotated[str, Field(min_length=1, max_length=4096)]
    voice: _Voice | None = None
    response_format: Literal["wav"] | None = None
    speed: Annotated[float, Field(ge=0.25, le=4)] | None = None
    stream_format: Literal["audio", "sse"] | None = None
    seed: Annotated[int, Field(ge=0, lt=1 << 62)] | None = None

    def spoken(self, voices: Sequence[str]) -> str:
        """What the model is asked, which knows these voices: "NAME: TEXT", or the text alone.

        A request that names a voice says all of it there: a name in its text is spoken.
        """
        if self.voice in voices:
            return f"{self.voice}: {self.input}"
        named, _ = named_voice(self.input, voices)
        return f": {self.input}" if self.voice and named else self.input

    @property
    def params(self) -> dict[str, Any]:
        """How it is spoken: a seed, and a speed beside the model's own pace."""
        given = {"seed": self.seed, "speed": self.speed}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class _Whole:
    """The model that a request means: what answers whole, and what reads its questions."""

    asked: Asked
    engine: PassEngine
    asking: Asking


class WholeRoutes:
    """The endpoints of answers that come whole, over all models of a server."""

    def __init__(self, roster: Roster) -> None:
        self.roster = roster

    def _model(self, name: str | None, path: str) -> _Whole:
        """The model of a request at a path.

        Raises:
            ApiError: it is not here, or does not answer there.
        """
        asked = self.roster.asked(name, path)
        engine, asking = asked.service.engine, asked.service.asking
        assert isinstance(engine, PassEngine) and asking is not None  # noqa: S101 - it answers here
        return _Whole(asked, engine, asking)

    async def predict(self, request: HttpRequest) -> Response:
        """POST /predict, as JSON or as a form with files."""
        kind, body = await self._body(request, JSON, FORM)
        began = time.monotonic()
        if kind == FORM:
            parts = form(request.headers["content-type"], body)
            sent = PredictForm.of(parts)
            params = {"seed": int(sent.seed)} if sent.seed else {}
            whole = self._model(sent.model or None, PREDICT)
            given = await asyncio.to_thread(whole.asking.parts, parts)
        else:
            asked = await asyncio.to_thread(parse, PredictRequest, body)
            params = {} if asked.seed is None else {"seed": asked.seed}
            whole = self._model(asked.model or None, PREDICT)
            given = await asyncio.to_thread(
                lambda: [
                    whole.asking.item(item, f"inputs[{i}]") for i, item in enumerate(asked.inputs)
                ]
            )
        answers = await self._asked(request, whole, given, params, began)
        policy = whole.engine.policy
        data = [
            {"index": i, **told(answer, policy.suffix, policy.content)}
            for i, answer in enumerate(answers)
        ]
        head = {"id": f"pred-{secrets.token_hex(12)}", "object": "prediction"}
        return JSONResponse(
            {**head, "created": int(time.time()), "model": whole.asked.name, "data": data}
        )

    async def images(self, request: HttpRequest) -> Response:
        """POST /v1/images/generations: the prompt is the question, such as a class."""
        _, body = await self._body(request, JSON)
        asked = parse(ImageRequest, body)
        if asked.stream and (asked.n or 1) > 1:
            message = "n: one picture can be followed at a time; ask for more without stream"
            raise ApiError(400, message, param="n", code="invalid_value")
        if asked.partial_images and not asked.stream:
            message = "partial_images: they come as a stream; send stream: true"
            raise ApiError(400, message, param="partial_images", code="invalid_value")
        whole = self._model(asked.model or None, IMAGES)
        size = whole.engine.policy.facts().get("size", AUTO)
        if asked.size not in (None, AUTO, size):
            message = f"size: this model draws pictures of {size}; ask for these, or leave it out"
            raise ApiError(400, message, param="size", code="invalid_value")
        turns = await asyncio.to_thread(whole.asking.typed, asked.prompt, "prompt")
        seed = secrets.randbits(32) if asked.seed is None else asked.seed
        if asked.stream:
            looks = asked.partial_images or 0
            given = {"seed": seed}
            return await self._followed(whole, turns, PictureWriter(), params=given, looks=looks)
        answers = await self._asked(
            request, whole, [turns] * (asked.n or 1), {"seed": seed}, time.monotonic()
        )
        contents = [whole.engine.policy.content(answer.turn) for answer in answers]
        data = [{"b64_json": base64.b64encode(content).decode()} for content in contents]
        return JSONResponse({"created": int(time.time()), "output_format": "png", "data": data})

    async def _followed(
        self,
        whole: _Whole,
        turns: Sequence[Turn],
        writer: Writer,
        *,
        params: Mapping[str, Any],
        looks: int = 0,
    ) -> Response:
        """An answer as a stream: what is known of it on the way, and at last what it is."""

        def begin(listener: Listener) -> Cancellable:
            return whole.engine.follow(turns, params, looks, listener)

        loop = asyncio.get_running_loop()
        try:
            answers = await asyncio.to_thread(Answers, whole.asked.service, [begin], loop)
        except ModelwrightError as error:
            raise told_of(error) from error
        return EventStream(answers, writer, lambda *_: None)

    async def speech(self, request: HttpRequest) -> Response:
        """POST /v1/audio/speech: a WAV file, or its pieces as sentence after sentence is spoken.

        The voice is one that the model knows, or default.
        """
        _, body = await self._body(request, JSON)
        asked = parse(SpeechRequest, body)
        whole = self._model(asked.model, SPEECH)
        text = asked.spoken(whole.engine.policy.facts().get("labels", ()))
        turns = await asyncio.to_thread(whole.asking.typed, text, "input")
        params = asked.params
        if asked.stream_format == "sse":
            return await self._followed(whole, turns, SpeechWriter(), params=params)
        (answer,) = await self._asked(request, whole, [turns], params, time.monotonic())
        content = whole.engine.policy.content(answer.turn)
        return Response(content, media_type=TYPES[whole.engine.policy.suffix])

    async def transcriptions(self, request: HttpRequest) -> Response:
        """POST /v1/audio/transcriptions: a form with a sound file; ``stream`` as it is heard."""
        _, body = await self._body(request, FORM)
        asked, content = requested(form(request.headers["content-type"], body))
        whole = self._model(asked.model, TRANSCRIPTIONS)
        known = whole.engine.policy.facts()
        asked.check(known)
        turns = await asyncio.to_thread(whole.asking.file, content, "file", SOUND)
        if asked.streams:
            return await self._followed(whole, turns, TranscriptWriter(), params={})
        params = {"timestamps": True} if asked.timed and known.get("times") else {}
        (answer,) = await self._asked(request, whole, [turns], params, time.monotonic())
        (sound,) = turns[0].parts
        length = getattr(sound, "seconds", 0.0)
        return asked.response(answer, length, str(known.get("language", "")))

    async def _body(self, request: HttpRequest, *kinds: str) -> tuple[str, bytes]:
        return await body_of(request, kinds, self.roster.limits.body_seconds)

    async def _asked(
        self,
        request: HttpRequest,
        whole: _Whole,
        given: Sequence[Sequence[Turn]],
        params: dict[str, Any],
        began: float,
    ) -> list[Answer]:
        """Answers, unless the client leaves or they take too long."""
        try:
            found = await answered(request, self.roster, whole.engine.ask(given, params))
        except ModelwrightError as error:
            raise told_of(error) from error
        self.roster.metrics.observe("e2e_request_latency_seconds", time.monotonic() - began)
        self.roster.metrics.add("request_success_total", len(found), finished_reason="stop")
        return found


class _Followed:
    """The events of one answer that is followed; see ``streaming.Writer``."""

    sentinel = b""

    def __init__(self) -> None:
        self.id = f"pred-{secrets.token_hex(12)}"

    def begin(self) -> Iterable[dict[str, Any]]:
        """Nothing."""
        return ()

    def end(self, done: Sequence[Completion]) -> Iterable[dict[str, Any]]:  # noqa: ARG002
        """Nothing."""
        return ()

    def failed(self, error: ApiError) -> dict[str, Any]:
        """What stands where the stream ends because something failed."""
        return {"type": "error", **error.body()}


class TranscriptWriter(_Followed):
    """The events of a transcript."""

    def piece(self, index: int, said: str | Scored) -> Iterable[dict[str, Any]]:  # noqa: ARG002
        """What is said in the next piece of the recording."""
        yield {"type": "transcript.text.delta", "delta": said}

    def ended(self, index: int, done: Completion) -> Iterable[dict[str, Any]]:  # noqa: ARG002
        """All that is said."""
        yield {"type": "transcript.text.done", "text": done.text}


class SpeechWriter(_Followed):
    """The events of speech: the pieces of one WAV file, whose header leaves its length open."""

    def __init__(self) -> None:
        super().__init__()
        self._begun = False

    def piece(self, index: int, said: str | Scored) -> Iterable[dict[str, Any]]:  # noqa: ARG002
        """What is spoken of the next sentence."""
        assert isinstance(said, str)  # noqa: S101 - base64, as PassEngine.follow tells it
        part = opened_wav(base64.b64decode(said))
        part, self._begun = part[WAV_HEAD:] if self._begun else part, True
        yield {"type": "speech.audio.delta", "audio": base64.b64encode(part).decode()}

    def ended(self, index: int, done: Completion) -> Iterable[dict[str, Any]]:
        """The end; of a model that does not speak by sentences all of it. Nothing is tokens."""
        if not self._begun:
            yield from self.piece(index, done.text)
        count = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
        yield {"type": "speech.audio.done", "usage": count}


class PictureWriter(_Followed):
    """The events of a picture."""

    def __init__(self) -> None:
        super().__init__()
        self._created, self._looks = int(time.time()), 0

    def piece(self, index: int, said: str | Scored) -> Iterable[dict[str, Any]]:  # noqa: ARG002
        """What the picture would become if it went straight on from here."""
        number, self._looks = self._looks, self._looks + 1
        told = {"b64_json": said, "partial_image_index": number}
        yield self._event("image_generation.partial_image", told)

    def ended(self, index: int, done: Completion) -> Iterable[dict[str, Any]]:  # noqa: ARG002
        """The picture. Nothing of it is made of tokens."""
        count: dict[str, Any] = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
        count["input_tokens_details"] = {"image_tokens": 0, "text_tokens": 0}
        yield self._event("image_generation.completed", {"b64_json": done.text, "usage": count})

    def _event(self, kind: str, told: Mapping[str, Any]) -> dict[str, Any]:
        """An event with what the official shape says of every picture."""
        shape = {"background": AUTO, "output_format": "png", "quality": AUTO, "size": AUTO}
        return {"type": kind, "created_at": self._created, **shape, **told}


def told_of(error: ModelwrightError) -> ApiError:
    """What a client is told: an error that is not the server's is one of the question.

    Raises:
        CorruptError: a file of the server's is damaged, whose place is nothing for a client.
        MachineError: the machine cannot do it.
    """
    told = refusal(error)
    if told is None and isinstance(error, CorruptError | MachineError):
        raise error
    return told or ApiError(400, str(error), param="inputs", code="invalid_question")
