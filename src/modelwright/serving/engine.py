"""The engine: requests in, answers out, in this process or from a worker thread."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from queue import SimpleQueue
from typing import Any, cast

import torch
from torch import nn

from modelwright.errors import MachineError, ModelwrightError
from modelwright.extensions import own_name, short
from modelwright.models.routed import Routed
from modelwright.serving import beams
from modelwright.serving.batch import (
    Batch,
    Completion,
    Event,
    Generator,
    Listener,
    Request,
    Row,
    Scored,
    Speller,
    ignore,
)
from modelwright.serving.constraint import Constraint, Constraints
from modelwright.serving.pairs import PairBatch
from modelwright.serving.prefixes import Prefixes
from modelwright.serving.prompts import Given
from modelwright.serving.sampling import SamplingParams
from modelwright.serving.waiting import Waiting
from modelwright.types import Codec, Turn, text_turn

__all__ = [
    "Completion",
    "ContextLengthError",
    "Engine",
    "EngineStoppedError",
    "Handle",
    "QueueFullError",
    "Request",
    "RequestError",
    "SamplingParams",
]

_log = logging.getLogger(__name__)


class RequestError(ModelwrightError):
    """A request asks for what this model cannot do; ``param`` is what it asks with."""

    def __init__(self, param: str, why: str) -> None:
        super().__init__(f"{param}: {why}")
        self.param = param


class ContextLengthError(ModelwrightError):
    """The prompt is longer than the model's context, or leaves no room for an answer in it."""


class QueueFullError(MachineError):
    """More requests wait than the engine keeps; try again later."""


class EngineStoppedError(MachineError):
    """The engine does not run (any more), so the request cannot be answered."""


