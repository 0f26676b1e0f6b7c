"""POST /v1/embeddings: vectors of texts, one request of a model after the other."""

from __future__ import annotations

import asyncio
import base64
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from modelwright.errors import ModelwrightError
from modelwright.serving import fields, limits
from modelwright.serving.engine import QueueFullError
from modelwright.serving.hosting import JSON, body_of
from modelwright.serving.keys import Client
from modelwright.serving.openai import ApiError, Body, parse
from modelwright.serving.passes import PassEngine, no_tokens
from modelwright.serving.prompts import Given, Tokens, listed, text_or_tokens
from modelwright.serving.roster import EMBEDDINGS, Roster
from modelwright.serving.service import refusal
from modelwright.serving.turns import answered
from modelwright.serving.wholes import told_of

_Input = Annotated[str, Field(min_length=1, max_length=limits.TEXT)]


Vectors = Sequence[Sequence[float]]
_Embed = Callable[[Sequence[Given]], tuple[Vectors, int]]


class EmbeddingRequest(Body):
    """The body of POST /v1/embeddings; ``dimensions``: so many first numbers, of length 1 again."""

    ignored: ClassVar[frozenset[str]] = fields.ACCOUNTS | fields.HINTS
    not_offered: ClassVar[Mapping[str, tuple[Any, ...]]] = {"truncate_prompt_tokens": (None,)}
    model: Annotated[str, Field(max_length=256)]
    input: Annotated[
        list[Annotated[Given, text_or_tokens(_Input)]],
        BeforeValidator(
            listed,
            json_schema_input_type=_Input
            | Tokens
            | Annotated[list[_Input | Tokens], Field(min_length=1, max_length=limits.ROWS)],
        ),
        Field(min_length=1, max_length=limits.ROWS),
    ]
    dimensions: Annotated[int, Field(ge=1)] | None = None
    encoding_format: Literal["float", "base64"] | None = None


class EmbeddingRoute:
    """The endpoint of vectors, over all models of a server that make some."""

    def __init__(self, roster: Roster) -> None:
        self.roster = roster
        self._one = ThreadPoolExecutor(1, thread_name_prefix="vectors")
        self._asked: list[Future[tuple[Vectors, int]]] = []

    async def embeddings(self, request: HttpRequest) -> Response:
        """POST /v1/embeddings: one vector of length 1 for each text."""
        began = time.monotonic()
        _, body = await body_of(request, [JSON], self.roster.limits.body_seconds)
        asked = await asyncio.to_thread(parse, EmbeddingRequest, body)
        model = self.roster.asked(asked.model, EMBEDDINGS)
        whole = isinstance(model.service.engine, PassEngine)
        if whole and not all(isinstance(one, str) for one in asked.input):
            raise no_tokens("input")
        embed: Any = getattr(model.service.engine, "embed", None)
        client: Client | None = request.state.client
        try:
            queued = self._queued(embed, asked.input)
            vectors, tokens = await answered(request, self.roster, queued)
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

    def _queued(self, embed: _Embed, texts: Sequence[Given]) -> Future[tuple[Vectors, int]]:
        """Let texts wait for those before them.

        Raises:
            QueueFullError: too many requests wait.
        """
        waiting = sum(not (one.running() or one.done()) for one in self._asked)
        if waiting >= self.roster.limits.vectors_waiting:
            raise QueueFullError(f"{waiting} requests wait already; try again in a moment")
        asked = self._one.submit(embed, texts)
        self._asked = [*(one for one in self._asked if not one.done()), asked]
        return asked


def _shortened(vectors: Vectors, wanted: int | None) -> Vectors:
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
