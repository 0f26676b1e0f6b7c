"""From the engine's thread to the client: events of several answers, whole or as a stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import Any, Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from modelwright.errors import ModelwrightError
from modelwright.serving.batch import Event, Listener
from modelwright.serving.engine import (
    Completion,
    ContextLengthError,
    EngineStoppedError,
    QueueFullError,
    Request,
)
from modelwright.serving.guard import internal_error
from modelwright.serving.openai import ApiError, Shape, usage
from modelwright.types import Turn

PING_SECONDS = 15.0  # between the comments that keep a silent stream open

_log = logging.getLogger(__name__)


class Cancellable(Protocol):
    """A request that was submitted."""

    def cancel(self) -> object:
        """Give it up."""
        ...


class Answering(Protocol):
    """What the server needs of an engine: of text, or of answers in one pass."""

    context: int
    temperature: float

    @property
    def running(self) -> int:
        """How many requests are being answered."""
        ...

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        ...

    @property
    def alive(self) -> bool:
        """Whether requests are taken and answered."""
        ...

    def start(self) -> None:
        """Take requests."""
        ...

    def stop(self, drain_seconds: float = 0.0) -> None:
        """Take no more."""
        ...

    def prompt(self, turns: Sequence[Turn]) -> list[int]:
        """What a request of these turns holds."""
        ...

    def submit(self, request: Request, listener: Listener) -> Cancellable:
        """Queue a request; the listener is told its text, and at last a Completion."""
        ...


class ClientGoneError(Exception):
    """The client closed its connection."""


def unavailable() -> ApiError:
    """What is said when the engine does not run."""
    message = "the engine is not running; try again when the server has started anew"
    return ApiError(503, message, "unavailable_error", code="engine_stopped")


def refusal(error: Exception, param: str | None = None) -> ApiError | None:
    """What a client is told about an error of the engine; None: it is a fault of the server."""
    if isinstance(error, ContextLengthError):
        return ApiError(400, str(error), param=param, code="context_length_exceeded")
    if isinstance(error, QueueFullError):
        wait = (("Retry-After", "1"),)
        return ApiError(429, str(error), "rate_limit_error", code="queue_full", headers=wait)
    return unavailable() if isinstance(error, EngineStoppedError) else None


class Answers:
    """The choices of one HTTP request, on their way from the engine's thread to the event loop.

    Raises what ``Engine.submit`` raises; then none of the requests stays in the engine.
    """

    def __init__(self, engine: Answering, requests: Sequence[Request]) -> None:
        self.count = len(requests)
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self._handles: list[Cancellable] = []
        try:
            for index, request in enumerate(requests):
                self._handles.append(engine.submit(request, partial(self._arrive, index)))
        except ModelwrightError:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Free the rows of the choices that are not finished."""
        for handle in self._handles:
            handle.cancel()

    async def events(self, receive: Receive) -> AsyncGenerator[tuple[int, str | Completion] | None]:
        """Yield (choice, piece of text or completion), and None after a while of silence.

        Raises:
            ClientGoneError: the client has closed the connection.
        """
        gone = asyncio.ensure_future(_until_gone(receive))
        following = asyncio.ensure_future(self._arrived.get())
        unfinished = self.count
        try:
            while unfinished:
                await asyncio.wait(
                    {gone, following}, timeout=PING_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                if gone.done():
                    raise ClientGoneError
                if not following.done():
                    yield None
                    continue
                index, event = following.result()
                following = asyncio.ensure_future(self._arrived.get())
                if isinstance(event, Exception):
                    raise event
                unfinished -= isinstance(event, Completion)
                yield index, event
        finally:
            gone.cancel()
            following.cancel()

    async def all(self, receive: Receive) -> list[Completion]:
        """Wait for all choices; whatever ends the waiting early frees their rows."""
        done: dict[int, Completion] = {}
        try:
            async with contextlib.aclosing(self.events(receive)) as events:
                async for item in events:
                    if item is not None and isinstance(item[1], Completion):
                        done[item[0]] = item[1]
        finally:
            self.cancel()
        return [done[i] for i in range(self.count)]

    def _arrive(self, index: int, event: Event) -> None:
        """Called from the engine's thread."""
        with contextlib.suppress(RuntimeError):  # the event loop has closed: nobody listens
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, (index, event))


class EventStream(Response):
    """The answers as server-sent events; ends without a finish_reason when something fails."""

    media_type = "text/event-stream"

    def __init__(
        self, answers: Answers, shape: Shape, prompt_tokens: int, *, counted: bool
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._answers, self._shape, self._counted = answers, shape, counted
        self._prompt_tokens = prompt_tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the stream until it ends, fails, or the client leaves."""
        try:
            start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(start)
            async with contextlib.aclosing(self._chunks(receive)) as chunks:
                async for chunk in chunks:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except (ClientGoneError, OSError):
            return
        finally:
            self._answers.cancel()

    async def _chunks(self, receive: Receive) -> AsyncGenerator[bytes]:
        shape, generated = self._shape, 0
        for index in range(self._answers.count):
            opening = shape.opening(index)
            if opening is not None:
                yield _data(opening)
        try:
            async with contextlib.aclosing(self._answers.events(receive)) as events:
                async for item in events:
                    if item is None:
                        yield b": ping\n\n"
                    elif isinstance(item[1], Completion):
                        generated += len(item[1].tokens)
                        yield _data(shape.closing(item[0], item[1].finish_reason))
                    else:
                        yield _data(shape.piece(item[0], item[1]))
        except ClientGoneError:
            raise
        except Exception as error:
            told = refusal(error)
            if told is None:
                _log.error("stream %s failed: %r", shape.id, error)
                told = internal_error(shape.id)
            yield _data(told.body())
            return
        if self._counted:
            yield _data(shape.counted(usage(self._prompt_tokens, generated)))
        yield b"data: [DONE]\n\n"


def _data(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
