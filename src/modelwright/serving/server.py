"""The HTTP server: OpenAI-compatible routes and the chat page over one engine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from modelwright.errors import ModelwrightError
from modelwright.serving.asking import TYPES, schema
from modelwright.serving.guard import OPEN_PATHS, Guard
from modelwright.serving.hosting import FORM, JSON, Tls, host_app, page_headers
from modelwright.serving.keys import Keys
from modelwright.serving.limits import Limits
from modelwright.serving.media import SOUND
from modelwright.serving.openai import ApiError, ChatRequest, CompletionRequest
from modelwright.serving.openapi import Endpoint, document
from modelwright.serving.passes import PassEngine
from modelwright.serving.responses import ResponsesRequest
from modelwright.serving.service import Answering, Service, unavailable
from modelwright.serving.shapes import model_card
from modelwright.serving.texts import TextRoutes
from modelwright.serving.wholes import (
    Embedding,
    EmbeddingRequest,
    EmbeddingRoute,
    ImageRequest,
    SpeechRequest,
    WholeRoutes,
)

WATCH_SECONDS = 0.25  # between two looks at the engine

_log = logging.getLogger(__name__)


def build_app(
    engine: Answering,
    *,
    model_name: str,
    api_key: str | None = None,
    keys_file: Path | None = None,
    limits: Limits | None = None,
) -> Starlette:
    """The ASGI application; it starts the engine's worker and stops it at the end.

    Args:
        engine: what answers.
        model_name: the only model clients can ask for.
        api_key: when set, needed on every route but the page and whether the server is well; when
            not, and there is no file of keys, only requests that name this machine in Host and
            Origin pass.
        keys_file: keys of several clients, each with its rates; see ``keys.Keys``.
        limits: of times and connections.
    """
    if api_key is not None and not re.fullmatch(r"[!-~]{1,1000}", api_key):
        raise ModelwrightError("api key: it must be visible ASCII characters without spaces")
    service = Service(engine, model_name, limits or Limits())
    keys = Keys(keys_file, api_key, service.limits)
    endpoints = _endpoints(service, keyed=bool(keys))
    media = frozenset(e.path for e in endpoints if FORM in e.media)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        engine.start()
        watch = asyncio.create_task(_restarting(service))
        yield
        watch.cancel()
        await asyncio.to_thread(engine.stop)

    app = Starlette(
        routes=[Route(e.path, e.handler, methods=[e.method]) for e in endpoints],
        middleware=[Middleware(Guard, keys=keys, metrics=service.metrics, media_paths=media)],
        exception_handlers={HTTPException: _no_route},
        lifespan=lifespan,
    )
    app.state.service = service
    return app


def _endpoints(service: Service, *, keyed: bool) -> list[Endpoint]:
    """Everything that the server offers."""
    routes, texts = _Routes(service), TextRoutes(service)
    found = [
        Endpoint("/", routes.page, "the page", answers="text/html", open=True),
        Endpoint("/health", routes.health, "whether the engine works", open=True),
        Endpoint("/ready", routes.ready, "whether requests should be sent here", open=True),
        Endpoint("/metrics", routes.metrics, "counts for Prometheus", answers="text/plain"),
        Endpoint("/openapi.json", routes.described, "this document"),
        Endpoint("/v1/models", routes.models, "the list of the one model"),
        Endpoint("/v1/models/{name:path}", routes.model, "the model by its name"),
        Endpoint(
            "/v1/completions",
            texts.completions,
            "continue texts",
            schema=CompletionRequest,
            streams=True,
        ),
        Endpoint(
            "/v1/chat/completions",
            texts.chat,
            "answer a conversation",
            schema=ChatRequest,
            streams=True,
        ),
        Endpoint(
            "/v1/responses",
            texts.responses,
            "answer a conversation, in the newer shape",
            schema=ResponsesRequest,
            streams=True,
        ),
    ]
    found += _offered(service, routes.card)
    routes.document = document(service.name, found, keyed=keyed)
    assert {e.path for e in found if e.open} == OPEN_PATHS  # noqa: S101 - one list in two places
    return found


def _offered(service: Service, card: dict[str, object]) -> list[Endpoint]:
    """What this engine offers beside text; the card of the model tells of it."""
    found: list[Endpoint] = []
    engine = service.engine
    embedding: Embedding | None = getattr(engine, "embed", None)
    if embedding is not None:
        route = EmbeddingRoute(service, embedding)
        found.append(
            Endpoint(
                "/v1/embeddings", route.embeddings, "vectors of texts", schema=EmbeddingRequest
            )
        )
    if not isinstance(engine, PassEngine):
        return found
    whole, known = WholeRoutes(service, engine), engine.policy.facts()
    makes = TYPES.get(engine.policy.suffix, JSON)
    card["predicts"] = {**known, "makes": makes}
    found.append(
        Endpoint(
            "/predict",
            whole.predict,
            "answers as a whole",
            schema=schema(known),
            media=(FORM,),
        )
    )
    if makes == TYPES[".png"]:
        found.append(Endpoint("/v1/images/generations", whole.images, "draw", schema=ImageRequest))
    if makes == TYPES[".wav"] and SOUND not in known["inputs"]:
        found.append(
            Endpoint("/v1/audio/speech", whole.speech, "speak", schema=SpeechRequest, answers=makes)
        )
    if SOUND in known["inputs"] and makes == JSON and "labels" not in known:
        found.append(
            Endpoint(
                "/v1/audio/transcriptions", whole.transcriptions, "write down speech", media=(FORM,)
            )
        )
    return found


async def _restarting(service: Service) -> None:
    """Start an engine again that has died: its thread ended though nobody stopped it."""
    limits, began = service.limits, deque[float]()
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        if not getattr(service.engine, "died", False):
            continue
        now = time.monotonic()
        while began and began[0] < now - limits.restart_seconds:
            began.popleft()
        if len(began) >= limits.restarts:
            continue
        began.append(now)
        service.metrics.add("engine_restarts_total")
        _log.error("the engine is started again, %d of %d times", len(began), limits.restarts)
        service.engine.start()


async def _no_route(_: HttpRequest, error: Exception) -> Response:
    """404 and 405 of the router, in OpenAI's shape."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    what = "no such path" if status == 404 else "this path does not take that method"
    refusal = ApiError(
        status, what, type="not_found_error" if status == 404 else "invalid_request_error"
    )
    headers = getattr(error, "headers", None)
    return JSONResponse(refusal.body(), status, headers)


