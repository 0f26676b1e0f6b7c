"""An answer of a web server as archives keep it: status, headers, and the body unpacked."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import IO

_HEAD_END = re.compile(rb"\r?\n\r?\n")
MAX_HEADERS = 200


@dataclass(frozen=True)
class Answer:
    """What a server said.

    Attributes:
        status: such as 200.
        headers: by lower-case name; the last of several of one name.
        body: as sent, or unpacked.
    """

    status: int
    headers: dict[str, str]
    body: bytes


def read_headers(stream: IO[bytes]) -> tuple[str, dict[str, str], int]:
    """A first line and the headers up to an empty line, and how many bytes that were.

    Raises:
        ValueError: a line is no header, too long, or there are too many.
        EOFError: the stream ends among them.
    """
    headers: dict[str, str] = {}
    first, size, last = "", 0, ""
    for _ in range(MAX_HEADERS):
        raw = stream.readline(1 << 16)
        size += len(raw)
        if not raw:
            if first:
                raise EOFError("it ends among the headers of a record")
            return "", {}, size
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if not line:
            if first:
                return first, headers, size
        elif not first:
            first = line
        elif line[0] in " \t" and last:
            headers[last] += " " + line.strip()
        else:
            name, colon, value = line.partition(":")
            if not colon or not raw.endswith(b"\n"):
                raise ValueError("a line is no header")
            last = name.strip().lower()
            headers[last] = value.strip()
    raise ValueError("too many headers")


def parse_answer(content: bytes, most: int) -> Answer:
    """An HTTP answer; its body is unchunked and unpacked from gzip or deflate.

    Args:
        content: head and body.
        most: bytes that the unpacked body may have.

    Raises:
        ValueError: it is no answer, or its body is not packed as it says.
    """
    found = _HEAD_END.search(content)
    head, body = (content[: found.start()], content[found.end() :]) if found else (content, b"")
    lines = head.decode("latin-1").splitlines()
    status = lines[0].split(None, 2) if lines else []
    if len(status) < 2 or not status[0].startswith("HTTP/") or not status[1].isdecimal():
        raise ValueError("no status line")
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = _unchunked(body)
    packing = headers.get("content-encoding", "").lower()
    if packing in ("gzip", "x-gzip", "deflate"):
        body = _inflated(body, packing, most)
    elif packing not in ("", "identity", "utf-8", "none"):
        raise ValueError(f"packed with {packing!r}, which is not read")
    return Answer(int(status[1]), headers, body)


def _unchunked(body: bytes) -> bytes:
    """A chunked body joined; one that is not chunked in spite of its header is left alone."""
    chunks: list[bytes] = []
    at = 0
    while True:
        end = body.find(b"\n", at)
        size = body[at:end].split(b";")[0].strip() if end >= 0 else b""
        try:
            length = int(size, 16)
        except ValueError:
            return b"".join(chunks) if chunks else body
        if length == 0:
            return b"".join(chunks)
        chunks.append(body[end + 1 : end + 1 + length])
        at = body.find(b"\n", end + 1 + length) + 1
        if at == 0:
            return b"".join(chunks)


def _inflated(body: bytes, packing: str, most: int) -> bytes:
    """A packed body unpacked; archives often keep it unpacked under its old header."""
    if packing != "deflate" and not body.startswith(b"\x1f\x8b"):
        return body
    for window in (47, -15) if packing == "deflate" else (47,):
        unpacker = zlib.decompressobj(window)
        try:
            found = unpacker.decompress(body, most)
        except zlib.error:
            continue
        if unpacker.unconsumed_tail:
            raise ValueError(f"unpacks to more than {most} bytes")
        return found
    raise ValueError(f"not packed with {packing} as its header says")
