"""Othello on 8 x 8: two sets of discs as whole numbers, one bit a square.

Bit 8 * row + column, row 0 and column 0 being the corner a1; columns are letters, rows numbers
counted downwards. Player 0 is black and begins. A move is (square,), a pass is ().
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelwright.data.games.state import IllegalMove, Move
from modelwright.errors import ModelwrightError

_ALL = (1 << 64) - 1
_NOT_A = 0xFEFEFEFEFEFEFEFE  # every column but the first
_NOT_H = 0x7F7F7F7F7F7F7F7F
# Steps that raise the number of a square, and those that lower it: how far, and the squares that
# such a step may end on, so that nothing wraps around the edge.
_UP = ((1, _NOT_A), (7, _NOT_H), (8, _ALL), (9, _NOT_A))
_DOWN = ((1, _NOT_H), (7, _NOT_A), (8, _ALL), (9, _NOT_H))
_SQUARES = {f"{'abcdefgh'[i % 8]}{i // 8 + 1}": i for i in range(64)}
_NAMES = {i: name for name, i in _SQUARES.items()}
PASS: Move = ()


@dataclass(frozen=True, slots=True)
class State:
    """The discs of the player to move (``own``), of the other one, and whose turn it is."""

    own: int
    other: int
    turn: int = 0

    @classmethod
    def start(cls) -> State:
        """Black e4 and d5, white d4 and e5; black begins."""
        return cls((1 << 28) | (1 << 35), (1 << 27) | (1 << 36))

    @classmethod
    def of(cls, position: str) -> State:
        """A position of 64 signs row by row, X black, O white, - empty, and the side to move.

        Raises:
            ModelwrightError: it is written otherwise.
        """
        text = "".join(position.split()).upper()
        if len(text) != 65 or set(text[:64]) - set("XO-") or text[64] not in "XO":
            raise ModelwrightError(
                f"othello: {position[:80]!r} is no position; write 64 of X, O, - and the side"
            )
        black, white = (sum(1 << i for i, c in enumerate(text[:64]) if c == s) for s in "XO")
        return cls(black, white, 0) if text[64] == "X" else cls(white, black, 1)

    def __str__(self) -> str:
        """The position as ``of`` reads it."""
        black, white = (self.own, self.other) if self.turn == 0 else (self.other, self.own)
        signs = ("X" if black >> i & 1 else "O" if white >> i & 1 else "-" for i in range(64))
        return f"{''.join(signs)} {'XO'[self.turn]}"

    def flips(self, square: int) -> int:
        """The discs that a disc of the player to move on ``square`` would turn, as bits."""
        own, other, at, turned = self.own, self.other, 1 << square, 0
        for by, allowed in _UP:
            step = (at << by) & allowed & other
            if step:
                line = step
                while step := (step << by) & allowed & other:
                    line |= step
                if (line << by) & allowed & own:
                    turned |= line
        for by, allowed in _DOWN:
            step = (at >> by) & allowed & other
            if step:
                line = step
                while step := (step >> by) & allowed & other:
                    line |= step
                if (line >> by) & allowed & own:
                    turned |= line
        return turned

    def placings(self) -> int:
        """The squares where the player to move may place a disc, as bits."""
        own, other, found = self.own, self.other, 0
        empty = ~(own | other) & _ALL
        for by, allowed in _UP:
            line = (own << by) & allowed & other
            for _ in range(5):
                line |= (line << by) & allowed & other
            found |= (line << by) & allowed & empty
        for by, allowed in _DOWN:
            line = (own >> by) & allowed & other
            for _ in range(5):
                line |= (line >> by) & allowed & other
            found |= (line >> by) & allowed & empty
        return found

    def legal_moves(self) -> list[Move]:
        """The squares in rising order; a pass alone where only the other player can move."""
        left = self.placings()
        if not left:
            return [PASS] if self.play(PASS).placings() else []
        found: list[Move] = []
        while left:
            low = left & -left
            found.append((low.bit_length() - 1,))
            left ^= low
        return found

    def play(self, move: Move) -> State:
        """Place a disc and turn what it encloses, or pass."""
        if not move:
            return State(self.other, self.own, 1 - self.turn)
        turned = self.flips(move[0])
        return State(self.other ^ turned, self.own | turned | (1 << move[0]), 1 - self.turn)

    def result(self) -> float | None:
        """Who has more discs, once neither player can move."""
        return None if self.legal_moves() else float(np.sign(self.lead()))

    def lead(self) -> int:
        """Black's discs less white's, empty squares counted for the winner, as tournaments do."""
        own, other = self.own.bit_count(), self.other.bit_count()
        lead = own - other if self.turn == 0 else other - own
        return lead + int(np.sign(lead)) * (64 - own - other)

    def parse(self, text: str) -> Move:
        """A square such as f5, or 56 (row, column) as in the WTHOR base; "pass" or "--"."""
        name = text.strip().lower()
        if name in ("pass", "--", "pa"):
            if self.legal_moves() == [PASS]:
                return PASS
            raise IllegalMove(f"{text}: a pass where there is a move, or no game left")
        if len(name) == 2 and name.isdigit():
            name = f"{'?abcdefgh?'[int(name[1])]}{name[0]}"
        square = _SQUARES.get(name)
        if square is None:
            raise IllegalMove(f"{text[:20]!r} is no square")
        if (self.own | self.other) >> square & 1:
            raise IllegalMove(f"{text}: the square is taken")
        if not self.flips(square):
            raise IllegalMove(f"{text}: turns no disc")
        return (square,)

    def write(self, move: Move) -> str:
        """The square such as f5, or "pass"."""
        return _NAMES[move[0]] if move else "pass"

    def board(self) -> NDArray[np.int8]:
        """1 black, -1 white, 0 empty; row 1 first."""
        black, white = (self.own, self.other) if self.turn == 0 else (self.other, self.own)
        return bits_array(black) - bits_array(white)


def bits_array(bits: int) -> NDArray[np.int8]:
    """64 bits as an array (8, 8) of 0 and 1, bit 0 first."""
    packed = np.frombuffer(bits.to_bytes(8, "little"), dtype=np.uint8)
    return np.unpackbits(packed, bitorder="little").reshape(8, 8).astype(np.int8)
