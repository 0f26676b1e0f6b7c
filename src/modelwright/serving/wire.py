"""Frames between a server and its engine's process: JSON, with bytes and arrays behind it.

A frame is two lengths (32 bits each, little-endian), JSON in UTF-8, and the bytes that it points
into. What may cross is a closed list: plain values, arrays of numbers, the dataclasses of KINDS
and the errors of ERRORS. Nothing that arrives can name another class, and nothing runs.
"""

from __future__ import annotations

import json
import os
import select
import struct
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from modelwright.errors import CorruptError, MachineError, ModelwrightError
from modelwright.serving.constraint import ConstraintError, Grammar
from modelwright.serving.engine import (
    ContextLengthError,
    EngineStoppedError,
    QueueFullError,
    RequestError,
)
from modelwright.serving.openai import ApiError
from modelwright.serving.row import Completion, Request, Score, Scored
from modelwright.serving.sampling import SamplingParams
from modelwright.types import (
    Answer,
    Box,
    Frames,
    Image,
    ImageFile,
    Label,
    Number,
    Position,
    Sound,
    Span,
    Text,
    Turn,
)

MOST = 1 << 30  # bytes of a frame: pictures of a whole prediction
PART = 1 << 20  # bytes read at once
LINGER = 0.0005  # seconds in which events of one step are gathered
KINDS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        Answer, Box, Completion, Frames, Grammar, Image, ImageFile, Label, Number, Request,
        SamplingParams, Score, Scored, Sound, Span, Text, Turn,
    )
}  # fmt: skip
ERRORS: dict[str, type[ModelwrightError]] = {
    kind.__name__: kind
    for kind in (
        ContextLengthError, CorruptError, EngineStoppedError, MachineError, ModelwrightError,
        QueueFullError,
    )
}  # fmt: skip
_HEAD = struct.Struct("<II")


class FrameError(ModelwrightError):
    """What arrived is no frame of these."""


# Values ------------------------------------------------------------------------------------------


def pack(message: Any) -> bytes:
    """A message as a frame.

    Raises:
        TypeError: something in it is not of the closed list.
        ValueError: a text in it is none, such as half a character.
    """
    blobs: list[bytes] = []
    plain = message if _is_step(message) else _plain(message, blobs)
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()
    behind = b"".join(blobs)
    return _HEAD.pack(len(text), len(behind)) + text + behind


def _is_step(message: Any) -> bool:
    """Whether it is pieces of text alone, as most frames are: those are JSON already."""
    events = message.get("events") if type(message) is dict and len(message) == 1 else None
    return type(events) is list and all(
        type(one) is list and len(one) == 2 and type(one[0]) is int and type(one[1]) is str
        for one in events
    )


def unpack(text: bytes, behind: bytes) -> Any:
    """The message of a frame.

    Raises:
        FrameError: it holds what is not of the closed list.
    """
    try:
        return json.loads(text, object_hook=lambda found: _made(found, behind))
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise FrameError(f"engine: a frame cannot be read ({type(error).__name__})") from error


