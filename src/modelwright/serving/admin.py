"""The routes of whoever runs the server: models and adapters come and go without a restart.

They are there only with a key of their own, which opens nothing else.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from modelwright.errors import ModelwrightError
from modelwright.serving.bodies import ApiError, Body, parse
from modelwright.serving.guard import ADMIN
from modelwright.serving.hosting import json_body
from modelwright.serving.openapi import Endpoint
from modelwright.serving.roster import Roster, card, refused

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class LoadRequest(Body):
    """The body of POST /admin/models: a run of the folder that is served from, and its name."""

    run: Name
    name: Name | None = None


class AdaptRequest(Body):
    """The body of POST /admin/adapters: a run that was tuned with an adapter on this model."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    run: Name
    name: Name | None = None


class AdminRoutes:
    """The endpoints over a roster that has ``runs``."""

    def __init__(self, roster: Roster) -> None:
        self.roster = roster

    @property
    def endpoints(self) -> list[Endpoint]:
        """All of them."""
        models, adapters = f"{ADMIN}/models", f"{ADMIN}/adapters"
        return [
            Endpoint(models, self.listed, "models and adapters, and how they are"),
            Endpoint(models, self.load, "serve another run", schema=LoadRequest),
            Endpoint(f"{models}/{{name:path}}", self.unload, "serve it no more", verb="DELETE"),
            Endpoint(adapters, self.adapt, "answer with an adapter too", schema=AdaptRequest),
            Endpoint(
                f"{adapters}/{{name:path}}", self.forget, "no more, model:adapter", verb="DELETE"
            ),
        ]

    async def listed(self, _: HttpRequest) -> Response:
        """GET /admin/models."""
        data = [
            {**card(s), "alive": s.engine.alive, "running": s.engine.running,
             "waiting": s.engine.waiting, "adapters": sorted(s.adapters)}
            for s in self.roster
        ]  # fmt: skip
        return JSONResponse({"object": "list", "data": data})

    async def _body(self, request: HttpRequest) -> bytes:
        return await json_body(request, self.roster.limits.body_seconds)

    async def load(self, request: HttpRequest) -> Response:
        """POST /admin/models."""
        asked = parse(LoadRequest, await self._body(request))
        try:
            service = await self.roster.load(asked.run, asked.name or asked.run)
        except ModelwrightError as error:
            raise refused(error) from error
        return JSONResponse(card(service))

    async def unload(self, request: HttpRequest) -> Response:
        """DELETE /admin/models/NAME; answers when what was under way is finished."""
        name = request.path_params["name"]
        await self.roster.unload(name)
        return JSONResponse({"id": name, "object": "model", "deleted": True})

    async def adapt(self, request: HttpRequest) -> Response:
        """POST /admin/adapters."""
        asked = parse(AdaptRequest, await self._body(request))
        try:
            name = await self.roster.adapt(asked.model, asked.name or asked.run, asked.run)
        except ModelwrightError as error:
            raise refused(error) from error
        return JSONResponse({"id": name, "object": "model", "parent": asked.model})

    async def forget(self, request: HttpRequest) -> Response:
        """DELETE /admin/adapters/MODEL:NAME."""
        name = request.path_params["name"]
        try:
            await self.roster.forget(name)
        except ModelwrightError as error:
            raise ApiError(400, str(error), param="name", code="invalid_value") from error
        return JSONResponse({"id": name, "object": "model", "deleted": True})
