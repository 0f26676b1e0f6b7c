"""Connect Four as a network sees it: own pieces, the other's, and where a piece can land.

A move is the square that the piece comes to lie on, so one kind of move a square is enough.
"""

from __future__ import annotations

from modelwright.data.games.board_drawing import grid
from modelwright.data.games.connect4 import COLUMNS, ROWS, State
from modelwright.data.games.state import Move


class Encoding:
    """Three planes of 6 x 7, the lowest row first; 42 moves."""

    rows, columns, planes, kinds, others = ROWS, COLUMNS, 3, 1, 0
    symmetries = (0, 4)  # as it is, and left and right changed
    colours = ("X", "O")

    def seen(self, state: State, touched: int) -> bytes:  # noqa: ARG002 - what fell last is no news
        """Own, other, and the squares a piece can fall to."""
        can = 0
        for (column,) in state.legal_moves():
            can |= 1 << state.landing(column)
        return b"".join(bits.to_bytes(ROWS, "little") for bits in (state.own, state.other, can))

    def clock(self, state: State) -> int:  # noqa: ARG002
        """Nothing is counted."""
        return 0

    def restored(self, seen: bytes, turn: int, clock: int) -> tuple[State, int]:  # noqa: ARG002
        """The state; what was touched is not seen."""
        own, other = (int.from_bytes(seen[i : i + ROWS], "little") for i in (0, ROWS))
        return State(own, other, turn), 0

    def touched(self, state: State, move: Move) -> int:
        """The square that the piece comes to lie on."""
        return 1 << state.landing(move[0])

    def number(self, state: State, move: Move) -> int:
        """The square, row by row from below."""
        row, column = divmod(state.landing(move[0]), 8)
        return row * COLUMNS + column

    def text(self, turn: int, number: int) -> str:  # noqa: ARG002
        """The column, 1 to 7."""
        return str(number % COLUMNS + 1)

    def worth(self, state: State) -> float:  # noqa: ARG002
        """Nothing: pieces are no gain, and an end is seen without counting."""
        return 0.0

    def drawn(self, state: State) -> str:
        """The board as lines of text."""
        return grid(state.board(), (".X", ".O"), "", "1234567")

    def squares(self, state: State, move: Move) -> list[tuple[int, int]]:
        """Row from above and column of the squares of a move on the drawn board."""
        row, column = divmod(state.landing(move[0]), 8)
        return [(ROWS - 1 - row, column)]


ENCODING = Encoding()
