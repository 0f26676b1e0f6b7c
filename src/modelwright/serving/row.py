"""A request on its way to an answer: what is asked, what has come, and who is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from modelwright.models.routed import Routed
from modelwright.serving.constraint import Constraint
from modelwright.serving.sampling import SamplingParams
from modelwright.serving.spelling import TextStream
from modelwright.serving.steering import Steering
from modelwright.types import Turn

GRAM = 3  # tokens that must have stood before, for what followed them to be a draft


class Speller(Protocol):
    """What a codec offers to generate text; see ``data.codecs.text``."""

    end: int
    special: frozenset[int]  # what ends an answer

    def prompt(self, turns: Sequence[Turn]) -> list[int]:
        """Tokens after which the answer follows."""
        ...

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text."""
        ...

    def spell(self, tokens: Iterable[int]) -> bytes:
        """The bytes that tokens spell."""
        ...


@dataclass(frozen=True)
class Request:
    """A prompt of token ids, or the source of an encoder-decoder, and how to go on from it.

    Requests of one ``client`` wait for each other, not for those of another. ``adapter`` is the
    name of one that the engine has; empty: the base.
    """

    tokens: Sequence[int]
    params: SamplingParams = field(default_factory=SamplingParams)
    client: str = ""
    adapter: str = ""


@dataclass(frozen=True)
class Score:
    """A token's bytes and log-probability, and those of the likeliest tokens in its place.

    The first token of a prompt follows nothing, so it has no log-probability.
    """

    spelled: bytes
    logprob: float | None
    top: tuple[tuple[bytes, float], ...] = ()


@dataclass(frozen=True)
class Scored:
    """A piece of text with the scores of the tokens that have come since the last one."""

    text: str
    scores: tuple[Score, ...]


@dataclass(frozen=True)
class Completion:
    """A finished answer.

    ``tokens`` are those generated, without the special token that ended them; ``text`` ends
    before a stop text and drops half a character; ``finish_reason`` is "stop" (the model or a
    stop text ended it), "length" or "cancelled"; ``seconds`` run from the
    request to the last token. ``scores`` are of ``tokens`` and ``prompt_scores`` of the prompt's
    tokens, where the request asks for them. ``ended`` is the special token by which the model ended
    it, where it was one. ``restored`` tokens of the prompt were not read, but known from before.
    ``queued`` of the ``seconds`` it waited for a place, where an engine knows of that.
    """

    tokens: list[int]
    text: str
    finish_reason: str
    prompt_tokens: int
    seconds: float
    scores: tuple[Score, ...] = ()
    prompt_scores: tuple[Score, ...] = ()
    ended: int | None = None
    restored: int = 0
    queued: float | None = None


# A piece of text, scored where that was asked for; the end; or what went wrong.
Event = str | Scored | Completion | Exception
Listener = Callable[[Event], None]


class Cancellable(Protocol):
    """A request that was submitted."""

    def cancel(self) -> object:
        """Give it up."""
        ...


def ignore(event: Event) -> None:
    """The listener of requests that are only read when finished."""


