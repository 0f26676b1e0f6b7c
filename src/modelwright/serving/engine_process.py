"""An engine in a process of its own, as the server in front of it sees it.

A crash, a signal or a hang of the engine is then an error of the requests in it, not the end of
the server: their clients are told, ``/health`` is 503 meanwhile, and the engine is started again.

An engine that says nothing for ``silent`` seconds is not ``alive``; after ``hung`` it is killed. It
says something twice a second, whatever it computes, and whether its steps advance.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from modelwright.errors import MachineError, error_of
from modelwright.serving.engine import EngineStoppedError
from modelwright.serving.engine_program import ASKED, BEGUN
from modelwright.serving.passes import PassEngine
from modelwright.serving.prompts import Given
from modelwright.serving.row import Completion, Listener, Request
from modelwright.serving.wire import Channel, FrameError
from modelwright.types import Answer, ImageFile, Text, Turn

STOP_SECONDS = 5.0  # for the engine to end by itself

_log = logging.getLogger(__name__)


class EngineProcess:
    """The process and what waits for its answers. Any thread may ask.

    Args:
        command: starts the program; the descriptors of its two pipes are put behind it, ``7,10``.
        silent: seconds without a word from which it is not alive.
        hung: seconds without a word from which it is killed.
        start: seconds until it must have said what it is.

    Raises:
        ModelwrightError, MachineError: what the program says that it cannot start for.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        silent: float = 5.0,
        hung: float = 10.0,
        start: float = 600.0,
    ) -> None:
        self._command, self._silent, self._hung = list(command), silent, hung
        self._start_seconds = start
        self._lock = threading.Lock()
        self._numbers = 0
        self._replies: dict[int, Future[Any]] = {}
        self._listeners: dict[int, Listener] = {}
        self._again: dict[str, dict[str, Any]] = {}  # commands that a new process is given first
        self._owed: set[int] = set()  # of these, what it has not yet said to have done
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._stopped = False
        self._heard = time.monotonic()
        self.state: dict[str, Any] = {}
        self.facts: dict[str, Any] = {}
        self._begin(first=True)

    @property
    def pid(self) -> int:
        """Of the process that runs now, or ran last."""
        return self._process.pid if self._process else 0

    @property
    def silence(self) -> float:
        """Seconds since it last said something."""
        return time.monotonic() - self._heard

    @property
    def alive(self) -> bool:
        """Whether it runs, has spoken lately, and its engine makes steps."""
        speaks = self._channel is not None and self.silence < self._silent
        return speaks and self._well and not self._owed

    @property
    def _well(self) -> bool:
        return bool(self.state.get("alive"))

    @property
    def died(self) -> bool:
        """Whether it has ended though nobody stopped it."""
        ended = self._process is not None and self._process.poll() is not None
        return ended and self._channel is None and not self._stopped

    # Its life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it where it does not run; returns before it is ready."""
        self._stopped = False
        if self._process is not None and self._channel is None:
            self._begin()

    def stop(self, drain_seconds: float = 0.0) -> None:
        """End it; what is under way may take so long, and is then given up."""
        self._stopped = True
        until = time.monotonic() + drain_seconds
        while (self._listeners or self._replies) and time.monotonic() < until:
            time.sleep(0.05)
        process, channel = self._process, self._channel
        if process is None:
            return
        if channel is not None:
            channel.send({"do": "stop"})
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _begin(self, *, first: bool = False) -> None:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        try:
            process = subprocess.Popen(  # noqa: S603 - this Python, a program of ours
                [*self._command, f"{theirs_in},{theirs_out}"],
                pass_fds=(theirs_in, theirs_out),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a terminal's Ctrl-C is the server's to judge
            )
        except OSError as error:
            for descriptor in (ours_in, ours_out):
                os.close(descriptor)
            raise MachineError(f"the engine's process cannot be started: {error}") from error
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        self._heard, self.state, self._owed = time.monotonic(), {}, set()
        channel = Channel(ours_in, ours_out)
        self._process, self._channel = process, channel
        ready: Future[None] = Future()
        reader = threading.Thread(
            target=self._read, args=(process, channel, ours_in, ready), name="answers", daemon=True
        )
        reader.start()
        if first:
            ready.result()

    def _read(
        self,
        process: subprocess.Popen[bytes],
        channel: Channel,
        inward: int,
        ready: Future[None],
    ) -> None:
        """Hand on what the process says; however that ends, nobody is left waiting."""
        why: Exception = MachineError("the engine's process ended before it was ready")
        failed = False
        try:
            patience = self._start_seconds
            while (message := channel.receive(patience)) is not None:
                self._heard = time.monotonic()
                if "failed" in message:
                    why = error_of(message["exit"], message["failed"])
                    failed = True
                    break
                if "facts" in message:
                    self.facts, patience = message["facts"], self._hung
                    self._owed = set(range(-len(self._again), 0))
                    for number, given in zip(self._owed, self._again.values(), strict=True):
                        channel.send({"do": "command", "id": number, **given})
                    ready.set_result(None)
                self._take(message)
                if self.state.get("died") or (self.facts and ready.done() and self._hangs()):
                    _log.error("the engine makes no steps any more; it is killed")
                    break
        except TimeoutError:
            _log.error("the engine has said nothing for %g seconds; it is killed", patience)
        except (FrameError, OSError):
            _log.exception("the engine's process cannot be understood; it is killed")
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS if self._stopped else 0)
            process.kill()
            code = process.wait()
            channel.close()
            os.close(inward)
            if not (self._stopped or failed):
                _log.error("the engine's process %d has ended with code %d", process.pid, code)
            self._channel = None
            self._give_up()
            if not ready.done():
                ready.set_exception(why)

    def _hangs(self) -> bool:
        """Whether its engine has stopped making steps, by its own word."""
        return bool(self.state) and not self._well and not self._stopped

    def _take(self, message: dict[str, Any]) -> None:
        self.state = message.get("state") or self.state
        for number, event in message.get("events", ()):
            over = event is BEGUN or isinstance(event, Completion | Exception)
            with self._lock:
                listener = self._listeners.get(number)
                if over:
                    self._listeners.pop(number, None)
            if listener is not None:
                listener(event)
        if message.get("id", 0) < 0:
            self._owed.discard(message["id"])
            if "error" in message:
                _log.error("an engine that was started again: %s", message["error"])
        elif "id" in message:
            with self._lock:
                future = self._replies.pop(message["id"], None)
                if "error" in message:
                    self._listeners.pop(message["id"], None)
            if future is None or not _running(future):
                return
            if "error" in message:
                future.set_exception(message["error"])
            else:
                future.set_result(message["is"])

    def _give_up(self, numbers: Collection[int] | None = None) -> None:
        """Tell who waits for these questions, or for any, that no answer will come."""
        with self._lock:
            asked = {*self._replies, *self._listeners} if numbers is None else numbers
            replies = [self._replies.pop(n) for n in asked if n in self._replies]
            listeners = [self._listeners.pop(n) for n in asked if n in self._listeners]
        for future in replies:
            if _running(future):
                future.set_exception(_ended())
        for listener in listeners:
            listener(_ended())

    # What it is asked ----------------------------------------------------------------------------

    def begun(
        self, do: str, future: Future[Any] | None = None, **given: Any
    ) -> tuple[int, Future[Any]]:
        """Ask, with the number of the question, and the ``future`` that gets the reply."""
        future = future or Future()
        with self._lock:
            channel = self._channel
            if channel is None or not self.facts or self._stopped or not self.alive:
                raise EngineStoppedError("the engine is not running; try again in a moment")
            self._numbers += 1
            number = self._numbers
            self._replies[number] = future
            if "listener" in given:
                self._listeners[number] = given.pop("listener")
        channel.send({"do": do, "id": number, **given})
        if self._channel is not channel:  # it ended meanwhile, perhaps after all were told
            self._give_up([number])  # others may be of the next process
        return number, future

    def asked(self, do: str, **given: Any) -> Any:
        """Ask and wait for the reply.

        Raises:
            EngineStoppedError: the engine is not there, or ends before it replies.
            ModelwrightError: what the engine says against it.
        """
        return self.begun(do, **given)[1].result()

    def cancel(self, number: int, *, told: bool = False) -> None:
        """Give up a request; nobody is told of it any more, or only what it had come to."""
        channel = self._channel
        with self._lock:
            known = number in self._listeners or number in self._replies
            self._replies.pop(number, None)
            if not told:
                self._listeners.pop(number, None)
        if channel is not None and known:
            channel.send({"do": "cancel", "id": number})

    def command(self, name: str, /, key: str = "", **given: Any) -> Any:
        """Let the program do something of its own.

        With a ``key``, a process that is started later is told the same, unless ``forget`` is.
        """
        found = self.asked("command", name=name, given=given)
        if key:
            self._again[key] = {"name": name, "given": given}
        return found

    def forget(self, key: str) -> None:
        """Tell later processes no more what was told under a key."""
        self._again.pop(key, None)


