"""What every request passes before a route sees it: origin, key, size; and the error bodies.

Closed unless opened: the checks look at the path last, so a route added later is guarded.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import secrets
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modelwright.serving.openai import MAX_BODY_BYTES, ApiError

OPEN_PATHS = frozenset({"/", "/health"})  # these tell nothing about the model or its users

_log = logging.getLogger(__name__)


def is_loopback(host: str) -> bool:
    """Whether a host name or address, without port, can only mean this machine.

    Names other than "localhost" are not resolved: a page on the web may have its own name
    point here (DNS rebinding).
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware: refuses what may not pass and turns every error into OpenAI's shape.

    Without a key only this machine may ask, so Host and Origin must name it, whatever the
    method. With a key every path but ``OPEN_PATHS`` needs it.
    """

    def __init__(self, app: ASGIApp, *, api_key: str | None) -> None:
        self.app = app
        self._key = None if api_key is None else api_key.encode("ascii")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request, hand it on, answer its errors."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = f"req-{secrets.token_hex(8)}"
        started = False

        async def send_marked(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                marks = [
                    (b"x-request-id", request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
                message = {**message, "headers": [*message.get("headers", ()), *marks]}
            await send(message)

        try:
            self._check(scope)
            await self.app(scope, _limited(receive), send_marked)
            return
        except ApiError as refusal:
            error = refusal
        except Exception:
            _log.exception("request %s failed", request_id)
            error = internal_error(request_id)
        if not started:
            response = JSONResponse(error.body(), error.status, dict(error.headers))
            await response(scope, receive, send_marked)

    def _check(self, scope: Scope) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if self._key is None:
            _check_local(headers)
        elif scope["path"] not in OPEN_PATHS:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(given, self._key):
                raise ApiError(
                    401,
                    "the API key is missing or wrong; send it as 'Authorization: Bearer KEY'",
                    type="authentication_error",
                    code="invalid_api_key",
                    headers=(("WWW-Authenticate", "Bearer"),),
                )
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length[:20]) > MAX_BODY_BYTES:
            raise _too_large()


def _check_local(headers: dict[bytes, bytes]) -> None:
    host = _host_of("//" + headers.get(b"host", b"").decode("latin-1"))
    if host is None or not is_loopback(host):
        raise _forbidden("Host")
    if b"origin" in headers:
        origin = _host_of(headers[b"origin"].decode("latin-1"))
        if origin is None or not is_loopback(origin):
            raise _forbidden("Origin")


def _host_of(url: str) -> str | None:
    """The host of a URL that has nothing but scheme, host and port; None for anything else."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for a port that is not a number
    except ValueError:
        return None
    plain = not (parts.username or parts.password or parts.path or parts.query or parts.fragment)
    return parts.hostname if plain and parts.scheme in ("", "http", "https") else None


def _limited(receive: Receive) -> Receive:
    """Stop reading a body at the limit, also one that did not announce its length."""
    size = 0

    async def counted() -> Any:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MAX_BODY_BYTES:
            raise _too_large()
        return message

    return counted


def _too_large() -> ApiError:
    message = f"the request body is larger than {MAX_BODY_BYTES} bytes; send less"
    return ApiError(413, message, code="request_too_large")


def _forbidden(header: str) -> ApiError:
    message = f"the {header} header does not name this machine; without a key only it may ask"
    return ApiError(403, message, type="permission_error", code="forbidden_origin")


def internal_error(request_id: str) -> ApiError:
    """The fixed text for whatever was not foreseen: details go to the log, never to a client."""
    message = f"the server failed on this request; its log has the details under {request_id}"
    return ApiError(500, message, type="api_error", code="internal_error")
