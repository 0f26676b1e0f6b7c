"""Othello as a network sees it: own discs, the other's, where one may place, and the last disc."""

from __future__ import annotations

from modelwright.data.games.board_drawing import grid
from modelwright.data.games.othello import State
from modelwright.data.games.state import Move

_CORNERS = 1 | 1 << 7 | 1 << 56 | 1 << 63
CORNER_WORTH = 10  # discs that a corner counts for: it can never be turned
PASS = 64


class Encoding:
    """Four planes of 8 x 8; a move is its square, 64 is a pass."""

    rows, columns, planes, kinds, others = 8, 8, 4, 1, 1
    symmetries = tuple(range(8))
    colours = ("black", "white")

    def seen(self, state: State, touched: int) -> bytes:
        """Own, other, the squares where the mover may place, the square placed last."""
        planes = (state.own, state.other, state.placings(), touched)
        return b"".join(bits.to_bytes(8, "little") for bits in planes)

    def clock(self, state: State) -> int:  # noqa: ARG002
        """Nothing is counted."""
        return 0

    def restored(self, seen: bytes, turn: int, clock: int) -> tuple[State, int]:  # noqa: ARG002
        """The state and the square placed last."""
        own, other, _, touched = (
            int.from_bytes(seen[i : i + 8], "little") for i in range(0, 32, 8)
        )
        return State(own, other, turn), touched

    def touched(self, state: State, move: Move) -> int:  # noqa: ARG002
        """The square; nothing of a pass."""
        return 1 << move[0] if move else 0

    def number(self, state: State, move: Move) -> int:  # noqa: ARG002
        """The square row by row, or 64."""
        return move[0] if move else PASS

    def text(self, turn: int, number: int) -> str:  # noqa: ARG002
        """The square such as f5, or "pass"."""
        return "pass" if number == PASS else f"{'abcdefgh'[number % 8]}{number // 8 + 1}"

    def worth(self, state: State) -> float:
        """Discs, a corner counting for eleven."""
        own, other = (
            side.bit_count() + CORNER_WORTH * (side & _CORNERS).bit_count()
            for side in (state.own, state.other)
        )
        return float(other - own if state.turn else own - other)

    def drawn(self, state: State) -> str:
        """The board as lines of text."""
        return grid(state.board(), (".X", ".O"), "12345678", "abcdefgh")

    def squares(self, state: State, move: Move) -> list[tuple[int, int]]:  # noqa: ARG002
        """Row from above and column of the squares of a move on the drawn board."""
        return [divmod(square, 8) for square in move]


ENCODING = Encoding()