def _running(future: Future[Any]) -> bool:
    """Whether nobody has given it up; from now on nobody can."""
    if future.running():
        return True
    return not future.cancelled() and future.set_running_or_notify_cancel()


def _ended() -> EngineStoppedError:
    return EngineStoppedError("the engine stopped before the answer was done")


class _Handle:
    """A request in the engine's process; of text, which says at last what it has come to."""

    def __init__(self, process: EngineProcess, number: int, *, text: bool) -> None:
        self._process, self._number, self._text = process, number, text

    def cancel(self) -> None:
        """Give it up."""
        self._process.cancel(self._number, told=self._text)


class _Remote:
    """What is asked of every engine in a process of its own."""

    process: EngineProcess

    @property
    def waiting(self) -> int:
        """How many requests wait, as it said last."""
        return int(self.process.state.get("waiting", 0))

    @property
    def alive(self) -> bool:
        """Whether requests are taken and answered."""
        return self.process.alive

    @property
    def died(self) -> bool:
        """Whether the process has ended though nobody stopped it."""
        return self.process.died

    @property
    def embed(self) -> Callable[[Sequence[Given]], tuple[list[list[float]], int]] | None:
        """What makes vectors of texts, where the model does."""
        return self._embed if self.process.facts["embeds"] else None

    def _embed(self, texts: Sequence[Given]) -> tuple[list[list[float]], int]:
        vectors, count = self.process.asked("embed", texts=list(texts))
        return vectors, count

    def _followed(self, do: str, **given: Any) -> _Handle:
        """Ask for what is told to a listener, once it is queued."""
        number, accepted = self.process.begun(do, **given)
        try:
            accepted.result()
        except BaseException:
            self.process.cancel(number)
            raise
        return _Handle(self.process, number, text=do == "submit")

    def start(self) -> None:
        """Start the process where it does not run; returns before it is ready."""
        self.process.start()

    def stop(self, drain_seconds: float = 0.0) -> None:
        """End it; what is under way may take so long before."""
        self.process.stop(drain_seconds)


