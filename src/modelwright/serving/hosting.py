"""What every server here needs: an address to listen on, a body to read, a page's headers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import hashlib
import re
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest

from modelwright.errors import MachineError, ModelwrightError
from modelwright.serving.connection import protocol
from modelwright.serving.guard import GONE
from modelwright.serving.limits import Limits
from modelwright.serving.openai import ApiError
from modelwright.serving.origins import is_loopback

JSON = "application/json"
FORM = "multipart/form-data"


async def body_of(
    request: HttpRequest, kinds: Sequence[str], seconds: float = Limits.body_seconds
) -> tuple[str, bytes]:
    """(type, bytes) of the request's body, which must be of one of ``kinds`` and come in time.

    Raises:
        ApiError: another type, compressed, too slow, or a client that left meanwhile.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in kinds or "content-encoding" in request.headers:
        message = f"send the body uncompressed with the header 'Content-Type: {kinds[0]}'"
        raise ApiError(415, message, code="unsupported_media_type")
    try:
        async with asyncio.timeout(seconds):
            return kind, await request.body()
    except TimeoutError:
        message = f"the body did not arrive within {seconds:g} seconds"
        raise ApiError(408, message, code="request_timeout") from None
    except ClientDisconnect:
        raise ApiError(GONE, "the client has left", code="client_gone") from None


async def json_body(request: HttpRequest, seconds: float = Limits.body_seconds) -> bytes:
    """The request's body, which must be plain JSON by its headers and come in time.

    A page of another site can send forms without asking first, but not this type.

    Raises:
        ApiError: another type, compressed, or too slow.
    """
    return (await body_of(request, [JSON], seconds))[1]


def page_headers(html: str, images: str = "data:") -> dict[str, str]:
    """Headers that let the page run its own script and style and reach this server, no more."""

    def hashes(tag: str) -> str:
        found = re.findall(rf"<{tag}>(.*?)</{tag}>", html, flags=re.DOTALL)
        digests = [hashlib.sha256(text.encode()).digest() for text in found]
        return " ".join(f"'sha256-{base64.b64encode(d).decode()}'" for d in digests)

    policy = (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; "
        f"connect-src 'self'; img-src {images}; media-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }


class _Server(uvicorn.Server):
    """Says that it was told to stop, before it does."""

    told: Callable[[], None]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.told()
        super().handle_exit(sig, frame)


@dataclass(frozen=True)
class Tls:
    """Files in PEM: the certificate with its chain, and its key."""

    certificate: Path
    key: Path


def host_app(
    app: Starlette,
    what: str,
    *,
    host: str,
    port: int,
    keyed: bool,
    limits: Limits | None = None,
    tls: Tls | None = None,
    told: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGTERM or Ctrl-C; then refuse what is new and finish what is under way.

    Args:
        app: the application; it must check keys itself.
        what: what the printed line says is served.
        host: an address or name of this machine.
        port: 0 takes a free one; the address is printed.
        keyed: whether it asks for keys; if not, only this machine is served.
        limits: of connections and times.
        tls: HTTPS instead of HTTP.
        told: called when the server is told to stop.

    Raises:
        ModelwrightError: the host is reachable by others and no key is set, or is no address.
        MachineError: the port is taken or not allowed.
    """
    limits = limits or Limits()
    if not keyed and not is_loopback(host):
        raise ModelwrightError(
            f"host: {host} can be reached by others; set an API key, or serve on 127.0.0.1"
        )
    listener = listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    config = uvicorn.Config(
        app,
        http=protocol(limits),
        h11_max_incomplete_event_size=limits.header_bytes,
        timeout_keep_alive=int(limits.idle_seconds),
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(limits.drain_seconds),
        ssl_certfile=tls.certificate if tls else None,
        ssl_keyfile=tls.key if tls else None,
    )
    try:
        config.load()
    except OSError as error:  # also ssl.SSLError
        listener.close()
        raise ModelwrightError(f"tls: the certificate or its key cannot be used: {error}") from None
    server = _Server(config)
    server.told = told
    allow_connections(limits.connections)
    with listener, signals_returned():
        address = f"{'https' if tls else 'http'}://{shown}:{listener.getsockname()[1]}"
        print(f"serving {what} at {address} (Ctrl-C stops)", flush=True)
        server.run(sockets=[listener])


def allow_connections(count: int) -> None:
    """Let this process open so many files, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 256
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


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
        listener.listen(1024)
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
