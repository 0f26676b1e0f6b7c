"""Lines of text of any encoding, one at a time, however long the file or a line of it.

UTF-8 is meant unless a byte order mark or the content says otherwise; what is guessed is told to
whoever asked, so that it can be kept beside the rows.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from typing import IO, Any

from modelwright.data.parts import FAULTS, Piece
from modelwright.data.readers.reader import Bad
from modelwright.errors import ModelwrightError

MAX_LINE_BYTES = 32 << 20
SAMPLE_BYTES = 1 << 16
_WIDE = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_FEW = 8  # so few broken bytes are an accident, not another encoding
_COMMON_HAN = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得"
)


def sniff(head: bytes) -> str:
    """The encoding of a text by its first bytes, as Python calls it.

    In this order: a byte order mark; UTF-8, of which a few broken bytes are forgiven; UTF-16 by
    its zero bytes; GB18030 by the most common characters of Chinese; else what
    charset-normalizer says, and UTF-8 where it does not know either.
    """
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if (wide := _by_zeros(head)) or head.isascii():
        return wide or "utf-8"
    broken = head.decode("utf-8", "replace").count("\ufffd")
    whole = len(head.decode("utf-8", "ignore").encode())
    if broken < _FEW or len(head) - whole < max(_FEW, len(head) // 1000):
        return "utf-8"
    chinese = head.decode("gb18030", "ignore")
    wide_chars = [c for c in chinese if c > "\u3000"]
    if sum(c in _COMMON_HAN for c in wide_chars) > max(2, len(wide_chars) // 20):
        return "gb18030"
    try:
        from charset_normalizer import from_bytes  # noqa: PLC0415 - slow to import, rarely needed
    except ImportError:
        return "utf-8"
    best = from_bytes(head).best()
    return best.encoding.replace("_", "-") if best else "utf-8"


def _by_zeros(head: bytes) -> str:
    """UTF-16 without a mark: every other byte of Latin text is zero."""
    even, odd = head[0::2].count(0), head[1::2].count(0)
    many = len(head) // 8
    if many and max(even, odd) > many and min(even, odd) * 8 < max(even, odd):
        return "utf-16-be" if even > odd else "utf-16-le"
    return ""


def known_encoding(name: str) -> str:
    """The encoding a recipe names, as Python calls it.

    Raises:
        ModelwrightError: there is none of this name.
    """
    try:
        return codecs.lookup(name).name
    except LookupError as error:
        raise ModelwrightError(
            f"encoding: {name!r} is not known: utf-8, gb18030, big5, utf-16, ... are meant"
        ) from error


class _Joined(io.RawIOBase):
    """A head that was read already, and the rest of its stream."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        super().__init__()
        self.head, self.rest = memoryview(head), rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.head:
            size = min(len(buffer), len(self.head))
            buffer[:size], self.head = self.head[:size], self.head[size:]
            return size
        chunk: bytes = self.rest.read1(len(buffer))  # type: ignore[attr-defined]
        buffer[: len(chunk)] = chunk
        return len(chunk)


class _Narrowed(io.RawIOBase):
    """UTF-16 or UTF-32 as UTF-8; what is broken stays broken, for its line to be refused."""

    def __init__(self, wide: IO[bytes], encoding: str) -> None:
        super().__init__()
        self.wide, self.decoder = wide, codecs.getincrementaldecoder(encoding)("surrogatepass")
        self.ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.ready:
            chunk = self.wide.read(SAMPLE_BYTES)
            try:
                text = self.decoder.decode(chunk, not chunk)
            except UnicodeDecodeError:
                text, self.wide = "\udcff", io.BytesIO()
                self.decoder.reset()
            self.ready = text.encode("utf-8", "surrogatepass")
            if not chunk and not self.ready:
                return 0
        size = min(len(buffer), len(self.ready))
        buffer[:size], self.ready = self.ready[:size], self.ready[size:]
        return size


def peeked(stream: IO[bytes]) -> tuple[bytes, IO[bytes]]:
    """The first SAMPLE_BYTES of a stream, and a stream that still begins with them.

    Where the stream is damaged before, they are fewer; reading on says so again.
    """
    head = b""
    try:
        while len(head) < SAMPLE_BYTES:
            chunk: bytes = stream.read1(SAMPLE_BYTES)  # type: ignore[attr-defined]
            if not chunk:
                break
            head += chunk
    except FAULTS:
        if not head:
            raise
    return head, io.BufferedReader(_Joined(head, stream), 1 << 18)


class Guessed(str):
    """A line that was read in another encoding than the lines around it."""


def lines(piece: Piece, encoding: str = "", otherwise: str = "") -> Iterator[str | Bad]:
    """The lines of a piece with their ends; what cannot be a line of text is ``Bad``.

    ``piece.line`` is the number of the line given last. ``piece.facts["encoding"]`` says what was
    guessed, where it is not UTF-8.

    Args:
        piece: the stream; it ends at ``piece.end``.
        encoding: as declared; "" guesses.
        otherwise: of formats that say what is meant where nothing is declared: the encoding of
            the lines that are not UTF-8, which are ``Guessed``.
    """
    left = None if piece.end is None else piece.end - piece.stream.tell()
    head, stream = peeked(piece.stream)
    name = known_encoding(encoding) if encoding else sniff(head)
    otherwise = "" if encoding else otherwise
    if otherwise and name in _WIDE:
        otherwise = ""
    elif otherwise:
        name = "utf-8"
    if not encoding and name not in ("utf-8", "utf-8-sig"):
        piece.facts["encoding"] = name
    if name in _WIDE:
        stream, name, left = io.BufferedReader(_Narrowed(stream, name)), "utf-8", None
    skip = 3 if head.startswith(codecs.BOM_UTF8) and name in ("utf-8", "utf-8-sig") else 0
    stream.read(skip)
    codec = "utf-8" if name == "utf-8-sig" else name
    for raw in _raw_lines(piece, stream, None if left is None else left - skip):
        if isinstance(raw, Bad):
            yield raw
            continue
        try:
            text = raw.decode(codec)
        except UnicodeDecodeError:
            if not otherwise:
                yield Bad(f"line {piece.line}", f"not {codec.upper()}; declare its 'encoding'")
                continue
            text = Guessed(raw.decode(otherwise, "replace"))
        yield Bad(f"line {piece.line}", "holds NUL bytes") if "\0" in text else text


def _raw_lines(piece: Piece, stream: IO[bytes], left: int | None) -> Iterator[bytes | Bad]:
    piece.line = piece.first - 1
    while left is None or left > 0:
        raw = stream.readline(MAX_LINE_BYTES)
        if not raw:
            return
        piece.line += 1
        size = len(raw)
        if size == MAX_LINE_BYTES and not raw.endswith(b"\n"):
            while (more := stream.readline(1 << 20)) and not more.endswith(b"\n"):
                size += len(more)
            size += len(more)
            yield Bad(f"line {piece.line}", f"longer than {MAX_LINE_BYTES} bytes")
        else:
            yield raw
        left = None if left is None else left - size
