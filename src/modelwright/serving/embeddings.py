"""POST /v1/embeddings: vectors of texts, one request of a model after the other."""

from __future__ import annotations

import asyncio
import base64
import struct
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from modelwright.errors import ModelwrightError
from modelwright.serving import limits
from modelwright.serving.engine import QueueFullError
from modelwright.serving.guard import GONE
from modelwright.serving.hosting import JSON, body_of
from modelwright.serving.keys import Client
from modelwright.serving.openai import ApiError, Body, parse
from modelwright.serving.roster import EMBEDDINGS, Roster
from modelwright.serving.service import DeadlineError, refusal
from modelwright.serving.streaming import until_gone
from modelwright.serving.wholes import told_of

_Input = Annotated[str, Field(min_length=1, max_length=limits.TEXT)]


class EmbeddingRequest(Body):
    """The body of POST /v1/embeddings; ``dimensions``: so many first numbers, of length 1 again."""

    model: Annotated[str, Field(max_length=256)]
    input: Annotated[
        list[_Input],
        BeforeValidator(
            lambda value: [value] if isinstance(value, str) else value,
            json_schema_input_type=_Input
            | Annotated[list[_Input], Field(min_length=1, max_length=limits.ROWS)],
        ),
        Field(min_length=1, max_length=limits.ROWS),
    ]
    dimensions: Annotated[int, Field(ge=1)] | None = None
    encoding_format: Literal["float", "base64"] | None = None


class EmbeddingRoute:
    """The endpoint of vectors, over all models of a server that make some."""

    def __init__(self, roster: Roster) -> None:
        self.roster = roster
        self._one = asyncio.Lock()
        self._waiting = 0

    async def embeddings(self, request: HttpRequest) -> Response:
        """POST /v1/embeddings: one vector of length 1 for each text."""
        began = time.monotonic()
        _, body = await body_of(request, [JSON], self.roster.limits.body_seconds)
        asked = await asyncio.to_thread(parse, EmbeddingRequest, body)
        model = self.roster.asked(asked.model, EMBEDDINGS)
        embed: Any = getattr(model.service.engine, "embed", None)
        client: Client | None = request.state.client
        try:
            async with self._turn(request):
                vectors, tokens = await asyncio.to_thread(embed, asked.input)
            if client is not None:
                client.spend(time.monotonic(), tokens)
            vectors = _shortened(vectors, asked.dimensions)
        except ModelwrightError as error:
            raise (refusal(error, "input") or told_of(error)) from error
        write: Callable[[Sequence[float]], Any] = (
            _packed if asked.encoding_format == "base64" else list
        )
        data = [
            {"object": "embedding", "index": i, "embedding": write(vector)}
            for i, vector in enumerate(vectors)
        ]
        metrics = self.roster.metrics
        metrics.observe("e2e_request_latency_seconds", time.monotonic() - began)
        metrics.add("prompt_tokens_total", tokens)
        metrics.add("request_success_total", finished_reason="stop")
        count = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "data": data, "model": model.name, "usage": count})

    @asynccontextmanager
    async def _turn(self, request: HttpRequest) -> AsyncGenerator[None]:
        """Wait for the requests before this one; who leaves meanwhile is not computed.

        Raises:
            QueueFullError: too many wait.
            DeadlineError: the ones before take too long.
            ApiError: the client has left.
        """
        if self._waiting >= limits.EMBEDDINGS_WAITING:
            raise QueueFullError(f"{self._waiting} requests wait already; try again in a moment")
        self._waiting += 1
        gone = asyncio.ensure_future(until_gone(request.receive))
        turn = asyncio.ensure_future(self._one.acquire())
        try:
            seconds = self.roster.limits.queue_seconds or None
            await asyncio.wait({gone, turn}, timeout=seconds, return_when="FIRST_COMPLETED")
            if gone.done():
                self.roster.metrics.add("requests_cancelled_total")
                raise ApiError(GONE, "the client has left")
            if not turn.done():
                raise DeadlineError(f"the answer did not begin within {seconds:g} seconds")
        except BaseException:
            if not turn.cancel():  # it came in the same moment
                self._one.release()
            raise
        finally:
            self._waiting -= 1
            gone.cancel()
        try:
            yield
        finally:
            self._one.release()


def _shortened(vectors: Sequence[Sequence[float]], wanted: int | None) -> Sequence[Sequence[float]]:
    """The first numbers of each, divided by their length.

    Raises:
        ApiError: they have fewer.
    """
    if wanted is None:
        return vectors
    if wanted > len(vectors[0]):
        message = f"dimensions: the model's vectors have {len(vectors[0])} numbers"
        raise ApiError(400, message, param="dimensions", code="invalid_value")
    cut = np.asarray(vectors, np.float32)[:, :wanted]
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    found: list[list[float]] = (cut / np.maximum(lengths, 1e-12)).tolist()
    return found


def _packed(vector: Sequence[float]) -> str:
    """The numbers as little-endian float32 in base64."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
