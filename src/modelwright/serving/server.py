"""The HTTP server: OpenAI-compatible routes and the chat page over one engine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from modelwright.errors import ModelwrightError
from modelwright.serving import answer_schemas as told
from modelwright.serving import event_schemas as events
from modelwright.serving.admin import AdminRoutes
from modelwright.serving.asking import KINDS, TYPES, schema
from modelwright.serving.bodies import ApiError
from modelwright.serving.embeddings import EmbeddingRequest, EmbeddingRoute
from modelwright.serving.guard import OPEN_PATHS, Guard
from modelwright.serving.hosting import FORM, Tls, host_app, page_headers
from modelwright.serving.kept import Keeper
from modelwright.serving.keys import Keys
from modelwright.serving.limits import Limits
from modelwright.serving.openai import ChatRequest, CompletionRequest
from modelwright.serving.openapi import Endpoint, document, naming
from modelwright.serving.origins import Origins, allowed
from modelwright.serving.passes import PassEngine
from modelwright.serving.responses import ResponsesRequest
from modelwright.serving.roster import (
    EMBEDDINGS,
    IMAGES,
    PREDICT,
    SPEECH,
    TRANSCRIPTIONS,
    Roster,
    Runs,
    offered,
)
from modelwright.serving.service import Answering, Service, unavailable
from modelwright.serving.texts import TextRoutes
from modelwright.serving.wholes import (
    ImageRequest,
    SpeechRequest,
    WholeRoutes,
)

WATCH_SECONDS = 0.25  # between two looks at the engine

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        api_key: when set, needed on every route but the page and whether the server is well; when
            not, and there is no file of keys, only requests that name this machine in Host and
            Origin pass.
        keys_file: keys of several clients, each with its rates; see ``keys.Keys``.
        admin_key: opens the routes below ``guard.ADMIN``, and nothing else.
        hosts: names that Host may bear beside this machine's; with a key too, where there are some.
        origins: of pages of other sites that may ask and read the answers.
    """

    api_key: str | None = None
    keys_file: Path | None = None
    admin_key: str | None = None
    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, key in (("api key", self.api_key), ("admin key", self.admin_key)):
            if key is not None and not re.fullmatch(r"[!-~]{1,1000}", key):
                raise ModelwrightError(
                    f"{name}: it must be visible ASCII characters without spaces"
                )
        if self.admin_key is not None and self.admin_key == self.api_key:
            raise ModelwrightError("admin key: must be another than the API key")
        _ = self.allowed  # what is wrong with a name is said at once

    @property
    def allowed(self) -> Origins:
        """The names and pages beside this machine's own."""
        return allowed(self.hosts, self.origins)

    @property
    def keyed(self) -> bool:
        """Whether clients need a key."""
        return self.api_key is not None or self.keys_file is not None


def build_app(
    engine: Answering,
    *,
    model_name: str,
    access: Access | None = None,
    limits: Limits | None = None,
    runs: Runs | None = None,
    adapters: Sequence[str] = (),
    keeper: Keeper | None = None,
    **given: Any,
) -> Starlette:
    """The ASGI application; it starts the engines' workers and stops them at the end.

    Args:
        engine: what answers.
        model_name: how clients ask for it.
        access: who may ask; its fields may also be given by themselves.
        limits: of times and connections.
        runs: what may be loaded beside it, by whoever has the admin key.
        adapters: of ``runs``, that requests may name from the start.
        keeper: keeps requests for training; None keeps none.
        given: fields of ``Access``, in its place.
    """
    access = access or Access(**given)
    service = Service(engine, model_name, limits or Limits())
    keys = Keys(access.keys_file, access.api_key, service.limits)
    roster = Roster(service, runs, keeper)
    for name in adapters:
        assert runs is not None  # noqa: S101 - adapters are of runs
        runs.adapt(engine, name, name)
        service.adapters[name] = service.created
    managed = runs is not None and access.admin_key is not None
    endpoints = _endpoints(roster, keyed=bool(keys), managed=managed)
    media = frozenset(e.path for e in endpoints if FORM in e.media)
    admin = Keys(key=access.admin_key) if managed else None

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        engine.start()
        watch = asyncio.create_task(_restarting(roster))
        yield
        watch.cancel()
        await roster.stop()

    guard = Middleware(
        Guard,
        keys=keys,
        admin=admin,
        metrics=service.metrics,
        media_paths=media,
        origins=access.allowed,
        limits=service.limits,
    )
    app = Starlette(
        routes=[Route(e.path, e.handler, methods=[e.method]) for e in endpoints],
        middleware=[guard],
        exception_handlers={HTTPException: _no_route},
        lifespan=lifespan,
    )
    app.state.service, app.state.roster = service, roster
    return app


