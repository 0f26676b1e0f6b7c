"""The engine's side of two processes: an engine answers what comes in frames.

It ends when its input ends, so that no engine outlives its server, and is deaf to the signals that
stop servers: the one in front says when.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from modelwright.errors import EXIT_OK, ModelwrightError
from modelwright.serving.asking import plain
from modelwright.serving.openai import ApiError
from modelwright.serving.passes import PassEngine
from modelwright.serving.row import Completion, Event
from modelwright.serving.service import Answering
from modelwright.serving.wire import Channel
from modelwright.types import Answer, ImageFile, Turn

ASKED = "asked"  # the role of a typed question that the task has yet to read
BEGUN = None  # the event of a question whose turn has come
LATER = object()  # in place of a reply that comes by itself
THREADS = 4  # for texts to be tokenised and grammars to be compiled beside the engine

Command = Callable[..., Any]

_log = logging.getLogger(__name__)


def run(
    made: Callable[[], tuple[Answering, Mapping[str, Command]]], inward: int, outward: int
) -> int:
    """Make an engine, say what it is, and answer until the input ends.

    Args:
        made: gives the engine and what else it can be told to do, by name.
        inward: the descriptor of the pipe with requests.
        outward: the descriptor of the pipe for answers.

    Returns:
        The exit code.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    program: list[_Program] = []
    channel = Channel(inward, outward, lambda: program[0].state() if program else {})
    try:
        engine, commands = made()
    except ModelwrightError as error:
        channel.send({"failed": str(error), "exit": error.exit_code})
        channel.close()
        return error.exit_code
    program.append(_Program(engine, commands, channel))
    program[0].serve()
    return EXIT_OK


def facts(engine: Answering) -> dict[str, Any]:
    """What a server must know of an engine in another process."""
    known: dict[str, Any] = {
        "pid": os.getpid(),
        "context": engine.context,
        "temperature": engine.temperature,
        "embeds": getattr(engine, "embed", None) is not None,
        "adapts": hasattr(engine, "adapters"),
        "policy": None,
    }
    if isinstance(engine, PassEngine):
        policy = engine.policy
        known["policy"] = {
            "suffix": policy.suffix, "at_once": policy.at_once, "facts": plain(policy.facts()),
        }  # fmt: skip
    return known


