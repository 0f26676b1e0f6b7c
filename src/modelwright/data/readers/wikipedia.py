"""Dumps of MediaWiki: XML of pages, as dumps.wikimedia.org offers them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

from modelwright.data.archive import TooLarge
from modelwright.data.parts import Piece, over
from modelwright.data.readers.reader import Bad, Item, Passed, Range, new_row
from modelwright.data.wikitext import plain_text
from modelwright.errors import MachineError

MAX_PAGE_BYTES = 64 << 20


class _Metered:
    """A stream that raises TooLarge when too much is read between two pages."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.since = stream, 0

    def read(self, size: int = -1) -> bytes:
        # What comes before a damaged place is not lost with it, as with ``read``.
        chunk: bytes = self.stream.read1(size)  # type: ignore[attr-defined]
        self.since += len(chunk)
        if self.since > MAX_PAGE_BYTES:
            raise TooLarge(f"a page of more than {MAX_PAGE_BYTES} bytes")
        return chunk


@dataclass(frozen=True)
class Reader:
    """Articles of a dump as plain text.

    Attributes:
        namespaces: those whose pages are read; 0 holds the articles.
        redirects: read pages that only point at another one; they hold no text of their own.
    """

    version: ClassVar[int] = 2
    suffixes: ClassVar[tuple[str, ...]] = (".mediawiki", ".xml")
    folders: ClassVar[bool] = False
    namespaces: tuple[int, ...] = (0,)
    redirects: bool = False

    def cut(self, path: Path) -> list[Range]:
        """One range: XML is read from its begin."""
        _iterparse(path)
        return [Range()]

    def rows(self, path: Path, part: Range) -> Iterator[Item]:
        """One row a page; its id is that of the page, its text ``wikitext.plain_text``.

        ``meta`` holds title, revision and its date. Pages of other namespaces, redirects and
        pages without wikitext are passed over, since they are no articles, and counted.
        """
        suffixes = (*self.suffixes, "")
        return over(path, part, suffixes, lambda piece: self._pages(piece, _iterparse(path)))

    def _pages(self, piece: Piece, iterparse: Any) -> Iterator[Item]:
        stream = _Metered(piece.stream)
        root: Any = None
        piece.at = "before the first page"
        try:
            for event, element in iterparse(stream, events=("start", "end")):
                if root is None:
                    root = element
                if event == "end" and element.tag.rpartition("}")[2] == "page":
                    stream.since = 0
                    page = _fields(element)
                    piece.at = f"after page {page.get('id', '?')}"
                    root.clear()
                    yield self._row(page)
        except (SyntaxError, ValueError) as error:  # ParseError; what defusedxml forbids
            reason = getattr(error, "msg", "") or f"{type(error).__name__}: refused"
            yield Bad(piece.at, f"broken or forbidden XML ({reason})"[:200])

    def _row(self, page: dict[str, str]) -> Item:
        if not page.get("ns", "").isdecimal() or int(page["ns"]) not in self.namespaces:
            return Passed("page of another namespace")
        if "redirect" in page and not self.redirects:
            return Passed("redirect")
        if page.get("model", "wikitext") != "wikitext" or "id" not in page:
            return Passed("page without wikitext")
        text = plain_text(page.get("text", ""))
        names = ("title", "revision", "timestamp", "redirect")
        meta = {name: page[name] for name in names if page.get(name)}
        return new_row(page["id"], text=text, meta=meta)


def _fields(page: Any) -> dict[str, str]:
    """The fields of a page and of its last revision."""
    found: dict[str, str] = {}
    for child in page:
        name = child.tag.rpartition("}")[2]
        if name == "revision":
            found |= {
                {"id": "revision"}.get(key, key): value
                for key, value in ((c.tag.rpartition("}")[2], c.text or "") for c in child)
                if key in ("id", "timestamp", "model", "text")
            }
        elif name == "redirect":
            found["redirect"] = child.get("title", "")
        elif name in ("title", "ns", "id"):
            found[name] = child.text or ""
    return found


def _iterparse(path: Path) -> Any:
    try:
        from defusedxml.ElementTree import iterparse  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MachineError(
            f"{path}: needs defusedxml, which is not installed: pip install 'modelwright[data]'"
        ) from error
    return iterparse
