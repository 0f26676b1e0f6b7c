"""Connect Four on 7 columns and 6 rows: four in a line, upright, across or aslant, win.

Bit 8 * row + column, row 0 being the lowest; column 7 stands for no square, so that nothing wraps
around the edge. Player 0 begins. A move is (column,), written 1 to 7.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelwright.data.games.state import IllegalMove, Move
from modelwright.errors import ModelwrightError

ROWS, COLUMNS = 6, 7
_TOP = tuple(1 << 8 * (ROWS - 1) + c for c in range(COLUMNS))
_COLUMN = tuple(sum(1 << 8 * r + c for r in range(ROWS)) for c in range(COLUMNS))
FULL = sum(_COLUMN)
_LINES = (1, 7, 8, 9)  # steps across, aslant, up, aslant


def connected(pieces: int) -> bool:
    """Whether four of the pieces stand in a line."""
    for by in _LINES:
        pairs = pieces & pieces >> by
        if pairs & pairs >> 2 * by:
            return True
    return False


@dataclass(frozen=True, slots=True)
class State:
    """The pieces of the player to move (``own``), of the other one, and whose turn it is."""

    own: int = 0
    other: int = 0
    turn: int = 0

    @classmethod
    def start(cls) -> State:
        """The empty board."""
        return cls()

    @classmethod
    def of(cls, position: str) -> State:
        """A position of 42 signs from the highest row down: X begins, O, - empty.

        Raises:
            ModelwrightError: it is written otherwise, a piece floats, or the counts cannot be.
        """
        text = "".join(position.split()).upper()
        if len(text) != ROWS * COLUMNS or set(text) - set("XO-"):
            raise ModelwrightError(
                f"connect4: {position[:60]!r} is no position; write 42 of X, O and -, from above"
            )
        sides = [0, 0]
        for i, sign in enumerate(text):
            row, column = ROWS - 1 - i // COLUMNS, i % COLUMNS
            if sign != "-":
                sides["XO".index(sign)] |= 1 << 8 * row + column
        full = sides[0] | sides[1]
        lead = sides[0].bit_count() - sides[1].bit_count()
        if lead not in (0, 1) or full >> 8 & ~full:
            raise ModelwrightError(f"connect4: {text}: pieces float, or X and O are not in turn")
        return cls(sides[lead], sides[1 - lead], lead)

    def __str__(self) -> str:
        """The position as ``of`` reads it."""
        return "".join("-XO"[value] for value in self.board().ravel().tolist())

    def legal_moves(self) -> list[Move]:
        """The columns that have room, from the left; none once somebody has four."""
        if connected(self.other):
            return []
        full = self.own | self.other
        return [(column,) for column in range(COLUMNS) if not full & _TOP[column]]

    def landing(self, column: int) -> int:
        """The bit of the square that a piece dropped into a column with room comes to lie on."""
        full = (self.own | self.other) & _COLUMN[column]
        return full.bit_count() * 8 + column

    def play(self, move: Move) -> State:
        """Drop a piece."""
        return State(self.other, self.own | 1 << self.landing(move[0]), 1 - self.turn)

    def result(self) -> float | None:
        """Who has four in a line; a draw on a full board."""
        if connected(self.other):
            return 1.0 if self.turn else -1.0
        return 0.0 if self.own | self.other == FULL else None

    def parse(self, text: str) -> Move:
        """A column, 1 to 7 from the left, or a to g."""
        name = text.strip().lower()
        column = "1234567".find(name) if len(name) == 1 else -1
        column = "abcdefg".find(name) if column < 0 and len(name) == 1 else column
        if column < 0:
            raise IllegalMove(f"{text[:20]!r} is no column; they are 1 to 7")
        if (column,) not in self.legal_moves():
            raise IllegalMove(f"{text}: the column is full, or the game is over")
        return (column,)

    def write(self, move: Move) -> str:
        """The column, 1 to 7."""
        return str(move[0] + 1)

    def board(self) -> NDArray[np.int8]:
        """(6, 7): 1 the player who began, -1 the other, 0 empty; the highest row first."""
        first, second = (self.own, self.other) if self.turn == 0 else (self.other, self.own)
        board = np.zeros((ROWS, COLUMNS), dtype=np.int8)
        for row in range(ROWS):
            for column in range(COLUMNS):
                bit = 8 * row + column
                board[ROWS - 1 - row, column] = (first >> bit & 1) - (second >> bit & 1)
        return board