def _page() -> str:
    """The page with its style and its script in it, so that it is one file to a browser."""

    def read(*names: str) -> str:
        files = (Path(__file__).with_name(name) for name in names)
        return "".join(file.read_text(encoding="utf-8") for file in files)

    page = read("chat.html").replace("/* chat.css */\n", read("chat.css"))
    return page.replace("/* chat.js, media.js */\n", read("chat.js", "media.js"))


class _Routes:
    """The endpoints that tell of the server and its model."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.card = {
            **model_card(service.name, service.created),
            "context_length": service.engine.context,
        }
        self.document: dict[str, object] = {}
        html = _page()
        self._page = Response(html, media_type="text/html", headers=page_headers(html))

    async def page(self, _: HttpRequest) -> Response:
        """The chat page."""
        return self._page

    async def health(self, _: HttpRequest) -> Response:
        """200 while the engine takes requests and makes steps, else 503."""
        engine = self.service.engine
        if not engine.alive:
            return JSONResponse(unavailable().body(), 503)
        counts = {"running": engine.running, "waiting": engine.waiting}
        return JSONResponse({"status": "ok", **counts})

    async def ready(self, request: HttpRequest) -> Response:
        """As /health, and 503 from the moment that the server was told to stop."""
        if self.service.draining:
            message = "the server is stopping; ask another one"
            error = ApiError(503, message, "unavailable_error", code="draining")
            return JSONResponse(error.body(), 503)
        return await self.health(request)

    async def metrics(self, _: HttpRequest) -> Response:
        """Counters, histograms and gauges."""
        text = self.service.metrics.text(self.service.gauges())
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def described(self, _: HttpRequest) -> Response:
        """The OpenAPI document."""
        return JSONResponse(self.document)

    async def models(self, _: HttpRequest) -> Response:
        """The list of the one model."""
        return JSONResponse({"object": "list", "data": [self.card]})

    async def model(self, request: HttpRequest) -> Response:
        """The model by its name."""
        self.service.known(request.path_params["name"])
        return JSONResponse(self.card)


def serve(
    engine: Answering,
    model_name: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: str | None = None,
    *,
    keys_file: Path | None = None,
    limits: Limits | None = None,
    tls: Tls | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C; then refuse what is new and finish what is under way.

    Port 0 takes a free one; the address is printed. The other arguments are those of
    ``build_app``; ``tls`` serves HTTPS.

    Raises:
        ModelwrightError: the host is reachable by others and no key is set, or is no address; the
            file of keys or the certificate is wrong.
        MachineError: the port is taken or not allowed.
    """
    app = build_app(
        engine, model_name=model_name, api_key=api_key, keys_file=keys_file, limits=limits
    )
    service: Service = app.state.service

    def told() -> None:
        service.draining = True

    host_app(
        app,
        model_name,
        host=host,
        port=port,
        keyed=api_key is not None or keys_file is not None,
        limits=service.limits,
        tls=tls,
        told=told,
    )
