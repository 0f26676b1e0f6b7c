"""An engine for answers that come whole: labels, boxes, pictures, recordings.

What waits is answered together, as many questions at once as the model takes, so a busy server
has large batches and an idle one no delay.
"""

from __future__ import annotations

import base64
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from modelwright.errors import CorruptError, MachineError, ModelwrightError
from modelwright.serving import limits
from modelwright.serving.engine import EngineStoppedError, QueueFullError
from modelwright.serving.openai import ApiError
from modelwright.serving.row import Cancellable, Completion, Listener, Request, ignore
from modelwright.types import Answer, Turn

_log = logging.getLogger(__name__)


class Passing(Protocol):
    """A policy that answers whole.

    ``suffix`` is of the file that an answer is, empty where it is told; ``at_once`` how many
    questions of different requests it may be asked together: 1 where what it draws for a question
    depends on those beside it.
    """

    @property
    def suffix(self) -> str:
        """Of the file that an answer is."""
        ...

    @property
    def at_once(self) -> int:
        """Questions that may be asked together."""
        ...

    def detailed(self, given: Sequence[Sequence[Turn]], **params: Any) -> list[Answer]:
        """An answer for each question.

        Raises:
            ModelwrightError: it cannot read one of them.
        """
        ...

    def content(self, answer: Turn) -> bytes:
        """An answer as the content of a file that ends in ``suffix``."""
        ...

    def facts(self) -> dict[str, Any]:
        """What a client must know to ask, such as ``inputs``; see ``asking.facts``."""
        ...


@dataclass(eq=False)
class _Job:
    given: Sequence[Sequence[Turn]]
    params: Mapping[str, Any]
    begun: Callable[[], None]
    future: Future[list[Answer]] = field(default_factory=Future)

    def begin(self) -> bool:
        """Whether it is still wanted; from now on it cannot be cancelled."""
        wanted = self.future.set_running_or_notify_cancel()
        if wanted:
            self.begun()
        return wanted


