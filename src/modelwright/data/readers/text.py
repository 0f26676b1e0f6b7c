"""Plain text and Markdown: a file is a document, or several where it is long or says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from modelwright.data.lines import lines
from modelwright.data.operations.operation import WorkRow
from modelwright.data.parts import Piece, cut_lines, over
from modelwright.data.readers.reader import SAME_FILE, Bad, Item, Range, new_row
from modelwright.data.tree import label_of, part_of


@dataclass(frozen=True)
class Reader:
    """Documents of a text file; they keep together in a split.

    Attributes:
        encoding: of the file; "" guesses it and keeps the guess in ``meta.encoding``.
        separator: a line that ends a document, such as "<|endoftext|>" or "" for a blank line;
            None makes one document of a file.
        longest: characters after which a document ends at the next blank line, and at twice as
            many at any line's end.
        labels: the folder a file of a container lies in is its label, as in "train/pos/1.txt".
    """

    version: ClassVar[int] = 1
    suffixes: ClassVar[tuple[str, ...]] = (".txt", ".md", ".text", ".markdown")
    folders: ClassVar[bool] = False
    encoding: str = ""
    separator: str | None = None
    longest: int = 1 << 20
    labels: bool = False

    def cut(self, path: Path) -> list[Range]:
        """Ranges of about 64 MiB that begin after a separator, or a blank line if one is near."""
        end = None if self.separator is None else self.separator.encode()
        return cut_lines(path, blank=True, after=end)

    def rows(self, path: Path, part: Range) -> Iterator[Item]:
        """One row a document; its id is the line it begins on, or nothing where it is alone."""
        return over(path, part, self.suffixes, self._documents)

    def _documents(self, piece: Piece) -> Iterator[WorkRow | Bad]:
        kept: list[str] = []
        size, begin, wrong = 0, piece.first, None
        for line in lines(piece, self.encoding):
            if isinstance(line, Bad):
                wrong = wrong or line
                continue
            ends = self.separator is not None and line.rstrip("\r\n") == self.separator
            if not ends:
                kept.append(line)
                size += len(line)
            long = size >= 2 * self.longest or (size >= self.longest and not line.strip())
            if ends or long:
                yield from self._document(kept, begin, wrong, piece)
                kept, size, begin, wrong = [], 0, piece.line + 1, None
        alone = begin == piece.first == 1 and piece.end is None and self.separator is None
        yield from self._document(kept, None if alone else begin, wrong, piece)

    def _document(
        self, kept: list[str], begin: int | None, wrong: Bad | None, piece: Piece
    ) -> Iterator[WorkRow | Bad]:
        text = "".join(kept)
        if wrong is not None:
            yield wrong
        elif text.strip():
            key = "" if begin is None else str(begin)
            row = new_row(key, text=text, groups=[SAME_FILE], meta=dict(piece.facts))
            if piece.name:
                row["groups"] = [f"{SAME_FILE}:{piece.name}"]
                if split := part_of(piece.name):
                    row["meta"]["split"] = split
            if self.labels:
                row["label"] = label_of(piece.name)
            yield row
