"""What a server offers, as an OpenAPI 3.1 document made from the schemas that check requests."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response

from modelwright.serving.guard import KEY_HEADERS
from modelwright.serving.hosting import JSON
from modelwright.version import __version__

EVENTS = "text/event-stream"
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Endpoint:
    """A route: where, what it does in a line, and what its body must be.

    ``schema`` is a model of pydantic, or a JSON schema as it is for what only a run's codec knows;
    ``media`` are further types of bodies that it takes; ``answers`` is the type of a whole answer,
    ``gives`` what it must be, and ``events`` what each event is, where it may answer with some;
    ``verb`` is the method, where that is neither GET nor POST.
    """

    path: str
    handler: Handler
    about: str
    schema: type[BaseModel] | Mapping[str, Any] | None = None
    media: tuple[str, ...] = ()
    events: type[BaseModel] | None = None
    answers: str = JSON
    gives: type[BaseModel] | None = None
    open: bool = False
    verb: str = ""

    @property
    def method(self) -> str:
        """The ``verb``, else POST where there is a body."""
        if self.verb:
            return self.verb
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
    models += [told for e in endpoints for told in (e.gives, e.events) if told is not None]
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
        answers: dict[str, Any] = {endpoint.answers: {}}
        if endpoint.gives is not None:
            answers[endpoint.answers] = {"schema": made[endpoint.gives, "validation"]}
        if endpoint.events is not None:  # the schema of each event's data
            answers[EVENTS] = {"schema": made[endpoint.events, "validation"]}
        operation = _operation(endpoint, body, answers, keyed=keyed)
        paths.setdefault(path, {})[endpoint.method.lower()] = operation
    components: dict[str, Any] = {"schemas": schemas}
    if keyed:
        components["securitySchemes"] = _KEYS
    return {
        "openapi": "3.1.0",
        "info": {"title": name, "version": __version__},
        "paths": paths,
        "components": components,
    }


def naming(made: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A document whose fields and paths that take a model say which there are."""
    found: dict[str, Any] = copy.deepcopy(dict(made))
    bodies = [*found["components"]["schemas"].values()]
    for path, operations in found["paths"].items():
        for operation in operations.values():
            content = operation.get("requestBody", {}).get("content", {})
            bodies += [kind["schema"] for kind in content.values()]
            for parameter in operation.get("parameters", ()) if path in _BY_NAME else ():
                parameter["schema"] = {"type": "string", "enum": list(names)}
    for body in bodies:
        field = body.get("properties", {}).get("model")
        if field is not None:
            kinds = [one.get("type") for one in field.get("anyOf", [field])]
            field["enum"] = [*names, *([None] if "null" in kinds else [])]
    return found


def _operation(endpoint: Endpoint, body: Any, answers: Any, *, keyed: bool) -> dict[str, Any]:
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
        made["security"] = [{name: []} for name in _KEYS]  # any of them
    return made


_KEYS: dict[str, Any] = {
    "key": {"type": "http", "scheme": "bearer"},
    **{
        name.decode(): {"type": "apiKey", "in": "header", "name": name.decode()}
        for name in KEY_HEADERS
    },
}
_BY_NAME = ("/v1/models/{name}",)
_ERROR_REF = {"$ref": "#/components/schemas/Error"}
