"""Chess as a network sees it: pieces, rights and the last move, black's board turned upside down.

Moves are numbered as in AlphaZero (arXiv:1712.01815, table S2): a square and a kind of move from
there, but with every promotion apart: 56 moves of a queen (8 directions, 1 to 7 squares), 8 of a
knight, and 12 promotions (queen, rook, bishop, knight; to the left, ahead, to the right).
"""

from __future__ import annotations

from typing import Literal

from modelwright.data.games.board_drawing import grid
from modelwright.data.games.chess import BISHOP, KNIGHT, QUEEN, ROOK, State
from modelwright.data.games.chess_notation import square_name
from modelwright.data.games.state import Move

Order = Literal["little", "big"]
_KINDS = 76
_STEPS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))  # file, rank
_HOPS = ((1, 2), (2, 1), (2, -1), (1, -2), (-1, -2), (-2, -1), (-2, 1), (-1, 2))
_BECOMES = (QUEEN, ROOK, BISHOP, KNIGHT)
_WORTH = (1.0, 3.0, 3.0, 5.0, 9.0, 0.0)  # pawn, knight, bishop, rook, queen, king
_FULL = (1 << 64) - 1


def _numbers() -> dict[Move, int]:
    """Move seen by white -> number."""
    kinds = {
        (x * far, y * far): 7 * d + far - 1
        for d, (x, y) in enumerate(_STEPS)
        for far in range(1, 8)
    }
    kinds |= {hop: 56 + i for i, hop in enumerate(_HOPS)}
    found: dict[Move, int] = {}
    for at in range(64):
        for (x, y), kind in kinds.items():
            file, rank = at % 8 + x, at // 8 + y
            if 0 <= file < 8 and 0 <= rank < 8:
                found[at, 8 * rank + file, 0] = at * _KINDS + kind
                if at // 8 == 6 and y == 1 and abs(x) <= 1:
                    for i, becomes in enumerate(_BECOMES):
                        found[at, 8 * rank + file, becomes] = at * _KINDS + 64 + 3 * i + x + 1
    return found


_NUMBER = _numbers()
_MOVE = {number: move for move, number in _NUMBER.items()}


class Encoding:
    """18 planes of 8 x 8, the mover's own side first; 76 kinds of move at a square.

    Own pawns, knights, bishops, rooks, queens, king; the other's; castling of the mover (short,
    long) and of the other; the square a pawn may be taken on in passing; the last move's squares.
    """

    rows, columns, planes, kinds, others = 8, 8, 18, _KINDS, 0
    symmetries = (0,)
    colours = ("white", "black")

    def seen(self, state: State, touched: int) -> bytes:
        """The planes."""
        turn = state.turn
        own, other = state.colours[turn], state.colours[1 - turn]
        rights = state.rights >> 2 | state.rights << 2 & 0b1100 if turn else state.rights
        planes = [kind & own for kind in state.kinds]
        planes += [kind & other for kind in state.kinds]
        planes += [_FULL if rights >> i & 1 else 0 for i in range(4)]
        planes += [1 << state.passed if state.passed >= 0 else 0, touched]
        order: Order = (
            "big" if turn else "little"
        )  # the ranks of black's board come the other way round
        return b"".join(bits.to_bytes(8, order) for bits in planes)

    def clock(self, state: State) -> int:
        """Plies since the last capture or pawn move."""
        return state.quiet

    def restored(self, seen: bytes, turn: int, clock: int) -> tuple[State, int]:
        """The state, its moves counted from 1, and the last move's squares."""
        order: Order = "big" if turn else "little"
        found = [int.from_bytes(seen[i : i + 8], order) for i in range(0, len(seen), 8)]
        own, other = sum(found[:6]), sum(found[6:12])
        rights = sum(1 << i for i in range(4) if found[12 + i])
        rights = rights >> 2 | rights << 2 & 0b1100 if turn else rights
        a, b, c, d, e, f = (mine | its for mine, its in zip(found[:6], found[6:12], strict=True))
        colours = (other, own) if turn else (own, other)
        passed = found[16].bit_length() - 1
        return State((a, b, c, d, e, f), colours, turn, rights, passed, clock), found[17]

    def touched(self, state: State, move: Move) -> int:  # noqa: ARG002
        """Where the piece came from, and where it went."""
        return 1 << move[0] | 1 << move[1]

    def number(self, state: State, move: Move) -> int:
        """Square * 76 + kind."""
        if state.turn:
            return _NUMBER[move[0] ^ 56, move[1] ^ 56, move[2]]
        return _NUMBER[move]

    def text(self, turn: int, number: int) -> str:
        """The squares, and what a pawn becomes, such as e7e8q."""
        at, to, becomes = _MOVE[number]
        turned = 56 if turn else 0
        return (
            square_name(at ^ turned)
            + square_name(to ^ turned)
            + " nbrq"[becomes - 1] * bool(becomes)
        )

    def worth(self, state: State) -> float:
        """Pawn 1, knight and bishop 3, rook 5, queen 9."""
        white, black = state.colours
        pairs = zip(_WORTH, state.kinds, strict=True)
        return sum(w * ((k & white).bit_count() - (k & black).bit_count()) for w, k in pairs)

    def drawn(self, state: State) -> str:
        """The board as lines of text."""
        return grid(state.board(), (".PNBRQK", ".pnbrqk"), "87654321", "abcdefgh")

    def squares(self, state: State, move: Move) -> list[tuple[int, int]]:  # noqa: ARG002
        """Row from above and column of the squares of a move on the drawn board."""
        return [(7 - square // 8, square % 8) for square in move[:2]]


ENCODING = Encoding()
