"""Which names a server answers to, and the pages of which other sites may ask it.

Without more said, none but this machine's own. A page that may is answered with its own origin, as
the Fetch standard's protocol (CORS) wants it: never with ``*``, and never with a leave to send
cookies, which this server does not read.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from modelwright.errors import ModelwrightError

Headers = list[tuple[bytes, bytes]]

PREFLIGHT_SECONDS = 600  # for which a browser may remember a leave
_ASKED = re.compile(r"[A-Za-z0-9-]+(, ?[A-Za-z0-9-]+)*")
_LONGEST = 2000  # characters of the headers that a page wants to send


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


def host_of(url: str) -> str | None:
    """The host of a URL that has nothing but scheme, host and port; None for anything else."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for a port that is not a number
    except ValueError:
        return None
    plain = not (parts.username or parts.password or parts.path or parts.query or parts.fragment)
    return parts.hostname if plain and parts.scheme in ("", "http", "https") else None


@dataclass(frozen=True)
class Origins:
    """Names of this server, and origins of pages of other sites, as ``allowed`` makes them.

    Attributes:
        hosts: names or addresses without port that Host may bear, beside this machine's own.
        pages: origins such as ``https://chat.example`` whose pages may ask and read the answers.
    """

    hosts: frozenset[str] = frozenset()
    pages: frozenset[str] = frozenset()

    def named(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether Host names this machine, or one of ``hosts``."""
        host = host_of("//" + headers.get(b"host", b"").decode("latin-1"))
        return host is not None and self._ours(host)

    def near(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether the page that asks, if it is one, is of this machine, ``hosts`` or ``pages``."""
        if b"origin" not in headers or self.page(headers) is not None:
            return True
        host = host_of(headers[b"origin"].decode("latin-1"))
        return host is not None and self._ours(host)

    def _ours(self, host: str) -> bool:
        return is_loopback(host) or host in self.hosts

    def page(self, headers: Mapping[bytes, bytes]) -> bytes | None:
        """The origin of the page that asks, where it is one of ``pages``."""
        origin = headers.get(b"origin", b"")
        return origin if origin.decode("latin-1") in self.pages else None

    def marks(self, page: bytes | None) -> Headers:
        """What an answer says to a browser: that this page, and no other, may read it."""
        if not self.pages:
            return []
        told = [(b"vary", b"Origin")]
        if page is not None:
            told += [
                (b"access-control-allow-origin", page),
                (b"access-control-expose-headers", b"X-Request-Id, Retry-After"),
            ]
        return told


def preflight(method: str, headers: Mapping[bytes, bytes]) -> dict[str, str] | None:
    """The answer's headers where a browser asks for leave on behalf of a page; else None."""
    if method != "OPTIONS" or b"access-control-request-method" not in headers:
        return None
    told = {
        "Access-Control-Allow-Methods": "GET, POST",
        "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
    }
    asked = headers.get(b"access-control-request-headers", b"").decode("latin-1")
    if len(asked) <= _LONGEST and _ASKED.fullmatch(asked):
        # Which headers a page sends tells nothing and opens nothing: the key in them does.
        told["Access-Control-Allow-Headers"] = asked
    return told


def allowed(hosts: Iterable[str], pages: Iterable[str]) -> Origins:
    """The names and origins that somebody has written.

    Raises:
        ModelwrightError: one is none, or stands for all.
    """
    return Origins(frozenset(_host(one) for one in hosts), frozenset(_origin(one) for one in pages))


def _host(text: str) -> str:
    inside = f"[{text}]" if text.count(":") > 1 else text  # an IPv6 address has no port here
    host = host_of(f"//{inside}")
    if host is None or host != text.lower().strip("[]") or not re.fullmatch(r"[0-9a-z:._-]+", host):
        raise ModelwrightError(
            f"allow host: {text!r} is no name or address alone; write it like models.example"
        )
    return host


def _origin(text: str) -> str:
    host = host_of(text)
    found = text.lower()
    if host is None or not re.fullmatch(r"https?://[0-9a-z:._\[\]-]+", found):
        raise ModelwrightError(
            f"allow origin: {text!r} is no origin; name each page's scheme and host, and its port "
            "where that is not the usual one, like https://chat.example; there is no word for all"
        )
    scheme = found.partition(":")[0]
    return found.removesuffix({"http": ":80", "https": ":443"}[scheme])  # as browsers send it
