"""What every request passes before a route sees it: origin, key, size; and the error bodies.

Closed unless opened: the checks look at the path last, so a route added later is guarded.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Collection
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modelwright.serving.keys import Client, Keys
from modelwright.serving.limits import Limits
from modelwright.serving.metrics import Metrics
from modelwright.serving.openai import ApiError
from modelwright.serving.origins import Origins, preflight

# These tell nothing about the model or its users.
OPEN_PATHS = frozenset({"/", "/health", "/ready"})
ADMIN = "/admin"  # what lies below has a key of its own
KEY_HEADERS = (b"api-key", b"x-api-key")  # beside Authorization: Bearer
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
GONE = 499  # what is counted where the client left before an answer
_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,64}")

_log = logging.getLogger(__name__)
access = logging.getLogger("modelwright.serving.access")  # a line a request, at the level INFO


class Guard:
    """ASGI middleware: refuses what may not pass and turns every error into OpenAI's shape.

    Without a key only this machine may ask, so Host and Origin must name it, or what ``origins``
    allows, whatever the method; Host also with a key, where names are allowed. With keys every path
    but ``OPEN_PATHS`` needs one, at the rate that it may have. What passed is told to the access
    log in a line each: numbers and names of ours, nothing of what was asked.

    Args:
        app: what is guarded.
        keys: who may ask.
        admin: who may ask below ``ADMIN``, and nobody else; that key opens nothing else.
        metrics: where requests are counted.
        media_paths: paths whose bodies may hold pictures or sound.
        origins: names and pages beside this machine's own; no page is let in below ``ADMIN``.
        limits: of bodies.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Keys,
        admin: Keys | None = None,
        metrics: Metrics | None = None,
        media_paths: Collection[str] = (),
        origins: Origins | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.app, self._keys, self._admin = app, keys, admin or Keys()
        self._metrics, self._media = metrics or Metrics(), frozenset(media_paths)
        self._origins, self._limits = origins or Origins(), limits or Limits()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request, hand it on, answer its errors."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = _request_id(headers)
        page = None if _administers(scope) else self._origins.page(headers)
        status, began = 0, time.monotonic()

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                marks = [
                    (b"x-request-id", request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    *self._origins.marks(page),
                ]
                message = {**message, "headers": [*message.get("headers", ()), *marks]}
            await send(message)

        error: ApiError | None = None
        try:
            self._check_head(scope)
            self._check_names(headers)
            leave = None if page is None else preflight(scope["method"], headers)
            if leave is None:
                scope.setdefault("state", {})["client"] = self._check(scope, headers)
                await self.app(scope, _limited(receive, self._most(scope)), send_marked)
            else:  # a browser sends no key with it
                await Response(status_code=204, headers=leave)(scope, receive, send_marked)
        except ApiError as refusal:
            error = refusal
        except Exception:
            _log.exception("request %s failed", request_id)
            error = internal_error(request_id)
        if error is not None and not status:
            if error.status < 500:
                self._metrics.add("requests_rejected_total", reason=error.code or "other")
            response = JSONResponse(error.body(), error.status, dict(error.headers))
            await response(scope, receive, send_marked)
        self._note(scope, request_id, status, time.monotonic() - began)

    def _note(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        """Count a request and tell the access log of it."""
        # The route's own pattern: what a client writes as a path is neither counted nor shown.
        path = getattr(scope.get("route"), "path", "other")
        self._metrics.add("requests_total", endpoint=path, status=str(status or GONE))
        client = scope.get("state", {}).get("client")  # none of a request that was refused
        access.info(
            "%s %s %s %d %.3f s %s",
            request_id,
            scope["method"] if scope["method"] in METHODS else "other",
            path,
            status or GONE,
            seconds,
            client.name if client else "-",
        )

    def _check_names(self, headers: dict[bytes, bytes]) -> None:
        """Refuse who asks for another server than this, or from another's page without a key.

        Raises:
            ApiError: 403.
        """
        if (not self._keys or self._origins.hosts) and not self._origins.named(headers):
            raise _forbidden("Host")
        if not self._keys and not self._origins.near(headers):
            raise _forbidden("Origin")

    def _check_head(self, scope: Scope) -> None:
        """Refuse a head that is too long: one that came in a single piece h11 has taken whole.

        Raises:
            ApiError: 400.
        """
        size = len(scope.get("raw_path") or b"") + len(scope["query_string"])
        size += sum(len(name) + len(value) for name, value in scope["headers"])
        if size > (most := self._limits.header_bytes):
            message = f"the request line and headers are larger than {most} bytes; send less"
            raise ApiError(400, message, code="headers_too_large")

    def _most(self, scope: Scope) -> int:
        """Bytes of a body at this path."""
        media = scope["path"] in self._media
        return self._limits.media_bytes if media else self._limits.body_bytes

    def _check(self, scope: Scope, headers: dict[bytes, bytes]) -> Client | None:
        """Whose request it is; None where there are no keys.

        Raises:
            ApiError: it may not pass.
        """
        client: Client | None = None
        if self._admin and _administers(scope):
            client = self._client(headers, self._admin)
        elif self._keys and scope["path"] not in OPEN_PATHS:
            client = self._client(headers, self._keys)
            if scope["method"] == "POST" and (wait := client.admitted(self._keys.clock())):
                message = f"this key has used its rate; try again in {wait} seconds"
                again = (("Retry-After", str(wait)),)
                raise ApiError(
                    429, message, "rate_limit_error", code="rate_limit_exceeded", headers=again
                )
        length = headers.get(b"content-length", b"0")
        most = self._most(scope)
        if not length.isdigit() or int(length[:20]) > most:
            raise _too_large(most)
        return client

    def _client(self, headers: dict[bytes, bytes], keys: Keys) -> Client:
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        sent = [given] if scheme.lower() == b"bearer" else []
        sent += [headers[name] for name in KEY_HEADERS if name in headers]
        known = [client for key in sent if (client := keys.client(key)) is not None]
        client = known[0] if known else None
        if client is None:
            raise ApiError(
                401,
                "the API key is missing or wrong; send it as 'Authorization: Bearer KEY', or as "
                "'api-key' or 'x-api-key'",
                type="authentication_error",
                code="invalid_api_key",
                headers=(("WWW-Authenticate", "Bearer"),),
            )
        return client


def _administers(scope: Scope) -> bool:
    return f"{scope['path']}/".startswith(f"{ADMIN}/")


def _request_id(headers: dict[bytes, bytes]) -> str:
    """The client's own id, where it is a plain word, or a new one."""
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    return given if _PLAIN.fullmatch(given) else f"req-{secrets.token_hex(8)}"


def _limited(receive: Receive, most: int) -> Receive:
    """Stop reading a body at the limit, also one that did not announce its length."""
    size = 0

    async def counted() -> Any:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > most:
            raise _too_large(most)
        return message

    return counted


def _too_large(most: int) -> ApiError:
    message = f"the request body is larger than {most} bytes; send less"
    return ApiError(413, message, code="request_too_large")


def _forbidden(header: str) -> ApiError:
    message = f"the {header} header names neither this machine nor what the server allows beside it"
    return ApiError(403, message, type="permission_error", code="forbidden_origin")


def internal_error(request_id: str) -> ApiError:
    """The fixed text for whatever was not foreseen: details go to the log, never to a client."""
    message = f"the server failed on this request; its log has the details under {request_id}"
    return ApiError(500, message, type="api_error", code="internal_error")
