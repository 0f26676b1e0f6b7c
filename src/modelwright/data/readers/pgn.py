"""Games of chess in Portable Game Notation (PGN, standard of 1994): tags, then moves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from modelwright.data.lines import lines
from modelwright.data.operations.operation import WorkRow
from modelwright.data.parts import Piece, cut_lines, over
from modelwright.data.readers.reader import Bad, Item, Range, new_row

_TAG = re.compile(r'\[\s*(\w+)\s+"((?:[^"\\]|\\.)*)"\s*\]')
_TOKEN = re.compile(
    r"\{|\}|\(|\)|;[^\n]*|^%[^\n]*|\$\d+|\d+\s*\.(?:\s*\.\.)?|1-0|0-1|1/2-1/2|\*|[^\s{}();]+",
    re.MULTILINE,
)
RESULTS = ("1-0", "0-1", "1/2-1/2", "*")
MAX_GAME_CHARS = 1 << 20


@dataclass(frozen=True)
class Reader:
    """Games; the same meeting of two players on a day keeps together in a split.

    Attributes:
        encoding: of the file; "" guesses it.
    """

    version: ClassVar[int] = 1
    suffixes: ClassVar[tuple[str, ...]] = (".pgn",)
    folders: ClassVar[bool] = False
    encoding: str = ""

    def cut(self, path: Path) -> list[Range]:
        """Ranges of about 64 MiB that begin with a game."""
        return cut_lines(path, before=b"[Event ")

    def rows(self, path: Path, part: Range) -> Iterator[Item]:
        """One row a game; its id is the line it begins on.

        ``meta`` holds ``game`` "chess", ``moves`` (SAN, without numbers, comments and
        variations), ``result``, ``position`` (FEN) where the game does not begin at the start,
        and ``tags``. The text is the moves.
        """
        return over(path, part, self.suffixes, self._games)

    def _games(self, piece: Piece) -> Iterator[WorkRow | Bad]:
        tags: dict[str, str] = {}
        moves: list[str] = []
        begin, size, wrong = piece.first, 0, None
        for line in lines(piece, self.encoding):
            if isinstance(line, Bad):
                wrong = wrong or line
                continue
            tag = _TAG.match(line) if line.startswith("[") else None
            if tag and moves and "".join(moves).strip():
                yield wrong or _game(tags, "".join(moves), begin)
                tags, moves, size, wrong = {}, [], 0, None
            if tag:
                begin = begin if tags else piece.line
                tags[tag[1]] = re.sub(r"\\(.)", r"\1", tag[2])
            else:
                size += len(line)
                if size <= MAX_GAME_CHARS:
                    moves.append(line)
                else:
                    wrong = wrong or Bad(f"line {begin}", f"a game of over {MAX_GAME_CHARS} signs")
        if tags or "".join(moves).strip():
            yield wrong or _game(tags, "".join(moves), begin)


def _game(tags: dict[str, str], movetext: str, begin: int) -> WorkRow | Bad:
    moves, result = parse_moves(movetext)
    if result is None:
        return Bad(f"line {begin}", "a game without a result: cut short, or no PGN")
    meta = {"game": "chess", "moves": moves, "result": result, "tags": tags}
    if "FEN" in tags:
        meta["position"] = tags["FEN"]
    groups = []
    if known := [tags[t] for t in ("White", "Black", "Date") if tags.get(t, "?").strip("?. ")]:
        groups = ["game=" + "|".join(known)] if len(known) == 3 else []
    return new_row(str(begin), "game", text=" ".join(moves), groups=groups, meta=meta)


def parse_moves(movetext: str) -> tuple[list[str], str | None]:
    """The moves of a game in SAN and its result; None where the text ends without one."""
    moves: list[str] = []
    depth, comment = 0, False
    for match in _TOKEN.finditer(movetext):
        sign = match[0]
        if comment:
            comment = sign != "}"
        elif sign == "{":
            comment = True
        elif sign in "()":
            depth = max(0, depth + (1 if sign == "(" else -1))
        elif depth or sign[0] in ";%$" or (sign[0].isdigit() and sign[-1] == "."):
            continue
        elif sign in RESULTS:
            return moves, sign
        elif move := sign.rstrip("!?"):
            moves.append(move)
    return moves, None
