"""The streams in a file: itself, unpacked, or the members of a tar or zip, within limits.

Nothing is written to disk and nothing is held whole, so a member's name cannot lead anywhere and
a bomb ends at its limit. What is refused or damaged is a ``Bad`` with its place; what was read
before it stays.
"""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from modelwright.data.archive import DAMAGED, MAX_MEMBERS, TooLarge, limited, opened, unpacked
from modelwright.data.readers.reader import (
    CUT_BYTES,
    Bad,
    Item,
    Passed,
    Range,
    inner_suffix,
    is_container,
)
from modelwright.errors import ModelwrightError

MAX_MEDIA_BYTES = 128 << 20  # one picture, recording or page
_NEAR_BYTES = 1 << 20  # how far a blank line is looked for
FAULTS = (*DAMAGED, tarfile.TarError, zipfile.BadZipFile, TooLarge, OSError, NotImplementedError)


@dataclass
class Piece:
    """A stream to read.

    Attributes:
        name: the member's name; "" for the file itself.
        stream: its bytes, unpacked.
        at: where the reading stands, for messages, unless it is a line.
        line: the number of the line read last; whoever reads keeps it up to date.
        first: the number of the first line, row or record in it.
        end: where to stop, in bytes of the stream's own ``tell``; None is the end.
        facts: what was found out about it, for ``meta``.
    """

    name: str
    stream: IO[bytes]
    at: str = ""
    line: int = 0
    first: int = 1
    end: int | None = None
    facts: dict[str, str] = field(default_factory=dict)

    def whole(self, limit: int = MAX_MEDIA_BYTES) -> bytes:
        """All bytes of it.

        Raises:
            TooLarge: they are more than ``limit``.
        """
        content = self.stream.read(limit + 1)
        if len(content) > limit:
            raise TooLarge(f"holds more than {limit} bytes")
        return content


Parse = Callable[[Piece], Iterator[Item]]


def reason(error: BaseException) -> str:
    """One line for what a file's reading ended with."""
    if isinstance(error, TooLarge):
        return str(error)
    if isinstance(error, NotImplementedError | RuntimeError):
        return f"cannot be unpacked ({error})"
    text = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
    return f"damaged or cut short ({text})"


def over(path: Path, part: Range, suffixes: tuple[str, ...], parse: Parse) -> Iterator[Item]:
    """The rows of a file or of the members of a container, whose names begin their ids.

    Args:
        path: the file, packed or not, or a tar or zip.
        part: what of it; (start, end) in bytes for plain files, and of headers for a plain tar.
        suffixes: the members to read, by what their names end in.
        parse: makes the rows of one stream; it may raise any of FAULTS.
    """
    for piece in pieces(path, part, suffixes):
        if isinstance(piece, Bad):
            yield piece
            continue
        try:
            for item in parse(piece):
                yield _named(item, piece.name)
        except FAULTS as error:
            at = piece.at or (f"line {piece.line + 1}" if piece.line else "")
            yield Bad(_joined(piece.name, at), reason(error))


def _named(item: Item, name: str) -> Item:
    if isinstance(item, Bad):
        return Bad(_joined(name, item.where), item.reason)
    if isinstance(item, Passed):
        return item
    own = str(item["id"])
    item["id"] = ":".join(part for part in (name, own) if part) or "1"
    return item


def _joined(*places: str) -> str:
    return ": ".join(place for place in places if place)


def pieces(path: Path, part: Range, suffixes: tuple[str, ...]) -> Iterator[Piece | Bad]:
    """The streams of a file in order; see ``over``. A stream is read before the next is asked."""
    try:
        if not is_container(path.name):
            with opened(path) as stream:
                if part.start:
                    stream.seek(part.start)
                yield Piece("", stream, first=part.first, end=part.end)
        elif inner_suffix(path.name) == ".zip":
            yield from _zip_pieces(path, suffixes)
        else:
            yield from _tar_pieces(path, part, suffixes)
    except FAULTS as error:
        yield Bad("", reason(error))


def cut_lines(
    path: Path,
    *,
    blank: bool = False,
    after: bytes | None = None,
    before: bytes = b"",
    quoted: bool = False,
) -> list[Range]:
    """Ranges of a plain file that begin at lines.

    Packed files and containers are one range, as is UTF-16; a plain tar is cut between members.

    Args:
        path: the file.
        blank: begin after a blank line, if there is one near.
        after: begin only after a line that holds just this.
        before: begin only with a line that begins so.
        quoted: lines within double quotes do not count, as in CSV.
    """
    bound = _Bound(blank, after, before, quoted)
    if is_container(path.name):
        return _cut_tar(path) if path.suffix.lower() == ".tar" else [Range()]
    if path.suffix.lower() != inner_suffix(path.name) or path.stat().st_size <= CUT_BYTES:
        return [Range()]
    ranges: list[Range] = []
    with path.open("rb") as stream:
        if b"\0" in stream.read(4096):
            return [Range()]
        stream.seek(0)
        start, first = 0, 1
        while True:
            lines, open_quote = _pass_over(stream, CUT_BYTES)
            lines += bound.found(stream, open_quote)
            end = stream.tell()
            if not stream.read(1):
                return [*ranges, Range(start, None, first)]
            stream.seek(end)
            ranges.append(Range(start, end, first))
            start, first = end, first + lines


