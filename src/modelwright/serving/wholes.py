"""The routes of answers that come whole: predictions, pictures, speech, transcriptions, vectors."""

from __future__ import annotations

import asyncio
import base64
import secrets
import struct
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Protocol

from pydantic import BeforeValidator, Field
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response

from modelwright.errors import ModelwrightError
from modelwright.serving import limits
from modelwright.serving.asking import TYPES, Asking, PredictRequest, told
from modelwright.serving.guard import GONE
from modelwright.serving.hosting import FORM, JSON, body_of
from modelwright.serving.media import SOUND, form
from modelwright.serving.openai import ApiError, Body, parse
from modelwright.serving.passes import PassEngine
from modelwright.serving.service import DeadlineError, Service, refusal
from modelwright.serving.streaming import ClientGoneError, until_gone
from modelwright.types import Answer, Turn


class ImageRequest(Body):
    """The body of POST /v1/images/generations."""

    model: Annotated[str, Field(max_length=256)] | None = None
    prompt: Annotated[str, Field(max_length=4096)]
    n: Annotated[int, Field(ge=1, le=10)] | None = None
    response_format: Literal["b64_json"] | None = None
    size: Annotated[str, Field(max_length=32)] | None = None
    seed: Annotated[int, Field(ge=0, lt=1 << 62)] | None = None


class SpeechRequest(Body):
    """The body of POST /v1/audio/speech."""

    model: Annotated[str, Field(max_length=256)]
    input: Annotated[str, Field(min_length=1, max_length=4096)]
    voice: Annotated[str, Field(max_length=256)] | None = None
    response_format: Literal["wav"] | None = None
    seed: Annotated[int, Field(ge=0, lt=1 << 62)] | None = None


class EmbeddingRequest(Body):
    """The body of POST /v1/embeddings."""

    model: Annotated[str, Field(max_length=256)]
    input: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=limits.TEXT)]],
        BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
        Field(min_length=1, max_length=limits.ROWS),
    ]
    encoding_format: Literal["float", "base64"] | None = None