class _Program:
    """Reads messages and does what they say."""

    def __init__(
        self, engine: Answering, commands: Mapping[str, Command], channel: Channel
    ) -> None:
        self._engine, self._commands, self._channel = engine, commands, channel
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="asked")
        self._lock = threading.Lock()
        self._begun: dict[int, Any] = {}  # what can be cancelled; None: about to begin

    def state(self) -> dict[str, Any]:
        """What is so now; the engine's own gauges too."""
        engine = self._engine
        own: dict[str, float] = getattr(engine, "gauges", dict)()
        return {
            "alive": engine.alive, "running": engine.running, "waiting": engine.waiting,
            "died": bool(getattr(engine, "died", False)), "gauges": own,
        }  # fmt: skip

    def serve(self) -> None:
        """Answer until the input ends or says so."""
        self._engine.start()
        self._channel.send({"facts": facts(self._engine), "state": self.state()})
        try:
            while (message := self._channel.receive()) is not None:
                if "error" in message:  # a question that could not be written
                    self._channel.send(message)
                    continue
                do = message["do"]
                if do == "stop":
                    break
                if do == "cancel":
                    self._cancel(message["id"])
                else:
                    if do in ("submit", "ask", "follow"):
                        with self._lock:
                            self._begun[message["id"]] = None
                    self._pool.submit(self._answer, do, message)
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._engine.stop()
            self._channel.close()

    def _answer(self, do: str, message: dict[str, Any]) -> None:
        number = message["id"]
        try:
            reply = {"id": number, "is": getattr(self, f"_{do}_")(number, message)}
        except Exception as error:
            if not isinstance(error, ModelwrightError | ApiError):
                _log.exception("a request of the server failed: %s", do)
            self._over(number)
            reply = {"id": number, "error": error}
        if reply.get("is") is not LATER:
            self._channel.send(reply)

    def _cancel(self, number: int) -> None:
        with self._lock:
            begun = self._begun.pop(number, None)
        if begun is not None:
            begun.cancel()

    def _noted(self, number: int, begun: Any) -> None:
        """It can be cancelled from now on, or was already, or is over."""
        with self._lock:
            wanted = number in self._begun
            if wanted:
                self._begun[number] = begun
        if not wanted:
            begun.cancel()

    def _over(self, number: int) -> None:
        with self._lock:
            self._begun.pop(number, None)

    # What can be asked; each is given its number and the message ----------------------------------

    def _prompt_(self, _: int, message: dict[str, Any]) -> list[int]:
        return self._engine.prompt(message["turns"])

    def _given_(self, _: int, message: dict[str, Any]) -> tuple[list[int], str]:
        return self._engine.given(message["tokens"])

    def _question_(self, _: int, message: dict[str, Any]) -> bool:
        self._read([Turn(ASKED, message["turns"][0].parts)])
        return True

    def _embed_(self, _: int, message: dict[str, Any]) -> Any:
        embed = getattr(self._engine, "embed", None)
        if embed is None:
            raise ModelwrightError("model: it gives no vectors of texts")
        vectors, count = embed(message["texts"])
        return (vectors, count)

    def _command_(self, _: int, message: dict[str, Any]) -> Any:
        return self._commands[message["name"]](**message["given"])

    def _submit_(self, number: int, message: dict[str, Any]) -> bool:
        listen = partial(self._heard, number)
        self._noted(number, self._engine.submit(message["request"], listen))
        return True

    def _follow_(self, number: int, message: dict[str, Any]) -> bool:
        engine = self._engine
        assert isinstance(engine, PassEngine)  # noqa: S101 - its facts said so
        turns, listen = self._read(message["turns"]), partial(self._heard, number)
        self._noted(number, engine.follow(turns, message["params"], message["looks"], listen))
        return True

    def _heard(self, number: int, event: Event) -> None:
        if isinstance(event, Completion | Exception):
            self._over(number)
        self._channel.event(number, event)

    def _ask_(self, number: int, message: dict[str, Any]) -> object:
        engine = self._engine
        assert isinstance(engine, PassEngine)  # noqa: S101 - its facts said so
        given = [self._read(turns) for turns in message["given"]]
        begun = partial(self._channel.event, number, BEGUN)
        future = engine.ask(given, message["params"], begun)
        self._noted(number, future)
        future.add_done_callback(lambda done: self._asked(number, done))
        return LATER

    def _asked(self, number: int, done: Future[list[Answer]]) -> None:
        self._over(number)
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            self._channel.send({"id": number, "error": error})
            return
        self._channel.send({"id": number, "is": [self._crossing(a) for a in done.result()]})

    def _read(self, turns: Sequence[Turn]) -> Sequence[Turn]:
        """The turns of a question, which the task reads where it was typed."""
        engine = self._engine
        if isinstance(engine, PassEngine) and len(turns) == 1 and turns[0].role == ASKED:
            return engine.question(turns[0].text)
        return turns

    def _crossing(self, answer: Answer) -> Answer:
        """An answer as it crosses: one that is a file as the file."""
        engine, turn = self._engine, answer.turn
        assert isinstance(engine, PassEngine)  # noqa: S101 - as above
        if suffix := engine.policy.suffix:
            turn = Turn(turn.role, (ImageFile(engine.policy.content(turn), suffix),))
        return Answer(turn, plain(answer.details))


def descriptors(given: str) -> tuple[int, int]:
    """The two pipes that a server gave its engine's program, such as ``7,10``."""
    with contextlib.suppress(ValueError):
        inward, outward = (int(one) for one in given.split(","))
        if inward > 2 < outward:
            return inward, outward
    raise ModelwrightError(
        f"pipes: {given!r} are no two descriptors; `modelwright serve` gives them"
    )
