"""JSON Lines, and JSON files that hold an object or a list of objects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from modelwright.data.columned import Columned
from modelwright.data.lines import lines, peeked, sniff
from modelwright.data.operations.operation import WorkRow
from modelwright.data.parts import Piece, cut_lines, over
from modelwright.data.readers.reader import Bad, Item, Range

MAX_LIST_BYTES = 256 << 20  # a JSON list is held whole


@dataclass(frozen=True)
class Reader(Columned):
    """One object a line, or a list of objects.

    Attributes:
        encoding: "" takes UTF-8, or UTF-16 where a byte order mark says so.
        field: where a file is one object, the field that holds the list, such as "data".
    """

    version: ClassVar[int] = 1
    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".json", ".ndjson")
    folders: ClassVar[bool] = False
    encoding: str = ""
    field: str = ""

    def cut(self, path: Path) -> list[Range]:
        """Ranges of about 64 MiB of whole lines; a list is one range."""
        return cut_lines(path) if not path.name.lower().endswith(".json") else [Range()]

    def rows(self, path: Path, part: Range) -> Iterator[Item]:
        """One row an object; its id is the number of its line, or in its list, from 1."""
        return over(path, part, self.suffixes, self._rows)

    def _rows(self, piece: Piece) -> Iterator[WorkRow | Bad]:
        if piece.end is None and piece.first == 1:
            head, piece.stream = peeked(piece.stream)
            if self.field or _is_list(head):
                yield from self._list(piece, head)
                return
        for line in lines(piece, self.encoding):
            if isinstance(line, Bad):
                yield line
            elif line.strip():
                where = f"line {piece.line}"
                value = _loaded(line, where)
                if isinstance(value, Bad):
                    yield value
                else:
                    yield self._told(self.row(str(piece.line), value, where), piece)

    def _list(self, piece: Piece, head: bytes) -> Iterator[WorkRow | Bad]:
        raw = piece.whole(MAX_LIST_BYTES)
        encoding = self.encoding or sniff(head)
        try:
            values = _loaded(raw.decode("utf-8-sig" if encoding == "utf-8" else encoding), "")
        except UnicodeDecodeError as error:
            values = Bad(f"byte {error.start}", f"not {encoding.upper()}")
        del raw
        if self.field and isinstance(values, dict):
            values = values.get(self.field)
        elif isinstance(values, dict):
            values = [values]
        if isinstance(values, Bad):
            yield values
        elif not isinstance(values, list):
            yield Bad("", f"no list of objects{f' in {self.field!r}' if self.field else ''}")
        else:
            for number, value in enumerate(values, start=1):
                yield self.row(str(number), value, f"record {number}")

    @staticmethod
    def _told(row: WorkRow | Bad, piece: Piece) -> WorkRow | Bad:
        if piece.facts and not isinstance(row, Bad):
            row["meta"] |= piece.facts
        return row


def _is_list(head: bytes) -> bool:
    """Whether a file begins with a list, or is one object over many lines."""
    text = head.decode(sniff(head), "replace").lstrip("\ufeff \t\r\n")
    return text.startswith("[") or text.startswith(("{\n", "{\r"))


def _loaded(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = where or f"line {error.lineno}"
        return Bad(f"{place}, column {error.colno}", f"not JSON ({error.msg})")
    except (ValueError, RecursionError) as error:  # thousands of digits; nested too deeply
        return Bad(where, f"not readable JSON ({error})")
