"""Web archives: WARC as crawlers write it (WET included), and its forerunner ARC.

Both are read by our own few lines and not by a library of compiled code: what a crawl brings is
never to be trusted, and a library that stops the process cannot be quarantined.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar
from urllib.parse import urlsplit

from modelwright.data.http_message import parse_answer, read_headers
from modelwright.data.media_types import modality_of
from modelwright.data.parts import MAX_MEDIA_BYTES, Piece, cut_lines, over
from modelwright.data.readers.reader import Bad, Item, Passed, Range, new_row

_CHARSET = re.compile(r"charset\s*=\s*[\"']?([A-Za-z0-9_.:-]{2,40})", re.IGNORECASE)
_TYPES = ("warcinfo", "request", "response", "metadata", "revisit", "resource", "conversion")
_TEXT_TYPES = ("text/plain", "text/html", "application/xhtml+xml")


@dataclass(frozen=True)
class Reader:
    """Pages of a web archive; the pages of one host keep together in a split.

    Attributes:
        types: the media types that become rows; others are passed over.
    """

    version: ClassVar[int] = 2
    suffixes: ClassVar[tuple[str, ...]] = (".warc", ".arc", ".wet")
    folders: ClassVar[bool] = False
    types: tuple[str, ...] = _TEXT_TYPES

    def cut(self, path: Path) -> list[Range]:
        """One range, since an archive is read from its begin; a plain tar is cut at members."""
        return cut_lines(path) if path.suffix.lower() == ".tar" else [Range()]

    def rows(self, path: Path, part: Range) -> Iterator[Item]:
        """A row for each answer of status 200 and each conversion (the texts of WET files).

        Everything else is passed over, and counted by reason.

        HTML becomes ``media`` for the step ``extract``, plain text becomes ``text``. The id is
        the record's offset in the unpacked archive; ``meta`` holds url, date, and the charset
        that the answer declares. Formats: ISO 28500 (WARC), and the ARC file format 1.0 of the
        Internet Archive.
        """
        return over(path, part, self.suffixes, self._pages)

    def _pages(self, piece: Piece) -> Iterator[Item]:
        offset = 0
        while True:
            piece.at = f"record at byte {offset}"
            first = piece.stream.peek(9)[:9]  # type: ignore[attr-defined]
            if not first:
                return
            if first[:1] in b"\r\n":
                offset += len(piece.stream.readline())
                continue
            take = self._warc if first.startswith(b"WARC/") else self._arc
            try:
                size, row = take(piece.stream, offset)
            except ValueError as error:
                yield Bad(piece.at, f"broken record ({error}); what follows is not read")
                return
            yield row
            offset += size

    def _warc(self, stream: IO[bytes], offset: int) -> tuple[int, Item]:
        _, headers, head = read_headers(stream)
        length = headers.get("content-length", "")
        if not length.isdecimal():
            raise ValueError("no length")
        kind = headers.get("warc-type", "")
        declared = headers.get("content-type", "")
        skip = kind not in ("response", "conversion", "resource")
        content = _content(stream, int(length), skip=skip)
        facts = {"url": headers.get("warc-target-uri", "").strip("<>")}
        facts |= {"date": headers.get("warc-date", ""), "record": headers.get("warc-record-id", "")}
        if language := headers.get("warc-identified-content-language"):
            facts["language"] = language
        row: Item = Passed(f"record of type {kind}" if kind in _TYPES else "record of another type")
        if kind == "response" and declared.lower().startswith("application/http"):
            row = self._answer(offset, facts, "", content)
        elif kind in ("conversion", "resource"):
            row = self._page(offset, facts, declared, content)
        return head + int(length), row

    def _arc(self, stream: IO[bytes], offset: int) -> tuple[int, Item]:
        """A line "url address date type length", and that many bytes."""
        line = stream.readline(1 << 16)
        fields = line.decode("utf-8", "replace").split(" ")
        if len(fields) < 5 or not fields[-1].strip().isdecimal():
            raise ValueError("neither WARC nor ARC")
        size = int(fields[-1])
        web = fields[0].startswith(("http:", "https:"))
        content = _content(stream, size, skip=not web)
        facts = {"url": fields[0], "date": fields[2]}
        if not web:
            return len(line) + size, Passed("record of another type")
        return len(line) + size, self._answer(offset, facts, fields[3], content)

    def _answer(self, offset: int, facts: dict[str, str], declared: str, content: bytes) -> Item:
        try:
            answer = parse_answer(content, MAX_MEDIA_BYTES)
        except ValueError as error:
            return Bad(f"record at byte {offset}", f"broken answer: {error}")
        if answer.status != 200:
            return Passed(f"answer of status {answer.status}")
        declared = answer.headers.get("content-type", declared)
        return self._page(offset, facts, declared, answer.body)

    def _page(self, offset: int, facts: dict[str, str], declared: str, body: bytes) -> Item:
        mime = declared.partition(";")[0].strip().lower()
        if mime not in self.types:
            return Passed("answer of another media type")
        if not body.strip():
            return Passed("empty answer")
        if len(body) > MAX_MEDIA_BYTES:
            return Bad(f"record at byte {offset}", f"holds more than {MAX_MEDIA_BYTES} bytes")
        if charset := _CHARSET.search(declared):
            facts["charset"] = charset[1]
        groups = [f"host={host}"] if (host := _host(facts["url"])) else []
        if mime != "text/plain":
            kind = modality_of(mime)
            return new_row(str(offset), kind, media=body, mime=mime, groups=groups, meta=facts)
        text = _decoded(body, facts.get("charset", "utf-8"))
        if text is None:
            return Bad(f"record at byte {offset}", "text in another encoding than declared")
        return new_row(str(offset), text=text, groups=groups, meta=facts)


def _content(stream: IO[bytes], size: int, *, skip: bool) -> bytes:
    """The content of a record, of which no more than MAX_MEDIA_BYTES and one byte are held.

    Raises:
        EOFError: the stream ends before.
    """
    keep = 0 if skip else min(size, MAX_MEDIA_BYTES + 1)
    content = stream.read(keep)
    rest = size - len(content)
    while len(content) == keep and rest:
        passed = len(stream.read(min(rest, 1 << 20)))
        if not passed:
            break
        rest -= passed
    if rest:
        raise EOFError("it ends within a record")
    return content


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _decoded(body: bytes, charset: str) -> str | None:
    try:
        text = body.decode(charset)
    except (UnicodeDecodeError, LookupError):
        return None
    return None if "\0" in text else text