class Handle:
    """A submitted request: iterate for its text as it comes, then read ``completion``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._row: Row | None = None
        self.completion: Completion | None = None

    def __iter__(self) -> Iterator[str]:
        """Yield pieces of text; raises what went wrong in the engine."""
        while self.completion is None:
            event = self._events.get()
            if isinstance(event, Exception):
                raise event
            if isinstance(event, Completion):
                self.completion = event
            else:
                yield event.text if isinstance(event, Scored) else event

    def cancel(self) -> None:
        """Give the request up; its row is free within one step. Safe to call at any time."""
        if self._row is not None:
            self._engine.cancel(self._row)


class Engine:
    """Answers requests with a model that generates token by token.

    ``generate`` and ``answer`` work in the calling thread. ``start`` begins a worker thread
    that serves what is given to ``submit``: at most ``max_batch`` requests at once while
    ``max_waiting`` more wait. The model is in evaluation mode only while it is at work here,
    and no global random state is touched (law 12).

    A cache takes memory for the tokens that are in it (``pages``). ``cache_tokens`` bounds them: a
    request begins when its prompt and its longest answer fit beside the others; 0 is the whole
    context of ``max_batch`` requests. With a bound ``max_batch`` may be high for short requests.

    ``drafts`` tokens at most are looked up ahead. ``reproducible``: no bit of an answer depends on
    who else asks, whether its beginning was kept, or who has left; it is that of the same request
    alone in an engine with the same ``drafts``.

    An encoder-decoder reads the prompt as its source, so that its answer has the whole context.
    ``temperature`` is what is taken where a client of the server names none: 1, as they expect
    it, and 0 of an encoder-decoder, whose answer is to follow its source.

    Raises:
        ModelwrightError: the model or its codec does not generate.
    """

    def __init__(
        self,
        model: nn.Module,
        codec: Codec,
        *,
        max_batch: int = 8,
        max_waiting: int = 64,
        stall_seconds: float = 60.0,
        prefix_bytes: int = 256 << 20,
        drafts: int = 0,
        reproducible: bool = False,
        cache_tokens: int = 0,
    ) -> None:
        if not hasattr(model, "new_cache") or not hasattr(codec, "prompt"):
            raise ModelwrightError(
                f"model: a {short(own_name(type(model)))} does not generate text, "
                "so it cannot answer here; use a model with a key/value cache (a decoder)"
            )
        self.model, self.max_batch, self.max_waiting = model, max_batch, max_waiting
        self.codec = cast(Speller, codec)
        self.context: int = cast(Any, model).config.context
        self._generator = cast(Generator, model)
        self._opening: Sequence[int] | None = getattr(codec, "opening", None)
        self._kind = Batch if self._opening is None else PairBatch
        self.temperature = 1.0 if self._opening is None else 0.0
        self._stall_seconds = stall_seconds
        self._drafts, self._reproducible = drafts, reproducible
        # The source of an encoder-decoder is held beside the answer.
        longest = self.context if self._opening is None else 2 * self.context
        self._cache_tokens = cache_tokens or max_batch * longest
        if self._cache_tokens < longest:
            raise ModelwrightError(
                f"cache_tokens: {cache_tokens} hold no request of the whole context; "
                f"give {longest} or more"
            )
        shares = prefix_bytes > 0 and self._opening is None
        self.prefixes = Prefixes(prefix_bytes) if shares else None
        self.adapters: dict[str, Routed] = {}  # by the names that requests have for them
        self._constraints: Constraints | None = None
        self._batch_now: Batch | None = None
        self._changed = threading.Condition()
        self._waiting = Waiting()
        self._active: list[Row] = []
        self._worker: threading.Thread | None = None
        self._stopping, self._stopped = False, False
        self._give_up_at = float("inf")
        self._beat = time.monotonic()

    # In the calling thread -------------------------------------------------------------------

    def prompt(self, turns: Sequence[Turn]) -> list[int]:
        """Tokens of a conversation or of the beginning of a document.

        An empty document begins after the end of another one, as in training. A model with learned
        prompts has theirs first.
        """
        learned: Sequence[int] = getattr(self.model, "virtual", ())
        return [*learned, *(self.codec.prompt(turns) or [self.codec.end])]

    def given(self, tokens: Sequence[int]) -> tuple[list[int], str]:
        """What a request of the tokens of a document holds, and the text that they spell.

        Raises:
            RequestError: there is no such token.
        """
        self.check("prompt", tokens)
        spelled = self.codec.spell(tokens)
        if getattr(self.codec, "spaced", False):
            spelled = spelled.removeprefix(b" ")  # as of an answer: it stands before every text
        learned: Sequence[int] = getattr(self.model, "virtual", ())
        return [*learned, *tokens], spelled.decode("utf-8", "replace")

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer all requests, in their order.

        Raises:
            ContextLengthError: a prompt is too long; nothing is generated then.
        """
        rows = [self._row(request) for request in requests]
        # Prompts of similar length are read together, so that little padding is computed.
        waiting = sorted(rows, key=lambda row: (row.request.params.beams, len(row.request.tokens)))
        with _evaluating(self.model), torch.inference_mode():
            for width, group in groupby(waiting, key=lambda row: row.request.params.beams):
                if width == 1:
                    self._decode(Waiting(group))
                else:
                    self._search(list(group), max(1, self.max_batch // width))
        for row in rows:
            if row.error is not None:
                raise row.error
        return [row.completion() for row in rows]

    def _decode(self, waiting: Waiting) -> None:
        """Token by token, as many rows at once as the batch may have."""
        batch = self._batch(waiting, min(self.max_batch, len(waiting)))
        while waiting or batch.rows:
            batch.join(waiting.group(batch.free))
            batch.step()

    def _search(self, rows: Sequence[Row], size: int) -> None:
        """With beams, ``size`` rows at once."""
        for first in range(0, len(rows), size):
            part = rows[first : first + size]
            beams.search(self._batch(part, len(part)), part)

    def _batch(self, rows: Iterable[Row], size: int) -> Batch:
        capacity = max(len(row.prompt) + row.max_tokens for row in rows)
        return self._kind(self._generator, size, capacity, alone=self._reproducible)

    def room(self, count: int) -> int:
        """How many tokens can be generated after a prompt of ``count``; none if below 1."""
        if self._opening is None:
            return self.context - count
        return self.context - len(self._opening) if count <= self.context else 0

    def answer(
        self, given: Sequence[Sequence[Turn]], params: SamplingParams | None = None
    ) -> list[Turn]:
        """One answer for each conversation, greedy unless ``params`` say otherwise."""
        params = params or SamplingParams()
        done = self.generate([Request(self.prompt(turns), params) for turns in given])
        roles = ["document" if t and t[-1].role == "document" else "assistant" for t in given]
        return [text_turn(role, c.text) for role, c in zip(roles, done, strict=True)]

    def embed(self, texts: Sequence[Given]) -> tuple[list[list[float]], int]:
        """A vector for each text, and how many tokens they have: the mean of the stream, length 1.

        Raises:
            ContextLengthError: a text is longer than the context.
            RequestError: the model is an encoder-decoder; or a text is given as tokens, and there
                is no such token.
        """
        if self._opening is not None:
            raise RequestError("model", "an encoder-decoder gives no vectors of texts here")
        found, count = [], 0
        with _evaluating(self.model), torch.inference_mode():
            for text in texts:
                if not isinstance(text, str):
                    self.check("input", text)
                tokens = self.codec.tokens(text) if isinstance(text, str) else text
                tokens = tokens or [self.codec.end]
                if len(tokens) > self.context:
                    raise ContextLengthError(
                        f"the text is {len(tokens)} tokens long and the model's context holds "
                        f"{self.context}; shorten the text"
                    )
                cache = self._generator.new_cache(1, len(tokens))
                at = cache.lengths.device
                stream = self._generator.hidden(torch.tensor([tokens], device=at), cache=cache)
                mean = stream[0].float().mean(0)
                found.append(torch.nn.functional.normalize(mean, dim=0).tolist())
                count += len(tokens)
        return found, count

    def _row(self, request: Request, listener: Listener | None = None) -> Row:
        count = len(request.tokens)
        if count == 0:
            raise ModelwrightError("prompt: there are no tokens in it; give at least one")
        room = self.room(count)
        if room < 1:
            asked = "" if self._opening else ", one of them for the answer"
            raise ContextLengthError(
                f"the prompt is {count} tokens long and the model's context holds "
                f"{self.context}{asked}; shorten the prompt"
            )
        if request.params.echo and self._opening is not None:
            raise RequestError("echo", "the prompt is a source here, no beginning; leave it out")
        if request.params.echo and hasattr(self.model, "virtual"):
            raise RequestError("echo", "a learned prompt has no spelling; leave it out")
        self.check("logit_bias", [token for token, _ in request.params.logit_bias])
        self.check("stop_token_ids", request.params.stop_token_ids)
        ends = {*self.codec.special, *request.params.stop_token_ids}
        if request.params.lasting and len(ends) >= self.vocabulary:
            raise RequestError("stop_token_ids", "every token would end the answer; name fewer")
        return Row(
            request,
            min(request.params.max_tokens, room),
            self.codec,
            listener or ignore,
            constraint=self._constraint(request.params),
            drafts=self._drafts,
            adapter=self._adapter(request.adapter),
        )

    def check(self, param: str, tokens: Iterable[int]) -> None:
        """Refuse tokens that there are not; ``param`` is the field that they come in.

        Raises:
            RequestError: it names the first.
        """
        for token in tokens:
            if not 0 <= token < self.vocabulary:
                why = f"there is no token {token}; {self.vocabulary} exist, from 0"
                raise RequestError(param, why)

    def _adapter(self, name: str) -> Routed | None:
        """The adapter of a request; a row keeps it, also when it has been taken out since."""
        if not name:
            return None
        found = self.adapters.get(name)
        if found is None:
            raise RequestError("model", f"there is no adapter {name[:100]!r} here")
        return found

    def _constraint(self, params: SamplingParams) -> Constraint | None:
        """What an answer must match, compiled."""
        if params.grammar is None:
            return None
        if self._constraints is None:
            self._constraints = Constraints(self.codec, self.vocabulary)
        return self._constraints.constraint(params.grammar)

    # From the worker thread ------------------------------------------------------------------

    @property
    def running(self) -> int:
        """How many requests are being generated."""
        return len(self._active)

    @property
    def waiting(self) -> int:
        """How many requests wait for a place in the batch."""
        return len(self._waiting)

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        count: int = cast(Any, self.model).config.vocabulary
        return count

    def gauges(self) -> dict[str, float]:
        """What a scrape of the metrics is told beside ``running`` and ``waiting``."""
        batch, prefixes = self._batch_now, self.prefixes
        return {
            "kv_cache_usage_perc": batch.held / self._cache_tokens if batch else 0.0,
            "prefix_cache_queries": prefixes.asked if prefixes else 0,
            "prefix_cache_hits": prefixes.found if prefixes else 0,
            "engine_heartbeat_seconds": time.monotonic() - self._beat,
        }

    @property
    def alive(self) -> bool:
        """Whether the worker runs, takes requests and has made a step lately."""
        moving = time.monotonic() - self._beat < self._stall_seconds
        works = self._worker is not None and self._worker.is_alive() and not self._stopping
        return works and moving

    @property
    def died(self) -> bool:
        """Whether the worker has ended though nobody stopped it; ``start`` starts another."""
        worker = self._worker
        return worker is not None and not worker.is_alive() and not self._stopped

    def start(self) -> None:
        """Start the worker thread; harmless when it runs."""
        with self._changed:
            if self._worker is not None and self._worker.is_alive():
                return
            self._stopping, self._stopped, self._give_up_at = False, False, float("inf")
            self._beat = time.monotonic()
            self._worker = threading.Thread(target=self._work, name="engine", daemon=True)
            self._worker.start()

    def stop(self, drain_seconds: float = 0.0) -> None:
        """Refuse new requests, finish the others for at most ``drain_seconds``, then end."""
        with self._changed:
            self._stopping, self._stopped = True, True
            self._give_up_at = time.monotonic() + drain_seconds
            self._changed.notify_all()
        if self._worker is not None:
            self._worker.join()

    def submit(self, request: Request, listener: Listener | None = None) -> Handle:
        """Queue a request.

        Without a ``listener`` the handle is iterated for the text. A listener is called from
        the worker thread with every piece of text, at last with a Completion or an exception;
        it must return at once.

        Raises:
            ContextLengthError: the prompt is too long.
            QueueFullError: too many requests wait.
            EngineStoppedError: the engine is not running.
            ModelwrightError: beams are asked for, which show nothing before their end.
        """
        if request.params.beams > 1:
            raise RequestError("beams", "the server answers token by token; leave them out")
        handle = Handle(self)
        row = handle._row = self._row(request, listener or handle._events.put)
        with self._changed:
            if self._stopping or self._worker is None or not self._worker.is_alive():
                raise EngineStoppedError("the engine is not running; start the server again")
            if len(self._waiting) >= self.max_waiting:
                raise QueueFullError(
                    f"{self.max_waiting} requests wait already; try again in a moment"
                )
            self._waiting.append(row)
            self._changed.notify_all()
        return handle

    def cancel(self, row: Row) -> None:
        """Mark a row to be dropped before the next step."""
        with self._changed:
            row.cancelled = True
            self._changed.notify_all()

    def _work(self) -> None:
        """The worker: admit, decode, repeat; whatever happens, nobody is left waiting."""
        try:
            with _evaluating(self.model), torch.inference_mode():
                batch = self._kind(
                    self._generator,
                    self.max_batch,
                    self.context,
                    prefixes=self.prefixes,
                    alone=self._reproducible,
                )
                self._active, self._batch_now = batch.rows, batch
                while self._next(batch):
                    self._beat = time.monotonic()
        except BaseException:
            _log.exception("the engine has died")
        finally:
            with self._changed:
                self._stopping = True
                left = [*self._active, *self._waiting]
                self._active, self._batch_now = [], None
                self._waiting.clear()
            for row in left:
                row.listener(EngineStoppedError("the engine stopped before the answer was done"))

    def _next(self, batch: Batch) -> bool:
        """Wait for work and do one step of it; False when there is nothing left to do."""
        with self._changed:
            while not (self._waiting or batch.rows or self._stopping):
                self._changed.wait(timeout=1.0)
                self._beat = time.monotonic()
            left, unborn = (
                [r for r in rows if r.cancelled] for rows in (batch.rows, self._waiting)
            )
            self._waiting.drop(unborn)
            batch.leave(left)
            idle = not (self._waiting or batch.rows)
            over = self._stopping and (idle or time.monotonic() >= self._give_up_at)
            spare = self._cache_tokens - batch.promised
            group = [] if over else self._waiting.group(batch.free, spare)
        for row in (*left, *unborn):
            row.cancel()
        for row in group:
            row.begin()
        if over:
            return False
        try:
            batch.join(group)
            batch.step()
        except Exception as error:
            # A step that fails must not end the server: those in it are told, others go on.
            _log.exception("a step of the engine failed")
            failed = dict.fromkeys([*batch.clear(), *group])
            for row in failed:
                if row.finish_reason is None:
                    row.fail(error)
        return True


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; afterwards every module is in the mode it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