class RemoteEngine(_Remote):
    """An engine of text in a process of its own; see ``service.Answering``."""

    def __init__(self, process: EngineProcess) -> None:
        self.process = process
        self.context: int = process.facts["context"]
        self.temperature: float = process.facts["temperature"]

    @property
    def running(self) -> int:
        """How many requests are being answered, as it said last."""
        return int(self.process.state.get("running", 0))

    @property
    def adapts(self) -> bool:
        """Whether it takes adapters by request."""
        return bool(self.process.facts["adapts"])

    def gauges(self) -> dict[str, float]:
        """The engine's own, and how long it has been silent."""
        own: dict[str, float] = dict(self.process.state.get("gauges", {}))
        if "engine_heartbeat_seconds" in own:
            own["engine_heartbeat_seconds"] += self.process.silence
        return own

    def prompt(self, turns: Sequence[Turn]) -> list[int]:
        """What a request of these turns holds."""
        found: list[int] = self.process.asked("prompt", turns=list(turns))
        return found

    def given(self, tokens: Sequence[int]) -> tuple[list[int], str]:
        """What a request of the tokens of a document holds, and their text."""
        held, text = self.process.asked("given", tokens=list(tokens))
        return held, text

    def submit(self, request: Request, listener: Listener) -> _Handle:
        """Queue a request; the listener is told its text, and at last a Completion."""
        return self._followed("submit", request=request, listener=listener)


class _RemotePolicy:
    """What a server asks of a policy that answers whole, in a process of its own."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.suffix: str = facts["suffix"]
        self.at_once: int = facts["at_once"]
        self._facts: dict[str, Any] = facts["facts"]

    def facts(self) -> dict[str, Any]:
        """What a client must know to ask."""
        return dict(self._facts)

    def content(self, answer: Turn) -> bytes:
        """The file that an answer is: it crossed as one."""
        (file,) = (part for part in answer.parts if isinstance(part, ImageFile))
        return file.content

    def detailed(self, given: Sequence[Sequence[Turn]], **params: Any) -> list[Answer]:  # noqa: ARG002
        """Not here: questions go through ``RemotePasses.ask``."""
        raise EngineStoppedError("the engine is in another process; ask it there")


class RemotePasses(_Remote, PassEngine):
    """An engine of whole answers in a process of its own."""

    def __init__(self, process: EngineProcess) -> None:
        super().__init__(_RemotePolicy(process.facts["policy"]), self._typed)
        self.process = process

    def gauges(self) -> dict[str, float]:
        """How many are being answered, as it said last."""
        return {"num_requests_running": self.process.state.get("running", 0)}

    def ask(
        self,
        given: Sequence[Sequence[Turn]],
        params: Mapping[str, Any] | None = None,
        begun: Callable[[], None] = lambda: None,
    ) -> Future[list[Answer]]:
        """Queue questions; the future gives an answer for each, and runs when their turn comes."""
        future: Future[list[Answer]] = Future()

        def heard(event: object) -> None:
            if event is BEGUN and _running(future):
                begun()

        asked = {"given": [list(turns) for turns in given], "params": dict(params or {})}
        number, _ = self.process.begun("ask", future, listener=heard, **asked)
        future.add_done_callback(lambda _: self.process.cancel(number))  # where it is not over
        return future

    def follow(
        self, turns: Sequence[Turn], params: Mapping[str, Any], looks: int, listener: Listener
    ) -> _Handle:
        """Queue a question, and hear of its answer while it is made."""
        given = {"turns": list(turns), "params": dict(params), "looks": looks}
        return self._followed("follow", **given, listener=listener)

    def _typed(self, text: str) -> Sequence[Turn]:
        """A question as it was typed, once the task has said that it can read it."""
        turns = (Turn(ASKED, (Text(text),)),)
        self.process.asked("question", turns=list(turns))
        return turns


def remote(command: Iterable[str], **settings: float) -> RemoteEngine | RemotePasses:
    """The engine that a program makes, in a process of its own; see ``EngineProcess``."""
    process = EngineProcess(list(command), **settings)
    whole = process.facts["policy"] is not None
    return RemotePasses(process) if whole else RemoteEngine(process)
