"""Waiting for an answer that comes whole: for its turn in a queue, and then for itself."""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import Future
from typing import Any, TypeVar

from starlette.requests import Request as HttpRequest

from modelwright.serving.guard import GONE
from modelwright.serving.openai import ApiError
from modelwright.serving.roster import Roster
from modelwright.serving.service import DeadlineError
from modelwright.serving.streaming import until_gone

_Found = TypeVar("_Found")


async def answered(request: HttpRequest, roster: Roster, asked: Future[_Found]) -> _Found:
    """What a queue gives, in which a question can be cancelled as long as it is not begun.

    Who leaves, or waits longer than ``limits.queue_seconds``, before its turn is never begun.

    Raises:
        DeadlineError: it was not begun, or not done, in time.
        ApiError: the client has left.
    """
    limits = roster.limits
    gone = asyncio.ensure_future(until_gone(request.receive))
    answer: asyncio.Future[_Found] = asyncio.wrap_future(asked)
    either: set[asyncio.Future[Any]] = {gone, answer}
    queued, total = (s or math.inf for s in (limits.queue_seconds, limits.total_seconds))
    try:
        if queued < total:
            if not await _come(either, queued) and asked.cancel():
                raise DeadlineError(f"the answer did not begin within {queued:g} seconds")
            await _come(either, total - queued)
        else:
            await _come(either, total)
        if answer.done():
            return answer.result()
        if gone.done():
            asked.cancel()  # at once: who sees the count finds its place free
            roster.metrics.add("requests_cancelled_total")
            raise ApiError(GONE, "the client has left")
        raise DeadlineError(f"the answer was not done within {total:g} seconds")
    finally:
        gone.cancel()
        answer.cancel()  # and with it the question, unless it is begun


async def _come(either: set[asyncio.Future[Any]], seconds: float) -> bool:
    """Whether one of them is there within so many seconds."""
    patience = None if math.isinf(seconds) else seconds
    done, _ = await asyncio.wait(either, timeout=patience, return_when="FIRST_COMPLETED")
    return bool(done)