def _pass_over(stream: IO[bytes], size: int) -> tuple[int, bool]:
    """Read on; the line ends met, and whether a quote is left open."""
    count = quotes = 0
    while size > 0 and (block := stream.read(min(1 << 20, size))):
        count += block.count(b"\n")
        quotes += block.count(b'"')
        size -= len(block)
    return count, quotes % 2 == 1


@dataclass(frozen=True)
class _Bound:
    """Where a range may begin; see ``cut_lines``."""

    blank: bool
    after: bytes | None
    before: bytes
    quoted: bool

    def found(self, stream: IO[bytes], open_quote: bool) -> int:
        """Go on to there; how many line ends were passed."""
        count, near, within = 0, _NEAR_BYTES, True
        while line := stream.readline(1 << 20):
            if self.before and not within and line.startswith(self.before):
                stream.seek(-len(line), io.SEEK_CUR)
                break
            open_quote ^= self.quoted and line.count(b'"') % 2 == 1
            near -= len(line)
            whole, within = not within, not line.endswith(b"\n")
            count += not within
            if not within and not (self.quoted and open_quote) and self._ends(line, whole, near):
                break
        return count

    def _ends(self, line: bytes, whole: bool, near: int) -> bool:
        """Whether what follows a line may begin a range."""
        if self.before:
            return False
        if self.after is not None:
            return whole and line.rstrip(b"\r\n") == self.after
        return not self.blank or near < 0 or (whole and not line.strip())


def _cut_tar(path: Path) -> list[Range]:
    """Ranges of a plain tar: offsets of headers, at least CUT_BYTES apart."""
    starts = [(0, 1)]
    try:
        with tarfile.open(path, "r:") as archive:
            for number, member in enumerate(archive, start=1):
                if member.offset - starts[-1][0] >= CUT_BYTES:
                    starts.append((member.offset, number))
                archive.members = []  # type: ignore[attr-defined] # else it keeps them all
    except FAULTS:
        pass  # whoever reads the last range finds the damage and says where
    ends = [start for start, _ in starts[1:]]
    return [Range(s, e, n) for (s, n), e in zip(starts, [*ends, None], strict=True)]


def _tar_pieces(path: Path, part: Range, suffixes: tuple[str, ...]) -> Iterator[Piece | Bad]:
    with opened(path) as packed:
        packed.seek(part.start) if part.start else None
        with tarfile.open(fileobj=packed, mode="r|") as archive:
            for number, member in enumerate(archive):
                if part.end is not None and part.start + member.offset >= part.end:
                    return
                if number >= MAX_MEMBERS:
                    raise TooLarge(f"more than {MAX_MEMBERS} members")
                archive.members = []  # type: ignore[attr-defined] # else it keeps them all
                if member.isdir():
                    continue
                why = _refused(member.name)
                if not member.isreg():
                    why = "a link or device in an archive is refused"
                if why:
                    yield Bad(member.name, why)
                elif wanted(member.name, suffixes):
                    content = archive.extractfile(member)
                    if content is not None:
                        stream = unpacked(content, member.name, member.size)
                        yield Piece(member.name, stream)


def _zip_pieces(path: Path, suffixes: tuple[str, ...]) -> Iterator[Piece | Bad]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > MAX_MEMBERS:
            raise TooLarge(f"more than {MAX_MEMBERS} members")
        for member in members:
            if member.is_dir():
                continue
            why = _refused(member.filename)
            if stat.S_ISLNK(member.external_attr >> 16):
                why = "a link or device in an archive is refused"
            if member.flag_bits & 1:
                why = "encrypted"
            if why:
                yield Bad(member.filename, why)
            elif wanted(member.filename, suffixes):
                try:
                    with archive.open(member) as content:
                        stream = limited(content, member.compress_size)
                        stream = unpacked(stream, member.filename, member.file_size)
                        yield Piece(member.filename, stream)
                except FAULTS as error:
                    yield Bad(member.filename, reason(error))


def wanted(name: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a member's name ends as what is looked for does, and is not hidden."""
    hidden = any(p.startswith((".", "__MACOSX")) for p in PurePosixPath(name).parts)
    return not hidden and inner_suffix(name) in suffixes


def _refused(name: str) -> str:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or name[1:2] == ":" or "\0" in name:
        return "a name that leads out of the archive is refused"
    return ""


def media(path: Path, name: str = "") -> bytes:
    """The bytes of a plain file of a folder.

    Raises:
        TooLarge: it holds more than MAX_MEDIA_BYTES.
        ModelwrightError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return Piece(name, stream).whole()
    except OSError as error:
        raise ModelwrightError(f"{path}: cannot be read ({error.strerror or error})") from error
