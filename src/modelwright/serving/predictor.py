"""Answers that one pass of the model gives: labels, numbers, tags; with the codec of training."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.serving.batch import Completion, Listener, Request, ignore
from modelwright.serving.engine import EngineStoppedError, QueueFullError
from modelwright.serving.openai import MAX_TEXT, ApiError
from modelwright.types import Codec, Columns, Example, Objective, Turn, stack

AT_ONCE = 64  # questions in one pass


class _Decoding(Protocol):
    labels: list[str]

    def decode(self, outputs: Tensor) -> list[Turn]: ...

    def probabilities(self, logits: Tensor) -> Tensor: ...


def predicts(codec: Codec) -> bool:
    """Whether a model's outputs are answers as they stand: its codec reads them."""
    return hasattr(codec, "decode")


class Predictor:
    """A policy that answers with what the codec reads from the model's outputs.

    An objective that asks the model in another way than ``model(**inputs)`` offers
    ``predict(model, batch)``, which gives outputs (B, ...) as its codec's ``decode`` reads them.
    """

    def __init__(self, model: nn.Module, codec: Codec, objective: Objective) -> None:
        self.model, self.codec, self.objective = model, codec, objective

    def answer(self, given: Sequence[Sequence[Turn]]) -> list[Turn]:
        """One answer for each question."""
        parts = (given[i : i + AT_ONCE] for i in range(0, len(given), AT_ONCE))
        return [turn for part in parts for turn in self.answer_columns(self._columns(part))]

    def probabilities(self, given: Sequence[Sequence[Turn]]) -> list[dict[str, float]]:
        """For each question the probability of every label, the likeliest first."""
        codec = cast(_Decoding, self.codec)
        rows = codec.probabilities(self._outputs(self._columns(given))).tolist()
        return [
            dict(sorted(zip(codec.labels, row, strict=True), key=lambda pair: -pair[1]))
            for row in rows
        ]

    def answer_columns(self, columns: Columns) -> list[Turn]:
        """One answer for each stored example."""
        return cast(_Decoding, self.codec).decode(self._outputs(columns))

    def _columns(self, given: Sequence[Sequence[Turn]]) -> Columns:
        encoded = [self.codec.encode(Example(tuple(turns))) for turns in given]
        return stack(encoded, self.codec.ragged)

    def _outputs(self, columns: Columns) -> Tensor:
        device = next(self.model.parameters()).device
        generator = torch.Generator().manual_seed(0)
        with torch.inference_mode():
            batch = self.objective.collate(columns, generator).to(device)
            if hasattr(self.objective, "predict"):
                outputs: Tensor = self.objective.predict(self.model, batch)
            else:
                outputs = self.model(**batch.inputs)
            return outputs


class PredictorEngine:
    """A predictor where the server expects an engine: one message in, one answer out.

    A request's "tokens" are the bytes of its question, so that they can be counted. Sampling
    settings change nothing: there is nothing to draw.
    """

    context = MAX_TEXT
    temperature = 0.0

    def __init__(
        self,
        predictor: Predictor,
        question: Callable[[str], Sequence[Turn]],
        *,
        max_waiting: int = 64,
    ) -> None:
        self.predictor, self.question, self.max_waiting = predictor, question, max_waiting
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self.waiting = 0

    @property
    def running(self) -> int:
        """Requests are answered one by one, within milliseconds: none is on its way."""
        return 0

    @property
    def alive(self) -> bool:
        """Whether requests are taken."""
        return self._pool is not None

    def start(self) -> None:
        """Take requests."""
        self._pool = self._pool or ThreadPoolExecutor(1, thread_name_prefix="predictor")

    def stop(self, drain_seconds: float = 0.0) -> None:  # noqa: ARG002 - answers take no time
        """Take no more requests, and finish the others."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()

    def prompt(self, turns: Sequence[Turn]) -> list[int]:
        """The bytes of the only message.

        Raises:
            ApiError: several messages, or a question that the model cannot read.
        """
        if len(turns) != 1:
            message = "this model answers one question at a time; send one message of a user"
            raise ApiError(400, message, param="messages", code="unsupported_parameter")
        try:
            self.predictor.codec.encode(Example(tuple(self.question(turns[0].text))))
        except ModelwrightError as error:
            raise ApiError(400, str(error), param="messages", code="invalid_question") from error
        return list(turns[0].text.encode())

    def submit(self, request: Request, listener: Listener = ignore) -> Future[None]:
        """Queue a request; the listener is told the answer, and then that it is complete.

        Raises:
            QueueFullError: too many requests wait.
            EngineStoppedError: it is not running.
        """
        with self._lock:
            if self._pool is None:
                raise EngineStoppedError("the engine is not running; start the server again")
            if self.waiting >= self.max_waiting:
                raise QueueFullError(f"{self.waiting} requests wait already; try again in a moment")
            self.waiting += 1
            return self._pool.submit(self._work, bytes(request.tokens), listener)

    def _work(self, asked: bytes, listener: Listener) -> None:
        began = time.perf_counter()
        try:
            (answer,) = self.predictor.answer([self.question(asked.decode())])
            listener(answer.said)
            seconds = time.perf_counter() - began
            listener(Completion([], answer.said, "stop", len(asked), seconds))
        except Exception as error:
            listener(error)
        finally:
            with self._lock:
                self.waiting -= 1
