"""Checkers as a network sees it: men, kings and the last move, from the mover's side.

A move is where it begins and where it ends: chains of jumps between the same two squares share a
number, and the first of them in the rules' order is the one that is played.
"""

from __future__ import annotations

from modelwright.data.games.board_drawing import grid
from modelwright.data.games.checkers import SQUARE_BITS, State
from modelwright.data.games.state import Move

_KING = 1.5  # men that a king counts for
_SHOWN = {s: 8 * ((s - 1) // 4) + 2 * ((s - 1) % 4) + ((s - 1) // 4 + 1) % 2 for s in range(1, 33)}
_AT = {at: s for s, at in _SHOWN.items()}


class Encoding:
    """Five planes of 8 x 8, the mover's own side first; 32 kinds: where a move ends."""

    rows, columns, planes, kinds, others = 8, 8, 5, 32, 0
    symmetries = (0,)
    colours = ("black", "white")

    def seen(self, state: State, touched: int) -> bytes:
        """Own men, own kings, the other's, and the squares of the last move."""
        own, other = (state.white, state.black) if state.turn else (state.black, state.white)
        planes = [own & ~state.kings, own & state.kings, other & ~state.kings, other & state.kings]
        shown = [0] * 5
        for square, bit in SQUARE_BITS.items():
            at = 1 << _SHOWN[33 - square if state.turn else square]
            for i, plane in enumerate(planes):
                if plane & bit:
                    shown[i] |= at
            if touched >> square & 1:
                shown[4] |= at
        return b"".join(bits.to_bytes(8, "little") for bits in shown)

    def clock(self, state: State) -> int:
        """Plies without a capture or a man's move."""
        return state.quiet

    def restored(self, seen: bytes, turn: int, clock: int) -> tuple[State, int]:
        """The state and the squares of the last move."""
        found, touched = [0, 0, 0, 0], 0
        for i in range(5):
            bits = int.from_bytes(seen[8 * i : 8 * i + 8], "little")
            for at, number in _AT.items():
                if bits >> at & 1:
                    square = 33 - number if turn else number
                    if i < 4:
                        found[i] |= SQUARE_BITS[square]
                    else:
                        touched |= 1 << square
        own, other = found[0] | found[1], found[2] | found[3]
        black, white = (other, own) if turn else (own, other)
        return State(black, white, found[1] | found[3], turn, clock), touched

    def touched(self, state: State, move: Move) -> int:  # noqa: ARG002
        """The squares it passes, as bits by their numbers."""
        return sum(1 << square for square in set(move))

    def number(self, state: State, move: Move) -> int:
        """Where it begins, as a square of 8 x 8, * 32 + where it ends."""
        at, to = (33 - s if state.turn else s for s in (move[0], move[-1]))
        return _SHOWN[at] * 32 + to - 1

    def text(self, turn: int, number: int) -> str:
        """The squares such as 11-15, for a jump as well."""
        at, to = _AT[number // 32], number % 32 + 1
        return f"{33 - at}-{33 - to}" if turn else f"{at}-{to}"

    def worth(self, state: State) -> float:
        """A man 1, a king one and a half."""
        black, white = (
            side.bit_count() + (_KING - 1) * (side & state.kings).bit_count()
            for side in (state.black, state.white)
        )
        return black - white

    def drawn(self, state: State) -> str:
        """The board as lines of text, and beside it the numbers of the squares."""
        lines = grid(state.board(), (".bB", ".wW"), "", "").splitlines()
        numbers = [["  "] * 8 for _ in range(8)]
        for square, at in _SHOWN.items():
            numbers[at // 8][at % 8] = f"{square:2}"
        return "\n".join(
            f"{line}    {' '.join(of)}" for line, of in zip(lines, numbers, strict=False)
        )

    def squares(self, state: State, move: Move) -> list[tuple[int, int]]:  # noqa: ARG002
        """Row from above and column of the squares of a move on the drawn board."""
        return [divmod(_SHOWN[square], 8) for square in move]


ENCODING = Encoding()
