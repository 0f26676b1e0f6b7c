"""HTTP connections that wait for nobody: slow headers, slow readers, and too many at once."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from modelwright.serving.limits import Limits


class Connection(H11Protocol):
    """uvicorn's protocol with the timers that it lacks.

    Headers must be whole in ``header_seconds``, the rest of a body that was refused is awaited for
    ``idle_seconds`` however it drips, and a client that takes nothing of what is written
    for it is cut after ``write_seconds``; its answer is then given up like that of one who left.
    """

    limits = Limits()

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._headers_due: asyncio.TimerHandle | None = None
        self._writing_due: asyncio.TimerHandle | None = None
        self._rest_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, or end at once where too many are open."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            transport.abort()
            return
        link = transport.get_extra_info("socket")
        if link is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            # What the kernel holds for a reader that is gone ends as well.
            with contextlib.suppress(OSError):
                milliseconds = int(1000 * self.limits.write_seconds)
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        """Take bytes; the timer of the headers runs while these are not whole."""
        super().data_received(data)
        if self.conn.their_state is not h11.SEND_BODY:
            self._rest_due = _stopped(self._rest_due)
        if self.conn.their_state is not h11.IDLE:
            self._headers_due = _stopped(self._headers_due)
        elif self._headers_due is None:
            self._expect_headers()

    def on_response_complete(self) -> None:
        """Answered: the rest of a body that nobody reads may come for as long as one idles."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY and self._rest_due is None:
            self._rest_due = self.loop.call_later(self.limits.idle_seconds, self._cut)

    def _expect_headers(self) -> None:
        self._headers_due = self.loop.call_later(self.limits.header_seconds, self._cut)

    def _cut(self) -> None:
        self.transport.abort()

    def pause_writing(self) -> None:
        """The buffer is full: the client has so long to take something."""
        super().pause_writing()
        if self._writing_due is None:
            self._writing_due = self.loop.call_later(self.limits.write_seconds, self._cut)

    def resume_writing(self) -> None:
        """It has taken something."""
        super().resume_writing()
        self._writing_due = _stopped(self._writing_due)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._headers_due = _stopped(self._headers_due)
        self._writing_due = _stopped(self._writing_due)
        self._rest_due = _stopped(self._rest_due)
        super().connection_lost(exc)


def _stopped(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """No timer, after this one has been stopped."""
    if timer is not None:
        timer.cancel()
    return None


def protocol(limits: Limits) -> type[Connection]:
    """The protocol with these limits: uvicorn takes a class."""
    return type("Connection", (Connection,), {"limits": limits})
