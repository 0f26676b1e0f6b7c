"""What a server offers, as an OpenAPI 3.1 document made from the schemas that check requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response

from modelwright.serving.hosting import JSON
from modelwright.version import __version__

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Endpoint:
    """A route: where, what it does in a line, and what its body must be.

    ``schema`` is a model of pydantic, or a JSON schema as it is for what only a run's codec knows;
    ``media`` are further types of bodies that it takes; ``streams``: it may answer with events.
    """

    path: str
    handler: Handler
    about: str
    schema: type[BaseModel] | Mapping[str, Any] | None = None
    media: tuple[str, ...] = ()
    streams: bool = False
    answers: str = JSON
    open: bool = False

    @property
    def method(self) -> str:
        """POST where there is a body."""
        return "GET" if self.schema is None and not self.media else "POST"


ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def document(name: str, endpoints: Sequence[Endpoint], *, keyed: bool) -> dict[str, Any]:
    """The document of a server of the model ``name``."""
    models = [e.schema for e in endpoints if isinstance(e.schema, type)]
    made, definitions = models_json_schema(
        [(model, "validation") for model in dict.fromkeys(models)],
        ref_template="#/components/schemas/{model}",
    )
    schemas: dict[str, Any] = {**definitions.get("$defs", {}), "Error": ERROR}
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        schema = endpoint.schema
        body: Any = made[schema, "validation"] if isinstance(schema, type) else schema
        path = endpoint.path.replace(":path", "")
        paths[path] = {endpoint.method.lower(): _operation(endpoint, body, keyed=keyed)}
    components: dict[str, Any] = {"schemas": schemas}
    if keyed:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": name, "version": __version__},
        "paths": paths,
        "components": components,
    }


def _operation(endpoint: Endpoint, body: Any, *, keyed: bool) -> dict[str, Any]:
    answers: dict[str, Any] = {endpoint.answers: {}}
    if endpoint.streams:
        answers["text/event-stream"] = {}
    refused = {"description": "refused", "content": {JSON: {"schema": _ERROR_REF}}}
    made: dict[str, Any] = {
        "summary": endpoint.about,
        "responses": {"200": {"description": "answered", "content": answers}, "default": refused},
    }
    if "{" in endpoint.path:
        text = {"type": "string"}
        made["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": text}]
    if body is not None or endpoint.media:
        content = {} if body is None else {JSON: {"schema": body}}
        content |= {kind: {"schema": {"type": "object"}} for kind in endpoint.media}
        made["requestBody"] = {"required": True, "content": content}
    if keyed and not endpoint.open:
        made["security"] = [{"key": []}]
    return made


_ERROR_REF = {"$ref": "#/components/schemas/Error"}
