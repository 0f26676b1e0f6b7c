"""Games of checkers: Portable Draughts Notation (PDN), or one game a line as squares."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from modelwright.data.lines import lines
from modelwright.data.operations.operation import WorkRow
from modelwright.data.parts import Piece, cut_lines, over
from modelwright.data.readers.pgn import parse_moves
from modelwright.data.readers.reader import Bad, Item, Range, new_row

_MOVE = re.compile(r"\d{1,2}(?:[-x:]\d{1,2})+")
_RESULTS = ("1-0", "0-1", "1/2-1/2", "*")


@dataclass(frozen=True)
class Reader:
    """Games of American checkers.

    Attributes:
        from_zero: the squares of lines are numbered 0 to 31 and each row from the other side, as
            in the records of the American Checker Federation's games; PDN numbers 1 to 32.
        encoding: of the file; "" guesses it.
    """

    version: ClassVar[int] = 1
    suffixes: ClassVar[tuple[str, ...]] = (".pdn",)
    folders: ClassVar[bool] = False
    from_zero: bool = True
    encoding: str = ""

    def cut(self, path: Path) -> list[Range]:
        """Ranges of about 64 MiB; those of PDN begin with a game."""
        return cut_lines(path, before=b"[Event " if ".pdn" in path.name.lower() else b"")

    def rows(self, path: Path, part: Range) -> Iterator[Item]:
        """One row a game; its id is the line it begins on.

        ``meta`` holds ``game`` "checkers", ``moves`` (such as "11-15", or "5-14-23" for two
        jumps, squares 1 to 32 with black, who begins, on 1 to 12), ``result`` with black first,
        and the ``tags`` of PDN. The text is the moves.
        """
        return over(path, part, (*self.suffixes, ".txt"), self._games)

    def _games(self, piece: Piece) -> Iterator[WorkRow | Bad]:
        tags: dict[str, str] = {}
        open_text: list[str] = []
        begin = piece.first
        for line in lines(piece, self.encoding):
            if isinstance(line, Bad):
                yield line
            elif "\t" in line and not tags:
                yield self._line(line, piece.line)
            elif tag := re.match(r'\[\s*(\w+)\s+"([^"]*)"\s*\]', line):
                begin = begin if tags else piece.line
                tags[tag[1]] = tag[2]
            elif line.strip():
                open_text.append(line)
                if re.search(r"(?:1-0|0-1|1/2-1/2|\*|2-0|0-2|1-1)\s*$", line):
                    yield _game("".join(open_text), tags, begin)
                    tags, open_text, begin = {}, [], piece.line + 1
        if open_text:
            yield Bad(f"line {begin}", "a game without a result: cut short")

    def _line(self, line: str, number: int) -> WorkRow | Bad:
        moves, _, result = line.strip().rpartition("\t")
        found = moves.split()
        if result not in _RESULTS or not all(_MOVE.fullmatch(move) for move in found):
            return Bad(f"line {number}", "not moves, a tab and a result")
        if self.from_zero:
            found = ["-".join(_standard(square) for square in move.split("-")) for move in found]
        return _row(number, found, result, {})


def _standard(square: str) -> str:
    """The number 1 to 32 of a square numbered 0 to 31, rows from the other side."""
    row, column = divmod(int(square), 4)
    return str(4 * row + 4 - column)


def _game(text: str, tags: dict[str, str], begin: int) -> WorkRow | Bad:
    same = re.sub(r"\b2-0\s*$", "1-0", re.sub(r"\b0-2\s*$", "0-1", text.rstrip()))
    moves, result = parse_moves(re.sub(r"(?<!/2-)\b1-1\s*$", "1/2-1/2", same))
    if result is None or not all(_MOVE.fullmatch(move) for move in moves):
        return Bad(f"line {begin}", "moves that are no numbers of squares")
    return _row(begin, moves, result, tags)


def _row(number: int, moves: list[str], result: str, tags: dict[str, str]) -> WorkRow:
    meta: dict[str, Any] = {"game": "checkers", "moves": moves, "result": result}
    if tags:
        meta["tags"] = tags
    return new_row(str(number), "game", text=" ".join(moves), meta=meta)
