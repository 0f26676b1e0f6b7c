"""The bodies of answers, in OpenAI's shapes: whole or in pieces, with log-probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from modelwright.serving.openai import ApiError
from modelwright.serving.row import Completion, Score, Scored
from modelwright.serving.tools import Reader, read


@dataclass(frozen=True)
class Shape:
    """How the answers of one endpoint are written; the same id and time in all its parts.

    ``echoes`` are the prompts, where the answers begin with them; ``tools``: they may call some.
    """

    chat: bool
    id: str
    created: int
    model: str
    echoes: tuple[str, ...] = ()
    tools: bool = False

    def whole(self, done: Sequence[Completion], usage: dict[str, Any]) -> dict[str, Any]:
        """The complete answer."""
        choices = [self._choice(index, one) for index, one in enumerate(done)]
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self._head(kind), "choices": choices, "usage": usage}

    def _choice(self, index: int, done: Completion) -> dict[str, Any]:
        end = {"finish_reason": done.finish_reason}
        if self.chat:
            message: dict[str, Any] = {"role": "assistant", "content": done.text, "refusal": None}
            if self.tools:
                found = read(done.text)
                end = {"finish_reason": ended_by(done, found)}
                message["content"] = found.text or (None if found.calls else "")
                if found.calls:
                    message["tool_calls"] = [call.shape() for call in found.calls]
            told = chat_logprobs(done.scores)
            return {"index": index, "message": message, "logprobs": told, **end}
        scores = (*done.prompt_scores, *done.scores)
        told = completion_logprobs(scores, 0)
        return {"index": index, "text": self._echo(index) + done.text, "logprobs": told, **end}

    def _echo(self, index: int) -> str:
        """The prompt of a choice; each prompt has as many choices as the next."""
        return self.echoes[index] if self.echoes else ""

    def opening(self, index: int) -> dict[str, Any] | None:
        """The first chunk of a choice: the role, said once; a completion has the echo, if any."""
        if self.chat:
            return self.chunk(index, {"role": "assistant", "content": ""})
        echo = self._echo(index)
        return self.chunk(index, {"content": echo}) if echo else None

    def piece(self, index: int, said: str | Scored, offset: int = 0) -> dict[str, Any]:
        """A chunk with some text, which begins at the answer's character ``offset``."""
        if isinstance(said, str):
            return self.chunk(index, {"content": said})
        told = chat_logprobs(said.scores) if self.chat else completion_logprobs(said.scores, offset)
        return self.chunk(index, {"content": said.text}, told=told)

    def closing(self, index: int, reason: str) -> dict[str, Any]:
        """The last chunk of a choice: no text, the reason it ended."""
        return self.chunk(index, {}, reason)

    def counted(self, usage: dict[str, Any]) -> dict[str, Any]:
        """The chunk after all choices that counts the tokens."""
        return {**self._head(self._chunk_kind), "choices": [], "usage": usage}

    @property
    def _chunk_kind(self) -> str:
        return "chat.completion.chunk" if self.chat else "text_completion"

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def chunk(
        self,
        index: int,
        delta: dict[str, Any],
        reason: str | None = None,
        told: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """A part of a choice: what comes to its message, why it ends, its log-probabilities."""
        content = {"delta": delta} if self.chat else {"text": delta.get("content", "")}
        choice = {"index": index, **content, "logprobs": told, "finish_reason": reason}
        return {**self._head(self._chunk_kind), "choices": [choice]}


def ended_by(done: Completion, found: Reader) -> str:
    """Why a choice ended: with calls, or as the model or its limit ended it."""
    return "tool_calls" if found.called and done.finish_reason == "stop" else done.finish_reason


class Chunks:
    """The chunks of a stream of chat or text completions; see ``streaming.Writer``."""

    sentinel = b"data: [DONE]\n\n"

    def __init__(
        self, shape: Shape, answers: int, choices: int, prompt_tokens: int, *, counted: bool
    ) -> None:
        self._shape, self._prompt_tokens, self._counted = shape, prompt_tokens, counted
        self._choices = choices  # of a prompt
        self._offsets = [0] * answers  # characters said
        self._readers = [Reader() for _ in range(answers)] if shape.tools else []
        self.id = shape.id

    def begin(self) -> Iterator[dict[str, Any]]:
        """What stands before all text."""
        for index in range(len(self._offsets)):
            opening = self._shape.opening(index)
            if opening is not None:
                yield opening

    def piece(self, index: int, said: str | Scored) -> Iterator[dict[str, Any]]:
        """A piece of text, which may belong to a call."""
        if self._readers:
            text, scores = (said, ()) if isinstance(said, str) else (said.text, said.scores)
            told = chat_logprobs(scores)
            deltas = list(self._readers[index].feed(text)) or [{}] * (told is not None)
            for delta in deltas:
                yield self._shape.chunk(index, delta, told=told)
                told = None
            return
        yield self._shape.piece(index, said, self._offsets[index])
        self._offsets[index] += len(said if isinstance(said, str) else said.text)

    def ended(self, index: int, done: Completion) -> Iterator[dict[str, Any]]:
        """The end of a choice."""
        reason = done.finish_reason
        if self._readers:
            reader = self._readers[index]
            for delta in reader.close():
                yield self._shape.chunk(index, delta)
            reason = ended_by(done, reader)
        yield self._shape.closing(index, reason)

    def end(self, done: Sequence[Completion]) -> Iterator[dict[str, Any]]:
        """What stands behind all choices."""
        if self._counted:
            yield self._shape.counted(usage(self._prompt_tokens, done, self._choices))

    def failed(self, error: ApiError) -> dict[str, Any]:
        """What stands where the stream ends because something failed."""
        return error.body()


def spelled(token: bytes) -> str:
    """A token as text: what is no whole character is replaced."""
    return token.decode("utf-8", "replace")


def chat_logprobs(scores: Sequence[Score]) -> dict[str, Any] | None:
    """Log-probabilities as chat completions tell them."""
    if not scores:
        return None

    def entry(token: bytes, logprob: float | None) -> dict[str, Any]:
        return {"token": spelled(token), "logprob": logprob, "bytes": list(token)}

    content = [
        {**entry(s.spelled, s.logprob), "top_logprobs": [entry(*one) for one in s.top]}
        for s in scores
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(scores: Sequence[Score], offset: int) -> dict[str, Any] | None:
    """The older shape: lists side by side, and at which character each token begins."""
    if not scores:
        return None
    tokens = [spelled(score.spelled) for score in scores]
    offsets = [offset, *accumulate((len(t) for t in tokens), initial=offset)][1:-1]
    # The chosen token stands among them even where it is none of the likeliest.
    tops = [
        {spelled(token): p for token, p in (*score.top, (score.spelled, score.logprob))}
        if score.top
        else None
        for score in scores
    ]
    return {
        "tokens": tokens,
        "token_logprobs": [score.logprob for score in scores],
        "top_logprobs": tops if any(tops) else None,
        "text_offset": offsets,
    }


def usage(prompt_tokens: int, done: Sequence[Completion], choices: int) -> dict[str, Any]:
    """The count of tokens of a request; a prompt of several choices counts once."""
    written = sum(len(one.tokens) for one in done)
    of_prompts = (done[i : i + choices] for i in range(0, len(done), choices))
    restored = sum(max(one.restored for one in each) for each in of_prompts)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": written,
        "total_tokens": prompt_tokens + written,
        "prompt_tokens_details": {"cached_tokens": restored},
    }


def model_card(name: str, created: int) -> dict[str, Any]:
    """A model as /v1/models lists it."""
    return {"id": name, "object": "model", "created": created, "owned_by": "modelwright"}
