"""The labelling page: one row at a time, single keys, every label on the disk at once.

The page knows rows by their ids only; which file an image lies in is never asked of a client.
Each person has a place of their own in the same rows; all write to one file.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from modelwright.data.labelling.items import picture_of, text_of
from modelwright.data.labelling.keys import keys_of
from modelwright.data.labelling.label_file import LabelFile
from modelwright.data.labelling.session import Session, Suggestion
from modelwright.errors import ModelwrightError
from modelwright.serving.guard import Guard
from modelwright.serving.hosting import host_app, json_body, page_headers
from modelwright.serving.keys import Keys
from modelwright.serving.openai import ApiError
from modelwright.types import Row

MAX_PEOPLE = 100
MAX_NAME = 80
MAX_SECONDS = 86400.0


def build_app(
    rows: Sequence[Row],
    labels: Sequence[str],
    file: LabelFile,
    *,
    column: str = "text",
    who: str = "me",
    suggestions: Mapping[str, Suggestion] | None = None,
    api_key: str | None = None,
) -> Starlette:
    """The ASGI application of the page.

    Args:
        rows: in the order of asking.
        labels: the closed set.
        file: where decisions go.
        column: the column of the text.
        who: the name that the page proposes to whoever opens it.
        suggestions: row id -> what a model thinks.
        api_key: as in `server.build_app`.
    """
    routes = _Routes(rows, labels, file, column, suggestions or {})
    routes.proposed = who
    return Starlette(
        routes=[
            Route("/", routes.page),
            Route("/api/state", routes.state, methods=["POST"]),
            Route("/api/decide", routes.decide, methods=["POST"]),
            Route("/api/picture", routes.picture, methods=["POST"]),
        ],
        middleware=[Middleware(Guard, keys=Keys(key=api_key))],
        exception_handlers={HTTPException: _no_route},
    )


async def _no_route(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return JSONResponse(ApiError(status, "there is no such path here").body(), status)


class _Routes:
    """The endpoints. A lock keeps decisions one after another, whoever makes them."""

    def __init__(
        self,
        rows: Sequence[Row],
        labels: Sequence[str],
        file: LabelFile,
        column: str,
        suggestions: Mapping[str, Suggestion],
    ) -> None:
        self.rows, self.labels, self.file = rows, labels, file
        self.column, self.suggestions = column, suggestions
        self.proposed = "me"
        self._row_of = {str(row["id"]): row for row in rows}
        self._people: dict[str, Session] = {}
        self._lock = threading.Lock()
        html = Path(__file__).with_name("labelling.html").read_text(encoding="utf-8")
        headers = page_headers(html, images="blob: data:")
        self._page = Response(html, media_type="text/html", headers=headers)

    async def page(self, _: Request) -> Response:
        """The page itself; it holds no data."""
        return self._page

    async def state(self, request: Request) -> Response:
        """POST {"who"}: the labels, the counts, and the row to look at."""
        asked = await _object(request)
        return await asyncio.to_thread(self._state, asked)

    async def decide(self, request: Request) -> Response:
        """POST {"who", "action", "id", "label", "seconds"}: do it, and answer as `state`."""
        asked = await _object(request)
        return await asyncio.to_thread(self._decide, asked)

    async def picture(self, request: Request) -> Response:
        """POST {"id"}: the image of a row."""
        asked = await _object(request)
        row = self._row_of.get(str(asked.get("id")))
        try:
            found = None if row is None else await asyncio.to_thread(picture_of, row)
        except ModelwrightError as error:
            raise ApiError(404, str(error), type="not_found_error") from error
        if found is None:
            raise ApiError(404, "there is no image of this row", type="not_found_error")
        return Response(found[0], media_type=found[1], headers={"Cache-Control": "no-store"})

    def _state(self, asked: dict[str, Any]) -> Response:
        with self._lock:
            return JSONResponse(self._told(self._session(asked)))

    def _decide(self, asked: dict[str, Any]) -> Response:
        action, taken = asked.get("action"), _seconds(asked.get("seconds"))
        with self._lock:
            session = self._session(asked)
            try:
                if action != "undo" and "id" in asked:
                    session.show(str(asked["id"]))  # what the person saw, whatever came between
                if action == "label":
                    session.label(str(asked.get("label")), taken)
                elif action == "skip":
                    session.skip(taken)
                elif action in ("back", "forward", "undo"):
                    getattr(session, action)()
                else:
                    raise ApiError(400, "action: label, skip, back, forward or undo is meant")
            except ModelwrightError as error:
                status = 503 if error.exit_code == 4 else 400
                raise ApiError(status, str(error)) from error
            return JSONResponse(self._told(session))

    def _session(self, asked: dict[str, Any]) -> Session:
        given = asked.get("who")
        who = (given if isinstance(given, str) else self.proposed).strip()
        if not who or len(who) > MAX_NAME or not who.isprintable():
            raise ApiError(400, f"who: a name of 1 to {MAX_NAME} characters is meant")
        if who not in self._people:
            if len(self._people) >= MAX_PEOPLE:
                raise ApiError(429, f"who: {MAX_PEOPLE} people label here already")
            self._people[who] = Session(
                self.rows, self.labels, self.file, who, suggestions=self.suggestions
            )
        return self._people[who]

    def _told(self, session: Session) -> dict[str, Any]:
        row, said, thought = session.row, session.decided, session.suggested
        shown: dict[str, Any] | None = None
        if row is not None:
            pictured = "image" in row or "pixels" in row
            shown = {
                "id": str(row["id"]),
                "text": None if pictured and self.column not in row else text_of(row, self.column),
                "picture": pictured,
                "said": None if said is None else (said.label or "skipped"),
                "suggested": None if thought is None else thought.label,
                "probability": None if thought is None else round(thought.probability, 4),
            }
        return {
            "who": session.who,
            "labels": list(self.labels),
            "keys": keys_of(self.labels),
            "place": session.place,
            "total": session.total,
            "counts": session.counts(),
            "row": shown,
        }


def _seconds(value: Any) -> float | None:
    """A plausible time, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 <= value <= MAX_SECONDS else None


async def _object(request: Request) -> dict[str, Any]:
    try:
        value = json.loads(await json_body(request))
    except (ValueError, RecursionError):
        raise ApiError(400, "the body is not readable JSON") from None
    if not isinstance(value, dict):
        raise ApiError(400, "the body must be a JSON object")
    return value


def serve(app: Starlette, name: str, *, host: str, port: int, api_key: str | None) -> None:
    """Serve the page until SIGTERM or Ctrl-C; see `hosting.host_app`."""
    host_app(app, f"labels of {name}", host=host, port=port, keyed=api_key is not None)
