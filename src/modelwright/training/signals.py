"""Signals that ask to stop: noticed at once, acted on where nothing is lost.

A command listens from its first line (``listening``). Where nothing needs finishing, the first
signal raises ``Stopped`` on the spot; inside ``deferred`` it only answers the question that the
training loop asks between steps. A second signal ends the process at once. While the main
thread is inside one long call of a library, where Python cannot raise, a second thread does it.

This module imports nothing but the standard library: it is in place before torch is loaded.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from modelwright.errors import EXIT_INTERRUPTED, EXIT_REQUEUE

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
ECHO = 0.6  # seconds; a launcher passes on the signal that a terminal sent to all of us as well
NOTICE = 1.0  # seconds that one long call may keep a signal waiting
AGAIN = 0.02  # seconds after which a signal comes once more, whose stop was dropped


class Stopped(KeyboardInterrupt):
    """A signal asked to stop. A KeyboardInterrupt, so that no ``except Exception`` eats it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


def exit_code(error: BaseException | None = None) -> int:
    """130 after Ctrl-C; after SIGTERM or SIGUSR1 the code that asks a scheduler to requeue."""
    number = getattr(error, "number", None) or _state.number
    return EXIT_REQUEUE if number in (signal.SIGTERM, signal.SIGUSR1) else EXIT_INTERRUPTED


@dataclass
class _State:
    """What has been asked, and whether the loop will answer."""

    number: int = 0  # of the first signal; 0: none
    at: float = 0.0
    deferred: int = 0
    noticed: bool = False
    listening: bool = False


_state = _State()


def asked() -> bool:
    """Whether a signal has asked to stop."""
    return _state.number != 0


def check() -> None:
    """Raise ``Stopped`` where a signal has asked and what it raised was lost on the way.

    Python drops what is raised inside a finaliser or a callback of a C library.
    """
    if _state.number and _state.listening and not _state.deferred:
        raise Stopped(_state.number)


@contextmanager
def listening() -> Iterator[None]:
    """Handle SIGINT, SIGTERM and SIGUSR1 inside the block; the handlers before are given back.

    Does nothing outside the main thread, where Python delivers no signals, and inside itself.
    """
    if threading.current_thread() is not threading.main_thread() or _state.listening:
        yield
        return
    _state.number, _state.noticed, _state.listening = 0, False, True
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = {number: signal.signal(number, _handle) for number in NUMBERS}
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    unraisable, sys.unraisablehook = sys.unraisablehook, _unraisable(sys.unraisablehook)
    threading.Thread(target=_watch, args=(reader,), name="signals", daemon=True).start()
    try:
        yield
    finally:
        sys.unraisablehook = unraisable
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writer)  # ends the thread, which closes the other end
        _state.listening = False


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Inside, a signal is a question: the yielded function says whether one came.

    Listens by itself where no command does, as when the Python face is used.
    """
    with listening():
        _state.deferred += 1
        try:
            yield asked
        finally:
            _state.deferred -= 1


def _handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """In the main thread, between two instructions."""
    if first := not _state.number:
        _state.at = time.monotonic()  # before the number: a second signal may come right here
        _state.number = _state.number or number
    elif time.monotonic() - _state.at >= ECHO:
        leave(exit_code())
    _state.noticed = True
    if first and not _state.deferred:
        raise Stopped(number)


def _unraisable(before: Callable[[Any], object]) -> Callable[[Any], None]:
    """A hook for what Python drops: a stop becomes the same signal once more, a moment later."""

    def hook(dropped: Any) -> None:
        if not isinstance(dropped.exc_value, Stopped):
            before(dropped)
            return
        number, _state.number = _state.number, 0
        timer = threading.Timer(AGAIN, os.kill, args=(os.getpid(), number))
        timer.daemon = True
        timer.start()

    return hook


def _watch(reader: int) -> None:
    """In its own thread: end the process when the main thread is too busy to be told."""
    first = 0.0
    with contextlib.suppress(OSError):
        while received := os.read(reader, 64):
            if not any(number in NUMBERS for number in received):
                continue
            now = time.monotonic()
            if first and now - first >= ECHO:
                time.sleep(0.2)  # the main thread, if it can, leaves by itself
                leave(_code(received))
            first = first or now
            if not _state.deferred:
                timer = threading.Timer(NOTICE, _insist, args=(received,))
                timer.daemon = True
                timer.start()
    os.close(reader)


def _insist(received: bytes) -> None:
    if _state.listening and not _state.noticed and not _state.deferred:
        line = "modelwright: stopped inside a long call; give the same command again to go on\n"
        os.write(2, line.encode())
        leave(_code(received))


def _code(received: bytes) -> int:
    number = next(n for n in received if n in NUMBERS)
    return EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_REQUEUE


def leave(code: int) -> None:
    """End the process now. What is on the disk is sound at any moment (law 13)."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code)
