"""CSV and its kin: a header line, and one record a line; the dialect is found out."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from modelwright.data.columned import Columned
from modelwright.data.lines import MAX_LINE_BYTES, lines
from modelwright.data.operations.operation import WorkRow
from modelwright.data.parts import FAULTS, Piece, cut_lines, over, pieces
from modelwright.data.readers.reader import Bad, Item, Range

_DELIMITERS = "\t,;|"
_SAMPLE_LINES = 20


@dataclass(frozen=True)
class Reader(Columned):
    """Records of a table.

    Attributes:
        encoding: of the file; "" guesses it and keeps the guess in ``meta.encoding``.
        delimiter: "" takes the one of tab, comma, semicolon and bar that gives the first lines
            the same number of fields, at least two.
        header: the columns' names, where the file has no line of them.
        quotes: fields may stand in double quotes; None looks at the first lines.
    """

    version: ClassVar[int] = 1
    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv", ".tab")
    folders: ClassVar[bool] = False
    encoding: str = ""
    delimiter: str = ""
    header: tuple[str, ...] = ()
    quotes: bool | None = None

    def cut(self, path: Path) -> list[Range]:
        """Ranges of about 64 MiB that begin at a line outside of quotes."""
        return cut_lines(path, quoted=self.quotes is not False)

    def rows(self, path: Path, part: Range) -> Iterator[Item]:
        """One row a record; its id is the number of the line it ends on."""
        if csv.field_size_limit() < MAX_LINE_BYTES:
            csv.field_size_limit(MAX_LINE_BYTES)
        head = self._head(path) if part.start else []
        return over(path, part, self.suffixes, lambda piece: self._records(piece, head))

    def _head(self, path: Path) -> list[str]:
        """The first lines of a file, of which the range that is read is a later one."""
        for piece in pieces(path, Range(), self.suffixes):
            if isinstance(piece, Piece):
                try:
                    found = itertools.islice(lines(piece, self.encoding), _SAMPLE_LINES)
                    return [line for line in found if isinstance(line, str)]
                except FAULTS:
                    break
        return []

    def _records(self, piece: Piece, head: list[str]) -> Iterator[WorkRow | Bad]:
        bad: list[Bad] = []
        given = _texts(lines(piece, self.encoding), bad)
        first = list(itertools.islice(given, _SAMPLE_LINES))
        sample = head or first
        if not sample:
            yield from bad
            return
        delimiter = self.delimiter or sniff_delimiter(sample)
        quoted = _quoted(sample, delimiter) if self.quotes is None else self.quotes
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        header = list(self.header)
        fresh = itertools.chain(first, given)
        reader = csv.reader(fresh, delimiter=delimiter, quoting=quoting, strict=True)
        if not header:
            source = csv.reader(head, delimiter=delimiter, quoting=quoting) if head else reader
            header = next(source, [])
            if len(set(header)) < len(header) or not all(name.strip() for name in header):
                yield Bad("line 1", "no header: columns without a name, or two of one name")
                return
        while True:
            yield from bad
            bad.clear()
            try:
                values = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                yield Bad(f"line {piece.first + reader.line_num - 1}", f"broken record ({error})")
                continue
            if values:
                yield self._record(values, header, piece, reader.line_num)
        yield from bad

    def _record(
        self, values: list[str], header: list[str], piece: Piece, count: int
    ) -> WorkRow | Bad:
        number = piece.first + count - 1
        if len(values) != len(header):
            return Bad(f"line {number}", f"{len(values)} fields, the header has {len(header)}")
        record = dict(zip(header, values, strict=True))
        row = self.row(str(number), record, f"line {number}")
        if piece.facts and not isinstance(row, Bad):
            row["meta"] |= piece.facts
        return row


def _texts(found: Iterator[str | Bad], bad: list[Bad]) -> Iterator[str]:
    """The lines; a bad one is put aside and an empty one given in its place, for the count."""
    for line in found:
        if isinstance(line, Bad):
            bad.append(line)
            yield "\n"
        else:
            yield line


def sniff_delimiter(sample: list[str]) -> str:
    """The delimiter of a table by its first lines; a comma where there is one column."""
    best, most = ",", 1.0
    for delimiter in _DELIMITERS:
        try:
            found = list(csv.reader(sample, delimiter=delimiter))[: len(sample)]
        except csv.Error:
            continue
        counts = [len(fields) for fields in found if fields]
        alike = counts.count(counts[0]) / len(counts) if counts else 0.0
        if counts and counts[0] > 1 and alike * counts[0] ** 0.1 > most * 0.8:
            best, most = delimiter, alike * counts[0] ** 0.1
            if alike == 1.0:
                break
    return best


def _quoted(sample: list[str], delimiter: str) -> bool:
    """Whether quotes stand where CSV has them; with tabs, only where they are seen to."""
    fields = [f for line in sample for f in line.rstrip("\r\n").split(delimiter) if '"' in f]
    return delimiter != "\t" or (bool(fields) and all(f[0] == f[-1] == '"' for f in fields))