class PassEngine:
    """Questions in, answers out, in one worker thread.

    Where a server speaks of text, one message is a question as ``question`` reads it, and its
    "tokens" are its bytes, so that they can be counted; sampling settings change nothing.

    Args:
        policy: what answers.
        question: the turns of a typed question; no file is read for it.
        max_waiting: requests that wait.
    """

    context = limits.TEXT
    temperature = 0.0

    def __init__(
        self,
        policy: Passing,
        question: Callable[[str], Sequence[Turn]],
        *,
        max_waiting: int = 64,
    ) -> None:
        self.policy, self.question, self.max_waiting = policy, question, max_waiting
        self._changed = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._worker: threading.Thread | None = None
        self._stopping = False
        self._stopped = False
        self.running = 0

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._jobs)

    @property
    def alive(self) -> bool:
        """Whether requests are taken."""
        return self._worker is not None and self._worker.is_alive() and not self._stopping

    @property
    def died(self) -> bool:
        """Whether the worker has ended though nobody stopped it; ``start`` starts another."""
        return self._worker is not None and not self._worker.is_alive() and not self._stopped

    def start(self) -> None:
        """Take requests; harmless when it runs."""
        with self._changed:
            if self._worker is None or not self._worker.is_alive():
                self._stopping = self._stopped = False
                self._worker = threading.Thread(target=self._work, name="passes", daemon=True)
                self._worker.start()

    def stop(self, drain_seconds: float = 0.0) -> None:  # noqa: ARG002 - an answer is not cut
        """Take no more requests, and finish the others."""
        with self._changed:
            self._stopping = self._stopped = True
            self._changed.notify_all()
        if self._worker is not None:
            self._worker.join()

    def ask(
        self,
        given: Sequence[Sequence[Turn]],
        params: Mapping[str, Any] | None = None,
        begun: Callable[[], None] = lambda: None,
    ) -> Future[list[Answer]]:
        """Queue questions; the future gives an answer for each.

        It may be cancelled until its turn comes, which ``begun`` is told in the worker's thread.

        Raises:
            QueueFullError: too many requests wait.
            EngineStoppedError: it is not running.
        """
        job = _Job(given, params or {}, begun)
        with self._changed:
            if not self.alive:
                raise EngineStoppedError("the engine is not running; start the server again")
            if len(self._jobs) + self.running >= self.max_waiting:
                raise QueueFullError(
                    f"{self.max_waiting} requests wait already; try again in a moment"
                )
            self._jobs.append(job)
            self._changed.notify_all()
        job.future.add_done_callback(lambda _: self._forget(job))
        return job.future

    def _forget(self, job: _Job) -> None:
        """Free the place of a question that was given up while it waited."""
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)

    def follow(
        self,
        turns: Sequence[Turn],
        params: Mapping[str, Any],
        looks: int,
        listener: Listener,
    ) -> Cancellable:
        """Queue a question, and hear of its answer while it is made.

        The listener is told up to ``looks`` unfinished pictures, or the pieces of a transcript,
        and then the answer as a completion; what is a file as base64.

        Raises:
            QueueFullError: too many requests wait.
            EngineStoppedError: it is not running.
        """

        def told(turn: Turn) -> str:
            if not self.policy.suffix:
                return turn.said
            return base64.b64encode(self.policy.content(turn)).decode()

        def seen(_: int, turn: Turn) -> None:
            listener(told(turn))

        began = time.perf_counter()
        future = self.ask([turns], {**params, "looks": looks, "seen": seen})
        future.add_done_callback(partial(_completed, told, began, listener, 0))
        return future

    @property
    def embed(self) -> Callable[[Sequence[str]], tuple[list[list[float]], int]] | None:
        """What makes vectors of texts, where the model does."""
        found: Callable[[Sequence[str]], tuple[list[list[float]], int]] | None
        found = getattr(self.policy, "embed", None)
        return found

    # As an engine of text --------------------------------------------------------------------

    def prompt(self, turns: Sequence[Turn]) -> list[int]:
        """The bytes of the only message.

        Raises:
            ApiError: several messages, or answers that are no text.
        """
        problem = ""
        if len(turns) != 1:
            problem = "this model answers one question at a time; send one message of a user"
        if self.policy.suffix:
            problem = "this model's answers are files; ask at /predict"
        if problem:
            raise ApiError(400, problem, param="messages", code="unsupported_parameter")
        return list(turns[0].text.encode())

    def given(self, tokens: Sequence[int]) -> tuple[list[int], str]:  # noqa: ARG002
        """Nothing: what reads a question reads its text.

        Raises:
            ApiError: always.
        """
        raise no_tokens("prompt")

    def submit(self, request: Request, listener: Listener = ignore) -> Future[list[Answer]]:
        """Queue a question; the listener is told the answer, and then that it is complete.

        Raises:
            ApiError: the question cannot be read.
            QueueFullError: too many requests wait.
            EngineStoppedError: it is not running.
        """
        asked, began = bytes(request.tokens), time.perf_counter()
        try:
            future = self.ask([self.question(asked.decode())])
        except (EngineStoppedError, QueueFullError):
            raise
        except ModelwrightError as error:
            raise _unreadable(error) from error

        def said(turn: Turn) -> str:
            listener(turn.said)
            return turn.said

        future.add_done_callback(partial(_completed, said, began, listener, len(asked)))
        return future

    # In the worker ---------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while (jobs := self._next()) is not None:
                self._answer(jobs)
        except BaseException:
            _log.exception("the engine has died")
        finally:
            with self._changed:
                self._stopping = True
                left, self.running = list(self._jobs), 0
                self._jobs.clear()
            for job in left:
                _fail(job, EngineStoppedError("the engine stopped before the answer was done"))

    def _next(self) -> list[_Job] | None:
        """Wait for questions: those that can be answered together; None at the end."""
        with self._changed:
            self.running = 0
            while not (self._jobs or self._stopping):
                self._changed.wait(timeout=1.0)
            if not self._jobs:
                return None
            jobs = [self._jobs.popleft()]
            count = len(jobs[0].given)
            while self._jobs and self._jobs[0].params == jobs[0].params:
                count += len(self._jobs[0].given)
                if count > self.policy.at_once:
                    break
                jobs.append(self._jobs.popleft())
            self.running = len(jobs)
        return [job for job in jobs if job.begin()]

    def _answer(self, jobs: Sequence[_Job]) -> None:
        if not jobs:
            return
        try:
            given = [turns for job in jobs for turns in job.given]
            found = iter(self.policy.detailed(given, **jobs[0].params))
            for job in jobs:
                job.future.set_result([next(found) for _ in job.given])
        except Exception as error:
            if len(jobs) == 1:
                _fail(jobs[0], error)
                return
            for job in jobs:  # one bad question must not be the others' fault
                self._answer([job])
        except BaseException:
            for job in jobs:
                _fail(job, EngineStoppedError("the engine stopped before the answer was done"))
            raise


def _completed(
    spoken: Callable[[Turn], str],
    began: float,
    listener: Listener,
    tokens: int,
    done: Future[list[Answer]],
) -> None:
    """Tell a listener the end of a question of so many tokens."""
    if done.cancelled():
        return
    error = done.exception()
    if error is not None:
        readable = isinstance(error, ModelwrightError)
        listener(_unreadable(error) if readable else RuntimeError(repr(error)))
        return
    said = spoken(done.result()[0].turn)
    seconds = time.perf_counter() - began
    listener(Completion([], said, "stop", tokens, seconds))


def no_tokens(param: str) -> ApiError:
    """What is said to tokens in place of a text."""
    message = f"{param}: this model reads texts; send the text itself, not ids of tokens"
    return ApiError(400, message, param=param, code="unsupported_parameter")


def _fail(job: _Job, error: Exception) -> None:
    if not job.future.done() and not job.future.cancelled():
        job.future.set_exception(error)


def _unreadable(error: BaseException) -> Exception:
    if isinstance(error, ApiError | EngineStoppedError | QueueFullError):
        return error
    if isinstance(error, CorruptError | MachineError):  # the server's own, and not for a client
        return RuntimeError(str(error))
    return ApiError(400, str(error), param="messages", code="invalid_question")
