"""Web pages as files; their text is the business of the step ``extract``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from modelwright.data.operations.operation import WorkRow
from modelwright.data.parts import Piece, cut_lines, over
from modelwright.data.readers.reader import Bad, Item, Range, new_row


@dataclass(frozen=True)
class Reader:
    """A page a file, packed or not, or a member of a tar or zip."""

    version: ClassVar[int] = 1
    suffixes: ClassVar[tuple[str, ...]] = (".html", ".htm", ".xhtml")
    folders: ClassVar[bool] = False

    def cut(self, path: Path) -> list[Range]:
        """One range; a plain tar is cut between members."""
        return cut_lines(path) if path.suffix.lower() == ".tar" else [Range()]

    def rows(self, path: Path, part: Range) -> Iterator[Item]:
        """One row a page, its bytes as ``media`` of type text/html."""
        return over(path, part, self.suffixes, _page)


def _page(piece: Piece) -> Iterator[WorkRow | Bad]:
    content = piece.whole()
    if not content.strip():
        yield Bad("", "an empty page")
    else:
        yield new_row("", media=content, mime="text/html")
