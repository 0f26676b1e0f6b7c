"""From the engine's thread to the client: events of several answers, whole or as a stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from modelwright.serving.guard import internal_error
from modelwright.serving.openai import ApiError
from modelwright.serving.row import Cancellable, Completion, Event, Listener, Request, Scored
from modelwright.serving.service import DeadlineError, Service, refusal

_log = logging.getLogger(__name__)


class ClientGoneError(Exception):
    """The client closed its connection."""


class Answers:
    """The choices of one HTTP request, on their way from the engine's thread to the event loop.

    ``begun`` puts each of them to the engine, see ``submitting``. Raises what that raises; then
    none of the requests stays in the engine. ``given_up`` is told what an answer had come to that
    nobody waits for any more, by its number and in the engine's thread: it has cost what it has.
    """

    def __init__(
        self,
        service: Service,
        begun: Sequence[Callable[[Listener], Cancellable]],
        loop: asyncio.AbstractEventLoop,
        given_up: Callable[[int, Completion], None] = lambda *_: None,
    ) -> None:
        self.count = len(begun)
        self.service = service
        self._loop, self._given_up = loop, given_up
        self._left = False
        self._arrived: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self._handles: list[Cancellable] = []
        self._began = time.monotonic()
        self._last: float | None = None
        self._firsts: dict[int, float] = {}  # when each choice began to come
        try:
            for index, begin in enumerate(begun):
                self._handles.append(begin(partial(self._arrive, index)))
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Free the rows of the choices that are not finished."""
        self._left = True
        for handle in self._handles:
            handle.cancel()

    async def events(
        self, receive: Receive
    ) -> AsyncGenerator[tuple[int, str | Scored | Completion] | None]:
        """Yield (choice, piece of text or completion), and None after a while of silence.

        Raises:
            ClientGoneError: the client has closed the connection.
            DeadlineError: the first piece, or the whole, takes longer than the limits say.
        """
        gone = asyncio.ensure_future(until_gone(receive))
        following = asyncio.ensure_future(self._arrived.get())
        unfinished = self.count
        try:
            while unfinished:
                self._check_deadlines()
                await asyncio.wait(
                    {gone, following}, timeout=self._patience(), return_when="FIRST_COMPLETED"
                )
                if gone.done():
                    self.service.metrics.add("requests_cancelled_total")
                    raise ClientGoneError
                if not following.done():
                    yield None
                    continue
                index, event = following.result()
                following = asyncio.ensure_future(self._arrived.get())
                if isinstance(event, Exception):
                    raise event
                unfinished -= isinstance(event, Completion)
                self._count(index, event)
                yield index, event
        finally:
            gone.cancel()
            following.cancel()

    def _deadline(self) -> float:
        limits = self.service.limits
        seconds = [limits.total_seconds]
        if self._last is None:
            seconds.append(limits.queue_seconds)
        return self._began + min((s for s in seconds if s), default=float("inf"))

    def _patience(self) -> float:
        left = self._deadline() - time.monotonic()
        return max(0.0, min(left, self.service.limits.ping_seconds or left))

    def _check_deadlines(self) -> None:
        if time.monotonic() >= self._deadline():
            what = "the answer did not begin" if self._last is None else "the answer was not done"
            seconds = self._deadline() - self._began
            raise DeadlineError(f"{what} within {seconds:g} seconds; ask for less, or later")

    def _count(self, index: int, event: str | Scored | Completion) -> None:
        metrics, now = self.service.metrics, time.monotonic()
        if self._last is None:
            metrics.observe("time_to_first_token_seconds", now - self._began)
        elif not isinstance(event, Completion):
            metrics.observe("inter_token_latency_seconds", now - self._last)
        self._last = now
        first = self._firsts.setdefault(index, now)
        if isinstance(event, Completion):
            metrics.observe("e2e_request_latency_seconds", now - self._began)
            metrics.observe("request_generation_tokens", len(event.tokens))
            if event.queued is not None:
                metrics.observe("request_queue_time_seconds", event.queued)
                metrics.observe("request_inference_time_seconds", event.seconds - event.queued)
                if (more := len(event.tokens) - 1) > 0:
                    each = (now - first) / more
                    metrics.observe("request_time_per_output_token_seconds", each)
            self._count_tokens(event)
            metrics.add("request_success_total", finished_reason=event.finish_reason)

    def _count_tokens(self, done: Completion) -> None:
        self.service.metrics.add("prompt_tokens_total", done.prompt_tokens)
        self.service.metrics.add("generation_tokens_total", len(done.tokens))

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
        if self._left:
            if isinstance(event, Completion) and event.finish_reason == "cancelled":
                self._count_tokens(event)
                self._given_up(index, event)
            return
        with contextlib.suppress(RuntimeError):  # the event loop has closed: nobody listens
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, (index, event))


def submitting(
    service: Service, requests: Sequence[Request]
) -> list[Callable[[Listener], Cancellable]]:
    """What puts requests of text to the engine of a service, and counts what they hold."""

    def submit(request: Request, listener: Listener) -> Cancellable:
        handle: Cancellable = service.engine.submit(request, listener)
        service.metrics.observe("request_prompt_tokens", len(request.tokens))
        return handle

    return [partial(submit, request) for request in requests]


class Writer(Protocol):
    """How a stream of one endpoint is written, as JSON events."""

    id: str
    sentinel: bytes  # what ends a stream that has not failed

    def begin(self) -> Iterable[dict[str, Any]]:
        """What stands before all text."""
        ...

    def piece(self, index: int, said: str | Scored) -> Iterable[dict[str, Any]]:
        """A piece of text of a choice."""
        ...

    def ended(self, index: int, done: Completion) -> Iterable[dict[str, Any]]:
        """The end of a choice."""
        ...

    def end(self, done: Sequence[Completion]) -> Iterable[dict[str, Any]]:
        """What stands behind all choices."""
        ...

    def failed(self, error: ApiError) -> dict[str, Any]:
        """What stands where the stream ends because something failed."""
        ...


class EventStream(Response):
    """The answers as server-sent events; ends without a finish_reason when something fails.

    ``finished`` is told of every answer, with its number.
    """

    media_type = "text/event-stream"

    def __init__(
        self, answers: Answers, writer: Writer, finished: Callable[[int, Completion], None]
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._answers, self._writer, self._finished = answers, writer, finished

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
        writer, done = self._writer, dict[int, Completion]()
        for part in _framed(writer.begin()):
            yield part
        try:
            async with contextlib.aclosing(self._answers.events(receive)) as events:
                async for item in events:
                    if item is None:
                        yield b": ping\n\n"
                        continue
                    index, event = item
                    if isinstance(event, Completion):
                        done[index] = event
                        self._finished(index, event)
                        parts = writer.ended(index, event)
                    else:
                        parts = writer.piece(index, event)
                    for part in _framed(parts):
                        yield part
        except ClientGoneError:
            raise
        except Exception as error:
            told = refusal(error)
            if told is None:
                _log.error("stream %s failed: %r", writer.id, error)
                told = internal_error(writer.id)
            yield _frame(writer.failed(told))
            return
        for part in _framed(writer.end([done[i] for i in range(len(done))])):
            yield part
        yield writer.sentinel


def _framed(events: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    return map(_frame, events)


def _frame(value: dict[str, Any]) -> bytes:
    """One server-sent event; one that says its type is named by it."""
    named = f"event: {value['type']}\n" if "type" in value else ""
    return f"{named}data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


async def until_gone(receive: Receive) -> None:
    """Wait until the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