class Embedding(Protocol):
    """What makes vectors of texts; it may be called from any thread."""

    def __call__(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """A vector of length 1 for each text, and how many tokens they have together."""
        ...


class WholeRoutes:
    """The endpoints over an engine of passes."""

    def __init__(self, service: Service, engine: PassEngine) -> None:
        self.service, self.engine = service, engine
        self.asking = Asking(engine.question)
        engine.question = self.asking.typed

    async def predict(self, request: HttpRequest) -> Response:
        """POST /predict, as JSON or as a form with files."""
        kind, body = await self._body(request, JSON, FORM)
        began = time.monotonic()
        if kind == FORM:
            parts = form(request.headers["content-type"], body)
            model = next((p.text for p in parts if p.name == "model"), None)
            seed = next((p.text for p in parts if p.name == "seed"), "")
            params = {"seed": int(seed)} if seed.isdigit() and len(seed) < 18 else {}
            self.service.known(model or self.service.name)
            given = await asyncio.to_thread(self.asking.parts, parts)
        else:
            asked = await asyncio.to_thread(parse, PredictRequest, body)
            params = {} if asked.seed is None else {"seed": asked.seed}
            self.service.known(asked.model or self.service.name)
            given = await asyncio.to_thread(
                lambda: [
                    self.asking.item(item, f"inputs[{i}]") for i, item in enumerate(asked.inputs)
                ]
            )
        answers = await self._asked(request, given, params, began)
        policy = self.engine.policy
        data = [
            {"index": i, **told(answer, policy.suffix, policy.content)}
            for i, answer in enumerate(answers)
        ]
        head = {"id": f"pred-{secrets.token_hex(12)}", "object": "prediction"}
        return JSONResponse(
            {**head, "created": int(time.time()), "model": self.service.name, "data": data}
        )

    async def images(self, request: HttpRequest) -> Response:
        """POST /v1/images/generations: the prompt is the question, such as a class."""
        _, body = await self._body(request, JSON)
        asked = parse(ImageRequest, body)
        self.service.known(asked.model or self.service.name)
        turns = self.asking.typed(asked.prompt, "prompt")
        seed = secrets.randbits(32) if asked.seed is None else asked.seed
        answers = await self._asked(
            request, [turns] * (asked.n or 1), {"seed": seed}, time.monotonic()
        )
        contents = [self.engine.policy.content(answer.turn) for answer in answers]
        data = [{"b64_json": base64.b64encode(content).decode()} for content in contents]
        return JSONResponse({"created": int(time.time()), "output_format": "png", "data": data})

    async def speech(self, request: HttpRequest) -> Response:
        """POST /v1/audio/speech: a WAV file; the voice is one that the model knows, or default."""
        _, body = await self._body(request, JSON)
        asked = parse(SpeechRequest, body)
        self.service.known(asked.model)
        named = asked.voice and asked.voice in self.engine.policy.facts().get("labels", ())
        text = f"{asked.voice}: {asked.input}" if named else asked.input
        turns = self.asking.typed(text, "input")
        params = {} if asked.seed is None else {"seed": asked.seed}
        (answer,) = await self._asked(request, [turns], params, time.monotonic())
        content = self.engine.policy.content(answer.turn)
        return Response(content, media_type=TYPES[self.engine.policy.suffix])

    async def transcriptions(self, request: HttpRequest) -> Response:
        """POST /v1/audio/transcriptions: a form with a sound file."""
        _, body = await self._body(request, FORM)
        parts = {p.name: p for p in form(request.headers["content-type"], body)}
        for name in ("file", "model"):
            if name not in parts:
                message = f"{name}: Field required"
                raise ApiError(400, message, param=name, code="missing_required_parameter")
        self.service.known(parts["model"].text)
        wanted = parts["response_format"].text if "response_format" in parts else "json"
        if wanted not in ("json", "text", "verbose_json"):
            message = "response_format: 'json', 'text' or 'verbose_json' is meant"
            raise ApiError(400, message, param="response_format", code="invalid_value")
        turns = await asyncio.to_thread(self.asking.file, parts["file"].content, "file", SOUND)
        (answer,) = await self._asked(request, [turns], {}, time.monotonic())
        text = answer.turn.said
        if wanted == "text":
            return PlainTextResponse(text + "\n")
        if wanted == "json":
            return JSONResponse({"text": text})
        (sound,) = turns[0].parts
        length = getattr(sound, "seconds", 0.0)
        return JSONResponse(
            {"task": "transcribe", "language": "", "duration": length, "text": text, "segments": []}
        )

    async def _body(self, request: HttpRequest, *kinds: str) -> tuple[str, bytes]:
        return await body_of(request, kinds, self.service.limits.body_seconds)

    async def _asked(
        self,
        request: HttpRequest,
        given: Sequence[Sequence[Turn]],
        params: dict[str, Any],
        began: float,
    ) -> list[Answer]:
        """Answers, unless the client leaves or they take too long."""
        gone = asyncio.ensure_future(until_gone(request.receive))
        try:
            future = self.engine.ask(given, params)
            answered: asyncio.Future[list[Answer]] = asyncio.wrap_future(future)
            seconds = self.service.limits.total_seconds or None
            either: set[asyncio.Future[Any]] = {gone, answered}
            await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not answered.done():
                future.cancel()
                if gone.done():
                    self.service.metrics.add("requests_cancelled_total")
                    raise ApiError(GONE, "the client has left")
                raise DeadlineError(f"the answer was not done within {seconds:g} seconds")
            found = answered.result()
        except ModelwrightError as error:
            raise _told(error) from error
        finally:
            gone.cancel()
        self.service.metrics.observe("e2e_request_latency_seconds", time.monotonic() - began)
        self.service.metrics.add("request_success_total", len(found), finished_reason="stop")
        return found


def _told(error: ModelwrightError) -> ApiError:
    """What a client is told: an error that is not the server's is one of the question."""
    return refusal(error) or ApiError(400, str(error), param="inputs", code="invalid_question")


class EmbeddingRoute:
    """The endpoint over whatever makes vectors of texts."""

    def __init__(self, service: Service, embedding: Embedding) -> None:
        self.service, self._embedding = service, embedding
        self._one = asyncio.Lock()

    async def embeddings(self, request: HttpRequest) -> Response:
        """POST /v1/embeddings: one vector of length 1 for each text."""
        _, body = await body_of(request, [JSON], self.service.limits.body_seconds)
        asked = await asyncio.to_thread(parse, EmbeddingRequest, body)
        self.service.known(asked.model)
        try:
            async with self._one:
                vectors, tokens = await asyncio.to_thread(self._embedding, asked.input)
        except ClientGoneError:
            return Response(status_code=GONE)
        except ModelwrightError as error:
            told_error = refusal(error, "input")
            raise (told_error or _told(error)) from error
        write: Callable[[list[float]], Any] = (
            _packed if asked.encoding_format == "base64" else lambda vector: vector
        )
        data = [
            {"object": "embedding", "index": i, "embedding": write(vector)}
            for i, vector in enumerate(vectors)
        ]
        count = {"prompt_tokens": tokens, "total_tokens": tokens}
        self.service.metrics.add("prompt_tokens_total", tokens)
        return JSONResponse(
            {"object": "list", "data": data, "model": self.service.name, "usage": count}
        )


def _packed(vector: list[float]) -> str:
    """The numbers as little-endian float32 in base64."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