def _plain(value: Any, blobs: list[bytes]) -> Any:
    """A value as JSON: what JSON has no word for is an object with the only key ``$...``.

    So a dict that looks like one is given as its pairs.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list):
        return [_plain(one, blobs) for one in value]
    if isinstance(value, tuple):
        return {"$tuple": [_plain(one, blobs) for one in value]}
    if isinstance(value, dict):
        held = {str(key): _plain(one, blobs) for key, one in value.items()}
        marked = len(held) == 1 and next(iter(held)).startswith("$")
        return {"$dict": list(held.items())} if marked else held
    if isinstance(value, bytes):
        return {"$bytes": _behind(value, blobs)}
    if isinstance(value, np.ndarray):
        place = _behind(np.ascontiguousarray(value).tobytes(), blobs)
        return {"$array": [*place, value.dtype.str, list(value.shape)]}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Position):  # its state is code of a game: here it is what people read
        return _plain(Text(str(value.state)), blobs)
    if isinstance(value, Exception):
        return {"$error": _of_error(value)}
    if is_dataclass(value) and KINDS.get(type(value).__name__) is type(value):
        held = {f.name: _plain(getattr(value, f.name), blobs) for f in fields(value)}
        return {"$kind": [type(value).__name__, held]}
    raise TypeError(f"a {type(value).__name__} does not cross between processes")


def _behind(content: bytes, blobs: list[bytes]) -> list[int]:
    begin = sum(map(len, blobs))
    blobs.append(content)
    return [begin, len(content)]


def _made(found: dict[str, Any], behind: bytes) -> Any:
    if len(found) != 1:
        return found
    ((key, value),) = found.items()
    make = _MAKERS.get(key)
    return found if make is None else make(value, behind)


def _array(value: Any, behind: bytes) -> Any:
    begin, length, kind, shape = value
    dtype = np.dtype(kind)
    if dtype.hasobject:
        raise ValueError(kind)
    return np.frombuffer(behind[begin : begin + length], dtype).reshape(shape).copy()


def _kind(value: Any, behind: bytes) -> Any:  # noqa: ARG001 - one signature for all
    name, held = value
    return KINDS[name](**held)


def _of_error(error: Exception) -> list[Any]:
    """The name of its class, its line, and what a client is told beside it."""
    if isinstance(error, ApiError):
        told = [error.status, error.type, error.param, error.code]
        return ["ApiError", error.message, told]
    if isinstance(error, RequestError):
        return ["RequestError", str(error), [error.param]]
    if isinstance(error, ConstraintError):
        return ["ConstraintError", str(error), [error.param]]
    if isinstance(error, ModelwrightError):
        bases = (kind.__name__ for kind in type(error).__mro__)
        return [next(name for name in bases if name in ERRORS), str(error), []]
    return ["RuntimeError", repr(error)[:300], []]


def _error(value: Any, behind: bytes) -> Exception:  # noqa: ARG001 - one signature for all
    name, text, told = value
    if name == "ApiError":
        status, kind, param, code = told
        return ApiError(status, text, kind, param, code)
    if name == "RequestError":
        return RequestError(told[0], text.removeprefix(f"{told[0]}: "))
    if name == "ConstraintError":
        return ConstraintError(text, told[0])
    return ERRORS[name](text) if name in ERRORS else RuntimeError(text)


_MAKERS: dict[str, Callable[[Any, bytes], Any]] = {
    "$dict": lambda value, _: dict(value),
    "$tuple": lambda value, _: tuple(value),
    "$bytes": lambda value, behind: behind[value[0] : value[0] + value[1]],
    "$array": _array,
    "$kind": _kind,
    "$error": _error,
}


# Pipes -------------------------------------------------------------------------------------------


class Channel:
    """Two pipes: frames are sent by a thread of its own, so that ``send`` never waits.

    Events that wait to be sent go as one frame, so a step of the engine costs one at most.

    Args:
        inward: the descriptor to read; whoever made it closes it.
        outward: the descriptor to write, closed by ``close``.
        state: gives what is told every ``beat`` seconds; None: nothing is.
        beat: seconds.
    """

    def __init__(
        self,
        inward: int,
        outward: int,
        state: Callable[[], dict[str, Any]] | None = None,
        beat: float = 0.5,
    ) -> None:
        self._inward, self._outward = inward, outward
        self._state, self._beat = state, beat
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._poll = select.poll()
        self._poll.register(inward, select.POLLIN)
        self._got = bytearray()
        self._writer = threading.Thread(target=self._write, name="frames", daemon=True)
        self._writer.start()

    def send(self, message: dict[str, Any]) -> None:
        """Queue a message."""
        self._queue.put(message)

    def event(self, number: int, event: Any) -> None:
        """Queue an event of the request ``number``; those that wait together go together."""
        self._queue.put((number, event))

    def close(self) -> None:
        """Send what is queued, then no more."""
        self._queue.put(None)
        self._writer.join(timeout=10)

    def receive(self, seconds: float | None = None) -> Any | None:
        """The next message; None at the end of the pipe.

        Raises:
            TimeoutError: nothing at all came for so long.
            FrameError: no frame.
        """
        while True:
            if len(self._got) >= _HEAD.size:
                text, behind = _HEAD.unpack_from(self._got)
                if text + behind > MOST:
                    raise FrameError("engine: a frame is longer than any can be")
                end = _HEAD.size + text + behind
                if len(self._got) >= end:
                    content = bytes(self._got[_HEAD.size : end])
                    del self._got[:end]
                    return unpack(content[:text], content[text:])
            if not self._poll.poll(None if seconds is None else 1000 * seconds):
                raise TimeoutError
            part = os.read(self._inward, PART)
            if not part:
                return None
            self._got += part

    def _write(self) -> None:
        told = time.monotonic()
        try:
            while True:
                now = time.monotonic()
                if self._state is not None and now - told >= self._beat:
                    told = now
                    self._put({"state": self._state()})
                try:
                    first = self._queue.get(timeout=self._beat if self._state else None)
                except Empty:
                    continue
                if isinstance(first, tuple):
                    time.sleep(LINGER)  # those of the same step are about to come
                waiting = [first, *self._drained()]
                for message in self._framed(waiting):
                    self._put(message)
                if None in waiting:
                    return
        except OSError:
            pass  # nobody reads any more: whoever reads here learns it by the end of the pipe
        finally:
            os.close(self._outward)

    def _drained(self) -> Iterable[Any]:
        while True:
            try:
                yield self._queue.get_nowait()
            except Empty:
                return

    def _framed(self, waiting: list[Any]) -> list[dict[str, Any]]:
        """What waits as messages: all events as one, in their place."""
        messages: list[dict[str, Any]] = []
        for one in waiting:
            if isinstance(one, tuple):
                if not messages or "events" not in messages[-1]:
                    messages.append({"events": []})
                messages[-1]["events"].append(list(one))
            elif one is not None:
                messages.append(one)
        return messages

    def _put(self, message: dict[str, Any]) -> None:
        try:
            frame = pack(message)
        except (TypeError, ValueError) as error:  # who asked is told, and the others go on
            frame = pack({"id": message.get("id", 0), "error": RuntimeError(str(error))})
        rest = memoryview(frame)
        while rest:
            rest = rest[os.write(self._outward, rest) :]