def _endpoints(roster: Roster, *, keyed: bool, managed: bool) -> list[Endpoint]:
    """Everything that the server offers."""
    routes, texts = _Routes(roster), TextRoutes(roster)
    found = [
        Endpoint("/", routes.page, "the page", answers="text/html", open=True),
        Endpoint(
            "/health", routes.health, "whether the engine works", gives=told.HealthAnswer, open=True
        ),
        Endpoint(
            "/ready",
            routes.ready,
            "whether requests should be sent here",
            gives=told.HealthAnswer,
            open=True,
        ),
        Endpoint("/metrics", routes.metrics, "counts for Prometheus", answers="text/plain"),
        Endpoint("/openapi.json", routes.described, "this document"),
        Endpoint(
            "/v1/models", routes.models, "the models and their adapters", gives=told.ModelList
        ),
        Endpoint(
            "/v1/models/{name:path}", routes.model, "a model by its name", gives=told.ModelCard
        ),
        Endpoint(
            "/v1/completions",
            texts.completions,
            "continue texts",
            schema=CompletionRequest,
            gives=told.CompletionAnswer,
            events=events.CompletionEvent,
        ),
        Endpoint(
            "/v1/chat/completions",
            texts.chat,
            "answer a conversation",
            schema=ChatRequest,
            gives=told.ChatAnswer,
            events=events.ChatEvent,
        ),
        Endpoint(
            "/v1/responses",
            texts.responses,
            "answer a conversation, in the newer shape",
            schema=ResponsesRequest,
            gives=told.ResponseAnswer,
            events=events.ResponseEvent,
        ),
    ]
    found += _whole(roster, managed=managed)
    assert {e.path for e in found if e.open} == OPEN_PATHS  # noqa: S101 - one list in two places
    routes.document = document(roster.first.name, found, keyed=keyed)
    return found + (AdminRoutes(roster).endpoints if managed else [])


def _whole(roster: Roster, *, managed: bool) -> list[Endpoint]:
    """The endpoints beside text: those of the first model, or all where others may come."""
    whole, vectors, engine = WholeRoutes(roster), EmbeddingRoute(roster), roster.first.engine
    known = engine.policy.facts() if isinstance(engine, PassEngine) else {"inputs": KINDS}
    every = [
        Endpoint(
            EMBEDDINGS,
            vectors.embeddings,
            "vectors of texts",
            schema=EmbeddingRequest,
            gives=told.EmbeddingAnswer,
        ),
        Endpoint(
            PREDICT,
            whole.predict,
            "answers as a whole",
            schema=schema(known),
            media=(FORM,),
            gives=told.PredictAnswer,
        ),
        Endpoint(
            IMAGES,
            whole.images,
            "draw",
            schema=ImageRequest,
            gives=told.ImageAnswer,
            events=events.PictureEvent,
        ),
        Endpoint(
            SPEECH,
            whole.speech,
            "speak",
            schema=SpeechRequest,
            answers=TYPES[".wav"],
            events=events.SpeechEvent,
        ),
        Endpoint(
            TRANSCRIPTIONS,
            whole.transcriptions,
            "write down speech",
            media=(FORM,),
            gives=told.TranscriptAnswer,
            events=events.TranscriptEvent,
        ),
    ]
    return [e for e in every if managed or e.path in offered(engine)]


