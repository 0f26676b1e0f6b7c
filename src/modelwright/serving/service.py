"""What the routes of one server share: who answers, its limits, its counts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from modelwright.errors import ModelwrightError
from modelwright.serving.asking import Asking
from modelwright.serving.constraint import ConstraintError
from modelwright.serving.engine import (
    ContextLengthError,
    EngineStoppedError,
    QueueFullError,
    Request,
    RequestError,
)
from modelwright.serving.limits import Limits
from modelwright.serving.metrics import GAUGES, Metrics
from modelwright.serving.openai import ApiError
from modelwright.serving.passes import PassEngine
from modelwright.serving.row import Cancellable, Listener
from modelwright.types import Turn


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

    def given(self, tokens: Sequence[int]) -> tuple[list[int], str]:
        """What a request of the tokens of a document holds, and their text."""
        ...

    def submit(self, request: Request, listener: Listener) -> Cancellable:
        """Queue a request; the listener is told its text, and at last a Completion."""
        ...


class DeadlineError(ModelwrightError):
    """An answer took longer than the server lets it."""


@dataclass
class Service:
    """One engine under one name, with what is counted of it.

    ``draining`` is set when the server is told to stop: what is under way is finished. ``adapters``
    are those that it may be asked for, with the time at which they came; ``asking`` reads the
    questions of an engine that answers whole.
    """

    engine: Answering
    name: str
    limits: Limits = field(default_factory=Limits)
    metrics: Metrics = field(default_factory=Metrics)
    created: int = field(default_factory=lambda: int(time.time()))
    draining: bool = False
    adapters: dict[str, int] = field(default_factory=dict)
    asking: Asking | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if isinstance(self.engine, PassEngine):
            self.asking = Asking(self.engine.question)
            self.engine.question = self.asking.typed

    def stop(self, drain_seconds: float = 0.0) -> None:
        """Take no more, and end what decodes its questions; what is under way may take so long."""
        self.engine.stop(drain_seconds)
        if self.asking is not None:
            self.asking.decoder.stop()

    def gauges(self) -> dict[str, float]:
        """What is so now; an engine may tell more of itself than that."""
        engine = self.engine
        own: dict[str, float] = getattr(engine, "gauges", dict)()
        counts = {"num_requests_running": engine.running, "num_requests_waiting": engine.waiting}
        return {name: value for name, value in {**counts, **own}.items() if name in GAUGES}


def unavailable() -> ApiError:
    """What is said when the engine does not run."""
    message = "the engine is not running; try again when the server has started anew"
    return ApiError(503, message, "unavailable_error", code="engine_stopped")


def refusal(error: Exception, param: str | None = None) -> ApiError | None:
    """What a client is told about an error of the engine; None: it is a fault of the server."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ContextLengthError):
        return ApiError(400, str(error), param=param, code="context_length_exceeded")
    if isinstance(error, ConstraintError):
        message = f"{error.param}: {error}"
        return ApiError(400, message, param=error.param, code="invalid_value")
    if isinstance(error, RequestError):
        return ApiError(400, str(error), param=error.param, code="invalid_value")
    if isinstance(error, QueueFullError):
        wait = (("Retry-After", "1"),)
        return ApiError(429, str(error), "rate_limit_error", code="queue_full", headers=wait)
    if isinstance(error, DeadlineError):
        return ApiError(504, str(error), "timeout_error", code="deadline_exceeded")
    return unavailable() if isinstance(error, EngineStoppedError) else None
