"""Games of chess in Portable Game Notation (PGN, standard of 1994): tags, then moves."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from modelwright.data.lines import Guessed, lines
from modelwright.data.operations.operation import WorkRow
from modelwright.data.parts import Piece, cut_lines, over
from modelwright.data.readers.reader import Bad, Item, Range, new_row

_TAG = re.compile(r'\[\s*(\w+)\s+"((?:[^"\\]|\\.)*)"\s*\]')
_TOKEN = re.compile(
    r"\{|\}|\(|\)|;[^\n]*|^%[^\n]*|\$\d+|\d+\s*\.(?:\s*\.\.)?|1-0|0-1|1/2-1/2|\*|[^\s{}();]+",
    re.MULTILINE,
)
RESULTS = ("1-0", "0-1", "1/2-1/2", "*")
CHARACTERS = "latin-1"  # of the standard; most files of today are UTF-8
MAX_GAME_CHARS = 1 << 20


@dataclass(frozen=True)
class Reader:
    """Games; the same meeting of two players on a day keeps together in a split.

    Attributes:
        encoding: of the file; "": UTF-8, and Latin-1 where a line is not.
    """

    version: ClassVar[int] = 2
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
        ``tags``, and ``encoding`` where lines of it are not UTF-8. The text is the moves.
        """
        return over(path, part, self.suffixes, self._games)

    def _games(self, piece: Piece) -> Iterator[WorkRow | Bad]:
        game, none = _Game(piece.first), True
        for line in lines(piece, self.encoding, CHARACTERS):
            if isinstance(line, Bad):
                game.wrong = game.wrong or line
                continue
            tag = _TAG.match(line) if line.startswith("[") else None
            if tag and game.text.strip():
                yield game.row()
                game, none = _Game(piece.line), False
            game.guessed |= isinstance(line, Guessed)
            if tag:
                game.begin = game.begin if game.tags else piece.line
                game.tags[tag[1]] = re.sub(r"\\(.)", r"\1", tag[2])
            else:
                game.add(line)
        if game.tags or game.text.strip() or game.wrong:
            yield game.row()
        elif none:
            yield Bad("", "no game in it")


class _Game:
    """The lines of a game as they come."""

    def __init__(self, begin: int) -> None:
        self.begin, self.tags = begin, dict[str, str]()
        self.wrong: Bad | None = None
        self.guessed = False
        self._moves: list[str] = []
        self._size = 0

    @property
    def text(self) -> str:
        """What stands after the tags."""
        return "".join(self._moves)

    def add(self, line: str) -> None:
        """Take a line of moves."""
        self._size += len(line)
        if self._size <= MAX_GAME_CHARS:
            self._moves.append(line)
        else:
            reason = f"a game of over {MAX_GAME_CHARS} signs"
            self.wrong = self.wrong or Bad(f"line {self.begin}", reason)

    def row(self) -> WorkRow | Bad:
        """The game, or why it is none."""
        if self.wrong:
            return self.wrong
        where, tags = f"line {self.begin}", self.tags
        moves, result = parse_moves(self.text)
        if result is None:
            return Bad(where, "a game without a result: cut short, or no PGN")
        if (told := tags.get("Result", "").strip()) in RESULTS and told != result:
            return Bad(where, "the tag Result and the end of the moves differ")
        meta = {"game": "chess", "moves": moves, "result": result, "tags": tags}
        if "FEN" in tags:
            meta["position"] = tags["FEN"]
        if self.guessed:
            meta["encoding"] = CHARACTERS
        known = [tags.get("White", ""), tags.get("Black", ""), date(tags)]
        told_apart = all(tag.strip("?. ") for tag in known)
        groups = ["game=" + "|".join(known)] if told_apart else []
        return new_row(str(self.begin), "game", text=" ".join(moves), groups=groups, meta=meta)


def date(tags: Mapping[str, str]) -> str:
    """The day of a game as its tags have it, such as 1999.01.??; "" where none of it is known."""
    found = (str(tags.get(name, "")) for name in ("Date", "UTCDate"))
    return next((day for day in found if day.strip("?. ")), "")


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