async def _restarting(roster: Roster) -> None:
    """Start engines again that have died: their work ended though nobody stopped it."""
    limits, began = roster.limits, defaultdict[str, deque[float]](deque)
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        for service in roster:
            if not getattr(service.engine, "died", False):
                continue
            now, times = time.monotonic(), began[service.name]
            while times and times[0] < now - limits.restart_seconds:
                times.popleft()
            if len(times) >= limits.restarts:
                continue
            times.append(now)
            roster.metrics.add("engine_restarts_total")
            _log.error("the engine is started again, %d of %d times", len(times), limits.restarts)
            try:
                service.engine.start()
            except Exception:  # such as no descriptors left: the other engines are still watched
                _log.exception("the engine cannot be started")


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
    scripts = ("chat.js", "sounds.js", "media.js")
    return page.replace("/* chat.js, sounds.js, media.js */\n", read(*scripts))


class _Routes:
    """The endpoints that tell of the server and its model."""

    def __init__(self, roster: Roster) -> None:
        self.roster = roster
        self.document: dict[str, object] = {}
        html = _page()
        self._page = Response(html, media_type="text/html", headers=page_headers(html))

    async def page(self, _: HttpRequest) -> Response:
        """The chat page."""
        return self._page

    async def health(self, _: HttpRequest) -> Response:
        """200 while every engine takes requests and makes steps, else 503."""
        engines = [service.engine for service in self.roster]
        if not all(engine.alive for engine in engines):
            return JSONResponse(unavailable().body(), 503)
        running = sum(engine.running for engine in engines)
        waiting = sum(engine.waiting for engine in engines)
        return JSONResponse({"status": "ok", "running": running, "waiting": waiting})

    async def ready(self, request: HttpRequest) -> Response:
        """As /health, and 503 from the moment that the server was told to stop."""
        if self.roster.draining:
            message = "the server is stopping; ask another one"
            error = ApiError(503, message, "unavailable_error", code="draining")
            return JSONResponse(error.body(), 503)
        return await self.health(request)

    async def metrics(self, _: HttpRequest) -> Response:
        """Counters, histograms and gauges."""
        text = self.roster.metrics.text(self.roster.gauges())
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def described(self, _: HttpRequest) -> Response:
        """The OpenAPI document."""
        names = [str(card["id"]) for card in self.roster.cards()]
        return JSONResponse(naming(self.document, names))

    async def models(self, _: HttpRequest) -> Response:
        """The list of the models."""
        return JSONResponse({"object": "list", "data": self.roster.cards()})

    async def model(self, request: HttpRequest) -> Response:
        """A model by its name."""
        name = self.roster.asked(request.path_params["name"]).name
        (found,) = (card for card in self.roster.cards() if card["id"] == name)
        return JSONResponse(found)


def serve(
    engine: Answering,
    model_name: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    access: Access | None = None,
    limits: Limits | None = None,
    runs: Runs | None = None,
    adapters: Sequence[str] = (),
    keeper: Keeper | None = None,
    tls: Tls | None = None,
    **given: Any,
) -> None:
    """Serve until SIGTERM or Ctrl-C; then refuse what is new and finish what is under way.

    Port 0 takes a free one; the address is printed. The other arguments are those of
    ``build_app``; ``tls`` serves HTTPS.

    Raises:
        ModelwrightError: the host is reachable by others and no key is set, or is no address; the
            file of keys or the certificate is wrong.
        MachineError: the port is taken or not allowed.
    """
    access = access or Access(**given)
    app = build_app(
        engine,
        model_name=model_name,
        access=access,
        limits=limits,
        runs=runs,
        adapters=adapters,
        keeper=keeper,
    )
    roster: Roster = app.state.roster
    host_app(
        app,
        model_name,
        host=host,
        port=port,
        keyed=access.keyed,
        limits=roster.limits,
        tls=tls,
        told=roster.drain,
    )
