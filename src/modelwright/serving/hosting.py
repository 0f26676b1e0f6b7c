"""What every server here needs: an address to listen on, a body to read, a page's headers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import hashlib
import re
import signal
import socket
import threading
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest

from modelwright.errors import MachineError, ModelwrightError
from modelwright.serving.guard import is_loopback
from modelwright.serving.openai import ApiError

BODY_SECONDS = 30.0  # to send a whole request body
DRAIN_SECONDS = 30.0  # for answers under way when the server is told to stop


async def json_body(request: HttpRequest) -> bytes:
    """The request's body, which must be plain JSON by its headers and come in time.

    Raises:
        ApiError: another type, compressed, or too slow.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # A page of another site can send forms without asking first, but not this type.
    if kind != "application/json" or "content-encoding" in request.headers:
        message = "send the body uncompressed with the header 'Content-Type: application/json'"
        raise ApiError(415, message, code="unsupported_media_type")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.body()
    except TimeoutError:
        message = f"the body did not arrive within {BODY_SECONDS:.0f} seconds"
        raise ApiError(408, message, code="request_timeout") from None


def page_headers(html: str, images: str = "data:") -> dict[str, str]:
    """Headers that let the page run its own script and style and reach this server, no more."""

    def hashes(tag: str) -> str:
        found = re.findall(rf"<{tag}>(.*?)</{tag}>", html, flags=re.DOTALL)
        digests = [hashlib.sha256(text.encode()).digest() for text in found]
        return " ".join(f"'sha256-{base64.b64encode(d).decode()}'" for d in digests)

    policy = (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; "
        f"connect-src 'self'; img-src {images}; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }


def host_app(app: Starlette, what: str, *, host: str, port: int, key: str | None) -> None:
    """Serve until SIGTERM or Ctrl-C; then refuse what is new and finish what is under way.

    Args:
        app: the application; it must check ``key`` itself.
        what: what the printed line says is served.
        host: an address or name of this machine.
        port: 0 takes a free one; the address is printed.
        key: None serves this machine only.

    Raises:
        ModelwrightError: the host is reachable by others and no key is set, or is no address.
        MachineError: the port is taken or not allowed.
    """
    if key is None and not is_loopback(host):
        raise ModelwrightError(
            f"host: {host} can be reached by others; set an API key, or serve on 127.0.0.1"
        )
    listener = listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(DRAIN_SECONDS),
    )
    with listener, signals_returned():
        address = f"http://{shown}:{listener.getsockname()[1]}"
        print(f"serving {what} at {address} (Ctrl-C stops)", flush=True)
        uvicorn.Server(config).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, so that what is wrong with the address is known before all else.

    Its protocol is named, not left to default: asyncio sends small pieces at once (TCP_NODELAY)
    only then, and a stream of tokens is nothing but small pieces.
    """
    if not 0 <= port <= 65535:
        raise ModelwrightError(f"port: {port} is not between 0 (any free one) and 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, OverflowError, UnicodeError):
        raise ModelwrightError(f"host: {host} is no address of this machine") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        reason = {
            errno.EADDRINUSE: "is in use",
            errno.EACCES: "is not allowed for this user",
        }.get(error.errno or 0, f"cannot be opened ({error.strerror})")
        raise MachineError(f"port {port} on {host} {reason}; choose another with --port") from None
    return listener


@contextlib.contextmanager
def signals_returned() -> Iterator[None]:
    """Let uvicorn's shutdown end in a return: it raises the signal again once it is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stop = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: None) for number in stop}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
