"""The answers of POST /v1/responses: the object, and the events of its stream.

An answer is a list of items: what is said, if anything, is a message, and every call is an item of
its own behind it. The object is put together of the events, so both say the same.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from modelwright.serving.openai import ApiError
from modelwright.serving.responses import ResponsesRequest
from modelwright.serving.row import Completion, Score, Scored
from modelwright.serving.shapes import chat_logprobs
from modelwright.serving.tools import Call, Reader


@dataclass
class _Item:
    """The message, or a ``call``, at a place of the output."""

    index: int
    id: str
    call: Call | None = None
    status: str = "in_progress"


class ResponseWriter:
    """The object of an answer, and the events of its stream; see ``streaming.Writer``."""

    sentinel = b""

    def __init__(self, asked: ResponsesRequest, created: int, prompt_tokens: int) -> None:
        self.id = f"resp_{secrets.token_hex(16)}"
        self._asked, self._created, self._prompt_tokens = asked, created, prompt_tokens
        self._number = 0
        self._reader = Reader() if asked.offered else None
        self._items: list[_Item] = []
        self._text = ""
        self._told: list[dict[str, Any]] = []  # log-probabilities
        self._scores: deque[Score] = deque()  # that are not told
        self._said_bytes = self._scored_bytes = 0

    def answered(self, done: Completion) -> dict[str, Any]:
        """The response to an answer that came whole."""
        for _ in (*self.piece(0, Scored(done.text, done.scores)), *self.ended(0, done)):
            pass
        return self.whole(done)

    def whole(self, done: Completion | None) -> dict[str, Any]:
        """The response, or what it is before its answer."""
        asked = self._asked
        cut = done is not None and done.finish_reason == "length"
        status = "in_progress" if done is None else "incomplete" if cut else "completed"
        return {
            "id": self.id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": asked.metadata or {},
            "model": asked.model,
            "output": [self._shape(item) for item in self._items],
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "previous_response_id": None,
            "store": False,
            "temperature": asked.temperature,
            "text": {"format": asked.form.model_dump(exclude_none=True, by_alias=True)},
            "tool_choice": asked.choice,
            "tools": [tool.model_dump() for tool in asked.tools or ()],
            "top_p": asked.top_p,
            "truncation": "disabled",
            "usage": None if done is None else self._usage(done),
        }

    def _usage(self, done: Completion) -> dict[str, Any]:
        written = len(done.tokens)
        return {
            "input_tokens": self._prompt_tokens,
            "input_tokens_details": {"cached_tokens": done.restored},
            "output_tokens": written,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self._prompt_tokens + written,
        }

    def _shape(self, item: _Item) -> dict[str, Any]:
        if (call := item.call) is None:
            content = [] if item.status == "in_progress" else [self._part(self._text, self._told)]
            head = {"type": "message", "id": item.id, "status": item.status}
            return {**head, "role": "assistant", "content": content}
        head = {"type": "function_call", "id": item.id, "call_id": call.id}
        return {**head, "name": call.name, "arguments": call.arguments, "status": item.status}

    @staticmethod
    def _part(text: str, told: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(told)}

    def _event(self, kind: str, **fields: Any) -> dict[str, Any]:
        self._number += 1
        return {"type": f"response.{kind}", "sequence_number": self._number - 1, **fields}

    def begin(self) -> Iterator[dict[str, Any]]:
        """What stands before all text."""
        yield self._event("created", response=self.whole(None))
        yield self._event("in_progress", response=self.whole(None))

    def piece(self, index: int, said: str | Scored) -> Iterator[dict[str, Any]]:  # noqa: ARG002
        """A piece of text, which may belong to a call."""
        text, scores = (said, ()) if isinstance(said, str) else (said.text, said.scores)
        self._scores.extend(scores)
        reader = self._reader
        yield from self._read([{"content": text}] if reader is None else reader.feed(text))

    def _read(self, deltas: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The events of deltas of a message in the shape of chat completions."""
        for delta in deltas:
            if "content" in delta:
                yield from self._say(delta["content"])
            for part in delta.get("tool_calls", ()):
                yield from self._call(part)
        if self._items and (call := self._items[-1].call) is not None and call.ended:
            yield from self._close("completed")

    def _say(self, text: str) -> Iterator[dict[str, Any]]:
        if not self._items:
            yield from self._open(_Item(0, f"msg_{secrets.token_hex(16)}"))
            place, part = {**self._place, "content_index": 0}, self._part("", ())
            yield self._event("content_part.added", **place, part=part)
        self._text += text
        self._said_bytes += len(text.encode())
        told = self._scored()
        if text or told:
            place = {**self._place, "content_index": 0}
            yield self._event("output_text.delta", **place, delta=text, logprobs=told)

    def _scored(self) -> list[dict[str, Any]]:
        """Log-probabilities that are not told; beside calls, only of tokens that begin in text."""
        found = []
        while self._scores and (self._reader is None or self._scored_bytes < self._said_bytes):
            found.append(self._scores.popleft())
            self._scored_bytes += len(found[-1].spelled)
        told: list[dict[str, Any]] = (chat_logprobs(found) or {}).get("content", [])
        self._told += told
        return told

    def _call(self, part: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if "id" in part:
            assert self._reader is not None  # noqa: S101 - it has read the call
            call = self._reader.calls[part["index"]]
            yield from self._close("completed")
            item = _Item(len(self._items), f"fc_{secrets.token_hex(16)}", call)
            yield from self._open(item)
        else:
            written = part["function"]["arguments"]
            yield self._event("function_call_arguments.delta", **self._place, delta=written)

    @property
    def _place(self) -> dict[str, Any]:
        item = self._items[-1]
        return {"item_id": item.id, "output_index": item.index}

    def _open(self, item: _Item) -> Iterator[dict[str, Any]]:
        self._items.append(item)
        shape = self._shape(item)
        yield self._event("output_item.added", output_index=item.index, item=shape)

    def _close(self, status: str) -> Iterator[dict[str, Any]]:
        """The end of the last item, if it is open."""
        if not self._items or self._items[-1].status != "in_progress":
            return
        item, place = self._items[-1], self._place
        item.status = status
        if item.call is None:
            place["content_index"] = 0
            text = {"text": self._text, "logprobs": self._told}
            yield self._event("output_text.done", **place, **text)
            part = self._part(self._text, self._told)
            yield self._event("content_part.done", **place, part=part)
        else:
            arguments = item.call.arguments
            yield self._event("function_call_arguments.done", **place, arguments=arguments)
        shape = self._shape(item)
        yield self._event("output_item.done", output_index=item.index, item=shape)

    def ended(self, index: int, done: Completion) -> Iterator[dict[str, Any]]:  # noqa: ARG002
        """The end of the answer, and of the item that is open."""
        if self._reader is not None:
            yield from self._read(self._reader.close())
        if not self._items:
            yield from self._say("")
        yield from self._close("incomplete" if done.finish_reason == "length" else "completed")

    def end(self, done: Sequence[Completion]) -> Iterator[dict[str, Any]]:
        """The whole response."""
        response = self.whole(done[0])
        yield self._event(response["status"], response=response)

    def failed(self, error: ApiError) -> dict[str, Any]:
        """What stands where the stream ends because something failed."""
        fields = {"code": error.code, "message": error.message, "param": error.param}
        return {**self._event("error", **fields), "type": "error"}
