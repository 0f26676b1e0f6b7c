"""English draughts (American checkers) on 32 squares, by the rules of the ACF and the WCDF.

Squares are numbered 1 to 32 as on printed boards; black, player 0, holds 1 to 12 and begins.
Men move and jump forwards, kings both ways; a jump must be taken, any one may be chosen, and must
be jumped to its end; a man that reaches the last row becomes a king and ends its move there.

A move is the squares it touches: (11, 15), or (5, 14, 23) for two jumps. Inside, square s is bit
(s - 1) + (s - 1) // 8 of 35: every neighbour is then 4 or 5 bits away, and a step over the edge
falls on one of the three bits that stand for no square.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from modelwright.data.games.state import IllegalMove, Move
from modelwright.errors import ModelwrightError

SQUARE_BITS = {s: 1 << ((s - 1) + (s - 1) // 8) for s in range(1, 33)}
_SQUARE = {bit: s for s, bit in SQUARE_BITS.items()}
_SQUARES = sum(SQUARE_BITS.values())
_LAST = (sum(SQUARE_BITS[s] for s in range(29, 33)), sum(SQUARE_BITS[s] for s in range(1, 5)))
DRAWN_AFTER = 80  # plies without a capture or a man's move: 40 moves of each side


@dataclass(frozen=True, slots=True)
class State:
    """Black's and white's pieces and all kings as bits, who moves, and plies without progress."""

    black: int
    white: int
    kings: int = 0
    turn: int = 0
    quiet: int = 0

    @classmethod
    def start(cls) -> State:
        """Black on 1 to 12, white on 21 to 32; black begins."""
        black, white = (sum(SQUARE_BITS[s] for s in range(a, a + 12)) for a in (1, 21))
        return cls(black, white)

    @classmethod
    def of(cls, position: str) -> State:
        """A position as PDN writes it: "B:W18,24,K30:B1,K5", the side to move first.

        Raises:
            ModelwrightError: it is written otherwise.
        """
        match = re.fullmatch(r"([WB]):([WB])([K\d,]*):([WB])([K\d,]*)\.?", position.strip())
        squares: dict[str, int] = {"W": 0, "B": 0}
        kings = 0
        if not match or match[2] == match[4]:
            raise ModelwrightError(
                f"checkers: {position[:80]!r} is no position; write it like B:W18,K30:B1,5"
            )
        for colour, listed in ((match[2], match[3]), (match[4], match[5])):
            for piece in filter(None, listed.split(",")):
                number = piece.removeprefix("K")
                if not number.isdigit() or int(number) not in SQUARE_BITS:
                    raise ModelwrightError(f"checkers: no square {piece[:10]!r}; they are 1 to 32")
                bit = SQUARE_BITS[int(number)]
                squares[colour] |= bit
                kings |= bit if piece.startswith("K") else 0
        if squares["W"] & squares["B"]:
            raise ModelwrightError(f"checkers: {position[:80]!r} has two pieces on one square")
        return cls(squares["B"], squares["W"], kings, int(match[1] == "W"))

    def __str__(self) -> str:
        """The position as ``of`` reads it."""

        def listed(pieces: int) -> str:
            signs = (f"{'K' if self.kings & bit else ''}{_SQUARE[bit]}" for bit in _each(pieces))
            return ",".join(signs)

        return f"{'BW'[self.turn]}:W{listed(self.white)}:B{listed(self.black)}"

    def _sides(self) -> tuple[int, int]:
        return (self.black, self.white) if self.turn == 0 else (self.white, self.black)

    def legal_moves(self) -> list[Move]:
        """The jumps if there are any, else the steps; by the square they begin on."""
        own, other = self._sides()
        empty = _SQUARES & ~(own | other)
        return self._jumps(own, other, empty) or self._steps(own, empty)

    def _steps(self, own: int, empty: int) -> list[Move]:
        found: list[Move] = []
        for piece in _each(own):
            reached = (target for target in self._reached(piece) if target & empty)
            found.extend((_SQUARE[piece], _SQUARE[target]) for target in reached)
        return found

    def _reached(self, piece: int) -> tuple[int, ...]:
        """The bits next to a piece in the directions it moves."""
        up, down = (piece << 4, piece << 5), (piece >> 4, piece >> 5)
        if piece & self.kings:
            return up + down
        return down if self.turn else up

    def _jumps(self, own: int, other: int, empty: int) -> list[Move]:
        up = (((own << 4) & other) << 4) | (((own << 5) & other) << 5)
        down = (((own >> 4) & other) >> 4) | (((own >> 5) & other) >> 5)
        if not (up | down) & empty:  # so for most positions, at no further cost
            return []
        found: list[Move] = []
        for piece in _each(own):
            king = bool(piece & self.kings)
            self._chains((piece, king, empty | piece), other, (_SQUARE[piece],), found)
        return found

    def _chains(
        self, piece: tuple[int, bool, int], other: int, path: Move, found: list[Move]
    ) -> None:
        """Add every chain of jumps that goes on from ``path``.

        ``piece`` is where it stands, whether it is a king, and the squares that are empty for it;
        what it has jumped is no longer in ``other``, since nothing is jumped twice.
        """
        at, king, empty = piece
        ended = True
        crowned = not king and len(path) > 1 and at & _LAST[self.turn]
        if not crowned:
            for by in (4, 5):
                if king or not self.turn:
                    over, to = at << by, at << 2 * by
                    if over & other and to & empty:
                        ended = False
                        self._chains((to, king, empty), other ^ over, (*path, _SQUARE[to]), found)
                if king or self.turn:
                    over, to = at >> by, at >> 2 * by
                    if over & other and to & empty:
                        ended = False
                        self._chains((to, king, empty), other ^ over, (*path, _SQUARE[to]), found)
        if ended and len(path) > 1:
            found.append(path)

    def play(self, move: Move) -> State:
        """Step, or jump along the squares of the move."""
        own, other = self._sides()
        first, last = SQUARE_BITS[move[0]], SQUARE_BITS[move[-1]]
        taken = 0
        for a, b in pairwise(move):
            if abs((b - 1) // 4 - (a - 1) // 4) == 2:
                # Both squares of a jump lie 8 or 10 bits apart, the jumped one halfway.
                low, high = sorted((SQUARE_BITS[a].bit_length(), SQUARE_BITS[b].bit_length()))
                taken |= 1 << ((low + high) // 2 - 1)
        king = first & self.kings
        kings = self.kings & ~(first | taken)
        if king or last & _LAST[self.turn]:
            kings |= last
        own, other = own & ~first | last, other & ~taken
        black, white = (own, other) if self.turn == 0 else (other, own)
        quiet = self.quiet + 1 if king and not taken else 0
        return State(black, white, kings, 1 - self.turn, quiet)

    def result(self) -> float | None:
        """Who cannot move has lost; a draw after 40 moves of each side without progress."""
        if not self.legal_moves():
            return 1.0 if self.turn else -1.0
        return 0.0 if self.quiet >= DRAWN_AFTER else None

    def parse(self, text: str) -> Move:
        """A move such as 11-15, 22x15 or 5x14x23; jumps may leave out squares between."""
        if not re.fullmatch(r"\d{1,2}([-x:]\d{1,2})+", text.strip().lower()):
            raise IllegalMove(f"{text[:20]!r} is no move")
        squares = tuple(int(n) for n in re.split(r"[-x:]", text.strip().lower()))
        moves = self.legal_moves()
        if squares in moves:
            return squares
        fitting = [m for m in moves if len(m) > len(squares) and _within(squares, m)]
        if len(fitting) > 1:
            raise IllegalMove(f"{text}: could be any of {len(fitting)} jumps")
        if not fitting:
            must = "; a jump must be taken" if moves and self._is_jump(moves[0]) else ""
            raise IllegalMove(f"{text}: not a legal move{must}")
        return fitting[0]

    @staticmethod
    def _is_jump(move: Move) -> bool:
        return abs((move[1] - 1) // 4 - (move[0] - 1) // 4) == 2

    def write(self, move: Move) -> str:
        """All squares of the move: 11-15, 5x14x23."""
        return ("x" if self._is_jump(move) else "-").join(map(str, move))

    def board(self) -> NDArray[np.int8]:
        """1 and 2 black's men and kings, -1 and -2 white's; the row of squares 1 to 4 first."""
        board = np.zeros((8, 8), dtype=np.int8)
        for square, bit in SQUARE_BITS.items():
            row, place = divmod(square - 1, 4)
            piece = 1 + bool(bit & self.kings)
            value = piece * (bool(bit & self.black) - bool(bit & self.white))
            board[row, 2 * place + (row + 1) % 2] = value
        return board


def _each(bits: int) -> list[int]:
    """The single bits of a number, lowest first."""
    found = []
    while bits:
        low = bits & -bits
        found.append(low)
        bits ^= low
    return found


def _within(short: Move, full: Move) -> bool:
    """Whether a move that leaves out squares between first and last can mean the full one."""
    if short[0] != full[0] or short[-1] != full[-1]:
        return False
    rest = iter(full)
    return all(square in rest for square in short)
