"""The routes of models that write: chat completions, completions, responses."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from modelwright.errors import ModelwrightError
from modelwright.serving.guard import GONE
from modelwright.serving.hosting import json_body
from modelwright.serving.keys import Client
from modelwright.serving.openai import Body, ChatRequest, CompletionRequest, parse
from modelwright.serving.response_writer import ResponseWriter
from modelwright.serving.responses import ResponsesRequest
from modelwright.serving.roster import Asked, Roster
from modelwright.serving.row import Completion, Request
from modelwright.serving.sampling import SamplingParams
from modelwright.serving.service import refusal
from modelwright.serving.shapes import Chunks, Shape, usage
from modelwright.serving.streaming import (
    Answers,
    ClientGoneError,
    EventStream,
    Writer,
    submitting,
)
from modelwright.types import Turn, text_turn

_Asked = TypeVar("_Asked", bound=Body)


@dataclass(frozen=True)
class _Prompt:
    """A conversation, or the beginning of a document, and the tokens that it is read as."""

    turns: Sequence[Turn]
    tokens: list[int]


@dataclass(frozen=True)
class _Asking:
    """Prompts, each to be answered with every set of parameters.

    ``param`` is the field of the request that they came in.
    """

    model: Asked
    given: Sequence[_Prompt]
    params: Sequence[SamplingParams]
    param: str


class TextRoutes:
    """The endpoints of text over all models of a server."""

    def __init__(self, roster: Roster) -> None:
        self.roster = roster

    async def _read(self, request: HttpRequest, schema: type[_Asked]) -> _Asked:
        body = await json_body(request, self.roster.limits.body_seconds)
        # Long lists take a while to check: not in the event loop.
        return await asyncio.to_thread(parse, schema, body)

    async def chat(self, request: HttpRequest) -> Response:
        """POST /v1/chat/completions."""
        return await self._complete(request, await self._read(request, ChatRequest), "messages")

    async def completions(self, request: HttpRequest) -> Response:
        """POST /v1/completions."""
        return await self._complete(request, await self._read(request, CompletionRequest), "prompt")

    async def _complete(
        self, request: HttpRequest, asked: ChatRequest | CompletionRequest, param: str
    ) -> Response:
        model = self.roster.asked(asked.model)
        engine = model.service.engine
        params = asked.params(engine.context, engine.temperature)
        given = await self._prompts(model, asked.conversations, param)
        echoes = [prompt.turns[0].text for prompt in given for _ in params] if asked.echoed else ()
        shape = Shape(
            chat=param == "messages",
            id=f"{'chatcmpl' if param == 'messages' else 'cmpl'}-{secrets.token_hex(12)}",
            created=int(time.time()),
            model=model.name,
            echoes=tuple(echoes),
            tools=asked.offered is not None,
        )

        def stream(answers: int, prompt_tokens: int) -> Writer:
            return Chunks(shape, answers, len(params), prompt_tokens, counted=asked.usage_wanted)

        def whole(done: Sequence[Completion], prompt_tokens: int) -> Response:
            count = usage(prompt_tokens, done, len(params))
            return JSONResponse(shape.whole(done, count))

        requested = _Asking(model, given, params, param)
        return await self._answer(request, requested, stream if asked.stream else None, whole)

    async def responses(self, request: HttpRequest) -> Response:
        """POST /v1/responses."""
        asked = await self._read(request, ResponsesRequest)
        model = self.roster.asked(asked.model)
        engine = model.service.engine
        created = int(time.time())

        def stream(choices: int, prompt_tokens: int) -> Writer:  # noqa: ARG001 - there is one
            return ResponseWriter(asked, created, prompt_tokens)

        def whole(done: Sequence[Completion], prompt_tokens: int) -> Response:
            return JSONResponse(ResponseWriter(asked, created, prompt_tokens).answered(done[0]))

        params = [asked.params(engine.context, engine.temperature)]
        given = await self._prompts(model, [asked.turns], "input")
        requested = _Asking(model, given, params, "input")
        return await self._answer(request, requested, stream if asked.stream else None, whole)

    async def _prompts(
        self, model: Asked, given: Sequence[Sequence[Turn] | list[int]], param: str
    ) -> list[_Prompt]:
        """Conversations, or the tokens of documents, as the model reads them."""
        engine = model.service.engine

        def prompt(one: Sequence[Turn] | list[int]) -> _Prompt:
            turns = [turn for turn in one if isinstance(turn, Turn)]
            if turns:
                return _Prompt(turns, engine.prompt(turns))
            tokens, text = engine.given([token for token in one if isinstance(token, int)])
            return _Prompt([text_turn("document", text)], tokens)

        with _telling(param):
            # A megabyte of text takes a while to tokenise.
            return await asyncio.to_thread(lambda: [prompt(one) for one in given])

    async def _answer(
        self,
        request: HttpRequest,
        asked: _Asking,
        stream: Callable[[int, int], Writer] | None,
        whole: Callable[[Sequence[Completion], int], Response],
    ) -> Response:
        """Answer every conversation with every set of parameters, as a stream or whole."""
        client: Client | None = request.state.client
        name = client.name if client else ""
        requests = [
            Request(prompt.tokens, one, name, asked.model.adapter)
            for prompt in asked.given
            for one in asked.params
        ]
        prompt_tokens = sum(len(prompt.tokens) for prompt in asked.given)
        loop, service = asyncio.get_running_loop(), asked.model.service
        begun = submitting(service, requests)
        finished = self._finishing(asked, client)
        try:
            with _telling(asked.param):
                # A grammar takes a while to compile.
                answers = await asyncio.to_thread(Answers, service, begun, loop, finished)
                if stream is not None:
                    writer = stream(len(requests), prompt_tokens)
                    return EventStream(answers, writer, finished)
                done = await answers.all(request.receive)
        except ClientGoneError:
            return Response(status_code=GONE)
        for index, one in enumerate(done):
            finished(index, one)
        return whole(done, prompt_tokens)

    def _finishing(
        self, asked: _Asking, client: Client | None
    ) -> Callable[[int, Completion], None]:
        """What is done with an answer by its number: its tokens are counted, it may be kept."""
        keeper = self.roster.keeper

        def finished(index: int, one: Completion) -> None:
            if client is not None:
                client.spend(time.monotonic(), one.prompt_tokens + len(one.tokens))
            if keeper is not None and one.finish_reason in ("stop", "length"):
                prompt = asked.given[index // len(asked.params)]
                keeper.keep(asked.model.name, prompt.turns, one.text)

        return finished


@contextmanager
def _telling(param: str) -> Iterator[None]:
    """What the engine has against a request is what its client is told; ``param`` has the prompt.

    Raises:
        ApiError: that; a fault of the server stays what it is.
    """
    try:
        yield
    except ModelwrightError as error:
        if (told := refusal(error, param)) is None:
            raise
        raise told from error
