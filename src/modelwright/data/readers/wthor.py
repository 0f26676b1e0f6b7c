"""Games of Othello in the binary format WTHOR of the French federation (.wtb)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from modelwright.data.operations.operation import WorkRow
from modelwright.data.parts import FAULTS, Piece, cut_lines, over, pieces
from modelwright.data.readers.reader import Bad, Item, Range, is_container, new_row

_HEADER = struct.Struct("<4BIHHBBBB")  # date, games, records, year, size, type, depth, -
_GAME = struct.Struct("<HHHBB60s")  # tournament, black, white, discs, best, moves
_NAME_BYTES = 20
_MAX_GAMES = 10_000_000


@dataclass(frozen=True)
class Reader:
    """Games; those of two players in a year keep together in a split."""

    version: ClassVar[int] = 1
    suffixes: ClassVar[tuple[str, ...]] = (".wtb",)
    folders: ClassVar[bool] = False

    def cut(self, path: Path) -> list[Range]:
        """One range a file: a year's games are few; a plain tar is cut between members."""
        return cut_lines(path) if path.suffix.lower() == ".tar" else [Range()]

    def rows(self, path: Path, part: Range) -> Iterator[Item]:
        """One row a game; its id is its number in the file, from 1.

        ``meta`` holds ``game`` "othello", ``moves`` ("f5 d6 ..." as a list, passes left out),
        ``result`` with black first, ``discs`` of black at the end, ``year``, and the players'
        names, or their numbers where no .JOU file lies beside the games.
        """
        names = _players(path)
        return over(path, part, self.suffixes, lambda piece: _games(piece, names))


def _games(piece: Piece, names: list[str]) -> Iterator[WorkRow | Bad]:
    head = piece.stream.read(_HEADER.size)
    piece.at = "header"
    if len(head) < _HEADER.size:
        raise EOFError("no header")
    _, _, _, _, count, _, year, size, kind, _, _ = _HEADER.unpack(head)
    if size not in (0, 8) or kind or count > _MAX_GAMES or not 1900 < year < 2200:
        yield Bad("header", "not a WTHOR file of games on 8 x 8")
        return
    for number in range(1, count + 1):
        piece.at = f"game {number}"
        raw = piece.stream.read(_GAME.size)
        if len(raw) < _GAME.size:
            raise EOFError(f"the header says {count} games")
        event, black, white, discs, _, squares = _GAME.unpack(raw)
        moves = [
            f"{'abcdefgh'[m % 10 - 1]}{m // 10}" for m in squares.rstrip(b"\0") if _on_board(m)
        ]
        if len(moves) < len(squares.rstrip(b"\0")) or discs > 64:
            yield Bad(f"game {number}", "a move beside the board, or more than 64 discs")
            continue
        players = [_name(names, n) for n in (black, white)]
        result = "1-0" if discs > 32 else "0-1" if discs < 32 else "1/2-1/2"
        meta = {"game": "othello", "moves": moves, "result": result, "discs": discs}
        meta |= {"year": year, "black": players[0], "white": players[1], "event": event}
        groups = [f"game={players[0]}|{players[1]}|{year}"]
        yield new_row(str(number), "game", text=" ".join(moves), groups=groups, meta=meta)


def _on_board(move: int) -> bool:
    return 1 <= move % 10 <= 8 and 1 <= move // 10 <= 8


def _name(names: list[str], number: int) -> str:
    return names[number] if number < len(names) else str(number)


def _players(path: Path) -> list[str]:
    """The names in the .JOU file in the same container or folder, by number."""
    beside = sorted(path.parent.glob("*.[Jj][Oo][Uu]"))
    sources = [path] if is_container(path.name) else beside[:1]
    for source in sources:
        for piece in pieces(source, Range(), (".jou",)):
            if isinstance(piece, Bad):
                continue
            try:
                raw = piece.whole()[_HEADER.size :]
            except FAULTS:
                break
            names = (raw[i : i + _NAME_BYTES] for i in range(0, len(raw), _NAME_BYTES))
            return [name.split(b"\0")[0].decode("latin-1").strip() for name in names]
    return []