class Row:
    """One request on its way: what it has generated and where its tokens lie in the cache.

    ``prompt`` is what the decoder reads before it writes: the request's tokens, or where those are
    a source that an encoder reads, the codec's ``opening``.
    """

    def __init__(
        self,
        request: Request,
        max_tokens: int,
        codec: Speller,
        listener: Listener = ignore,
        *,
        constraint: Constraint | None = None,
        drafts: int = 0,
        adapter: Routed | None = None,
    ) -> None:
        self.adapter = adapter
        self.request, self.max_tokens, self.codec = request, max_tokens, codec
        self.listener = listener
        self.prompt: Sequence[int] = getattr(codec, "opening", request.tokens)
        params = request.params
        self.generator = params.generator()
        self.steering = (
            Steering(params, self.prompt, constraint, codec.special) if params.steered else None
        )
        self.tokens: list[int] = []
        self.cached = 0  # tokens of prompt and answer whose keys and values the cache holds
        self.restored = 0  # of those, tokens of the prompt that were known from before
        self.served = 0  # the step in which a part of its prompt was read last
        self.finish_reason: str | None = None
        self.ended: int | None = None
        self.error: Exception | None = None
        self.cancelled = False
        self.prompt_scores: list[Score] = []
        self._scores: list[Score] = []
        self._told = 0  # how many scores the listener has
        self._drafts = drafts
        self._places: dict[tuple[int, ...], int] = {}  # what follows the last such tokens, where
        self._known = GRAM - 1
        self._stream = TextStream(() if params.min_tokens else params.stop)
        self._pieces: list[str] = []
        self._start = time.perf_counter()
        self._begun: float | None = None

    def begin(self) -> None:
        """Note that it has a place."""
        self._begun = time.perf_counter()

    # Tokens that come ------------------------------------------------------------------------

    def take(self, token: int, logprobs: Tensor | None = None) -> None:
        """Add a generated token; tell the listener what text it made certain.

        ``logprobs`` (vocabulary,) are given where the request asks for them.
        """
        params = self.request.params
        if token in self.codec.special or token in params.stop_token_ids:
            self.ended = token
            self._finish("stop")
            return
        spelled = self.codec.spell([token])
        if not self.tokens and getattr(self.codec, "spaced", False):
            spelled = spelled.removeprefix(b" ")  # stands before a text, and is none of it
        self.tokens.append(token)
        if logprobs is not None:
            self._scores.append(self.score(token, logprobs))
        self._say(self._stream.feed(spelled))
        if len(self.tokens) == params.min_tokens:  # from here on
            self._stream.stop = params.stop
        if self.steering is not None:
            self.steering.took(token)
        if self._stream.stopped or self._matched():
            self._finish("stop")
        elif len(self.tokens) >= self.max_tokens:
            self._finish("length")

    def _matched(self) -> bool:
        constraint = None if self.steering is None else self.steering.constraint
        return constraint is not None and constraint.done

    def score(self, token: int, logprobs: Tensor) -> Score:
        """What is told of a token, with the log-probabilities (vocabulary,) in its place."""
        top: tuple[tuple[bytes, float], ...] = ()
        if count := min(self.request.params.logprobs or 0, len(logprobs)):
            values, places = logprobs.topk(count)
            top = tuple(
                (self.codec.spell([t]), v)
                for t, v in zip(places.tolist(), values.tolist(), strict=True)
            )
        return Score(self.codec.spell([token]), float(logprobs[token]), top)

    @property
    def scored(self) -> bool:
        """Whether log-probabilities are to be told."""
        return self.request.params.logprobs is not None

    # Tokens that may come --------------------------------------------------------------------

    def draft(self, most: int) -> list[int]:
        """At most ``most`` tokens that may well come next: those after the last like context.

        Prompt lookup: what followed where the last GRAM tokens stood before, in prompt or answer.
        """
        most = min(most, self._drafts, self.max_tokens - len(self.tokens) - 1)
        if most < 1:
            return []
        length = len(self.prompt) + len(self.tokens)
        for end in range(self._known + 1, length):  # the last GRAM tokens are looked for, not kept
            self._places[self._gram(end)] = end
        self._known = max(self._known, length - 1)
        place = self._places.get(self._gram(length)) if length > GRAM else None
        if place is None:
            return []
        return [self.read(i) for i in range(place, min(place + most, length))]

    def _gram(self, end: int) -> tuple[int, ...]:
        return tuple(self.read(i) for i in range(end - GRAM, end))

    def read(self, position: int) -> int:
        """The token at a position of prompt and answer, -1 before the first."""
        if position < len(self.prompt):
            return self.prompt[position] if position >= 0 else -1
        return self.tokens[position - len(self.prompt)]

    @property
    def room(self) -> int:
        """The most tokens that it may come to hold, what it reads included."""
        return len(self.request.tokens) + self.max_tokens

    @property
    def past(self) -> str:
        """What else decides what is kept of tokens: whose they are, and what they are read with."""
        return f"{self.request.client}\0{self.adapter.mark if self.adapter else ''}"

    @property
    def unread(self) -> int:
        """How many tokens of the prompt the cache does not hold yet."""
        return max(0, len(self.prompt) - self.cached)

    # The end ---------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Tell the listener that nothing more will come."""
        self._finish("cancelled")

    def fail(self, error: Exception) -> None:
        """End without an answer, for a reason of this request alone."""
        self.finish_reason, self.error = "error", error
        self.listener(error)

    def end(self) -> None:
        """Finish as if the model had ended the answer, or as it is where it is full."""
        if self.finish_reason is None:
            self._finish("stop" if len(self.tokens) < self.max_tokens else "length")

    def _finish(self, reason: str) -> None:
        self.finish_reason = reason
        self._say(self._stream.close(), last=True)
        self.listener(self.completion())

    def _say(self, piece: str, *, last: bool = False) -> None:
        new = tuple(self._scores[self._told :])
        if not piece and not (last and new):
            return
        self._pieces.append(piece)
        self._told = len(self._scores)
        self.listener(Scored(piece, new) if self.scored else piece)

    def completion(self) -> Completion:
        """What the row has come to."""
        now = time.perf_counter()
        return Completion(
            tokens=self.tokens,
            text="".join(self._pieces),
            finish_reason=self.finish_reason or "length",
            prompt_tokens=len(self.request.tokens),
            seconds=now - self._start,
            scores=tuple(self._scores),
            prompt_scores=tuple(self.prompt_scores),
            ended=self.ended,
            restored=self.restored,
            queued=(self._begun or now) - self._start,
        )
