"""The HTTP server: OpenAI-compatible routes and the chat page over one engine."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from modelwright.errors import ModelwrightError
from modelwright.serving.engine import Request
from modelwright.serving.guard import Guard
from modelwright.serving.hosting import host_app, json_body, page_headers
from modelwright.serving.openai import (
    ApiError,
    ChatRequest,
    CompletionRequest,
    Shape,
    model_card,
    parse,
    usage,
)
from modelwright.serving.streaming import (
    Answering,
    Answers,
    ClientGoneError,
    EventStream,
    refusal,
    unavailable,
)


def build_app(engine: Answering, *, model_name: str, api_key: str | None = None) -> Starlette:
    """The ASGI application; it starts the engine's worker and stops it at the end.

    Args:
        engine: what answers.
        model_name: the only model clients can ask for.
        api_key: when set, needed on every route but the page and /health; when not, only
            requests that name this machine in Host and Origin pass.
    """
    if api_key is not None and not re.fullmatch(r"[!-~]{1,1000}", api_key):
        raise ModelwrightError("api key: it must be visible ASCII characters without spaces")
    routes = _Routes(engine, model_name)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        engine.start()
        yield
        await asyncio.to_thread(engine.stop)

    return Starlette(
        routes=[
            Route("/", routes.page),
            Route("/health", routes.health),
            Route("/v1/models", routes.models),
            Route("/v1/models/{name:path}", routes.model),
            Route("/v1/completions", routes.completions, methods=["POST"]),
            Route("/v1/chat/completions", routes.chat, methods=["POST"]),
        ],
        middleware=[Middleware(Guard, api_key=api_key)],
        exception_handlers={HTTPException: _no_route},
        lifespan=lifespan,
    )


async def _no_route(_: HttpRequest, error: Exception) -> Response:
    """404 and 405 of the router, in OpenAI's shape."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    what = "no such path" if status == 404 else "this path does not take that method"
    refusal = ApiError(
        status, what, type="not_found_error" if status == 404 else "invalid_request_error"
    )
    headers = getattr(error, "headers", None)
    return JSONResponse(refusal.body(), status, headers)


class _Routes:
    """The endpoints, bound to one engine and one model name."""

    def __init__(self, engine: Answering, model_name: str) -> None:
        self.engine, self.name = engine, model_name
        self.card = {
            **model_card(model_name, int(time.time())),
            "context_length": engine.context,
        }
        html = Path(__file__).with_name("chat.html").read_text(encoding="utf-8")
        self._page = Response(html, media_type="text/html", headers=page_headers(html))

    async def page(self, _: HttpRequest) -> Response:
        """The chat page."""
        return self._page

    async def health(self, _: HttpRequest) -> Response:
        """200 while the engine takes requests and makes steps, else 503."""
        if not self.engine.alive:
            return JSONResponse(unavailable().body(), 503)
        counts = {"running": self.engine.running, "waiting": self.engine.waiting}
        return JSONResponse({"status": "ok", **counts})

    async def models(self, _: HttpRequest) -> Response:
        """The list of the one model."""
        return JSONResponse({"object": "list", "data": [self.card]})

    async def model(self, request: HttpRequest) -> Response:
        """The model by its name."""
        self._known(request.path_params["name"])
        return JSONResponse(self.card)

    async def chat(self, request: HttpRequest) -> Response:
        """POST /v1/chat/completions."""
        return await self._answer(request, parse(ChatRequest, await json_body(request)))

    async def completions(self, request: HttpRequest) -> Response:
        """POST /v1/completions."""
        return await self._answer(request, parse(CompletionRequest, await json_body(request)))

    def _known(self, name: str) -> None:
        if name != self.name:
            raise ApiError(
                404,
                f"model: there is no {name[:100]!r} here; this server has {self.name!r}",
                type="not_found_error",
                param="model",
                code="model_not_found",
            )

    async def _answer(
        self, request: HttpRequest, asked: ChatRequest | CompletionRequest
    ) -> Response:
        self._known(asked.model)
        is_chat = isinstance(asked, ChatRequest)
        # A megabyte of text takes a while to tokenise: not in the event loop.
        prompts = await asyncio.to_thread(
            lambda: [self.engine.prompt(turns) for turns in asked.conversations]
        )
        params = asked.params(self.engine.context, self.engine.temperature)
        shape = Shape(
            chat=is_chat,
            id=f"{'chatcmpl' if is_chat else 'cmpl'}-{secrets.token_hex(12)}",
            created=int(time.time()),
            model=self.name,
        )
        prompt_tokens = sum(len(prompt) for prompt in prompts)
        try:
            answers = Answers(self.engine, [Request(p, s) for p in prompts for s in params])
            if asked.stream:
                return EventStream(answers, shape, prompt_tokens, counted=asked.usage_wanted)
            done = await answers.all(request.receive)
        except ClientGoneError:
            return Response(status_code=499)
        except ModelwrightError as error:
            told = refusal(error, "messages" if is_chat else "prompt")
            if told is None:
                raise
            raise told from error
        count = usage(prompt_tokens, sum(len(c.tokens) for c in done))
        return JSONResponse(shape.whole([(c.text, c.finish_reason) for c in done], count))


def serve(
    engine: Answering,
    model_name: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: str | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C; then refuse what is new and finish what is under way.

    Port 0 takes a free one; the address is printed.

    Raises:
        ModelwrightError: the host is reachable by others and no key is set, or is no address.
        MachineError: the port is taken or not allowed.
    """
    app = build_app(engine, model_name=model_name, api_key=api_key)
    host_app(app, model_name, host=host, port=port, key=api_key)
