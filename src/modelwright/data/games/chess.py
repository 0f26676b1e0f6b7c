"""Chess by the laws of FIDE: castling, en passant, promotion, check, and the notation SAN.

Squares are numbered 8 * rank + file from a1 = 0 to h8 = 63; a set of squares is a whole number
with a bit each. Player 0 is white. A move is (from, to, promotion), the last being 0 or a kind of
piece. A state knows nothing of earlier ones: who wants draws by repetition counts ``key``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelwright.data.games import chess_notation as notation
from modelwright.data.games.chess_attacks import (
    KING_REACH,
    KNIGHT_REACH,
    PAWN_REACH,
    between,
    bishop_reach,
    line,
    rook_reach,
    squares_of,
)
from modelwright.data.games.state import Move

PAWN, KNIGHT, BISHOP, ROOK, QUEEN, KING = range(1, 7)
START = "rnbqkbnr/pppppppp/8/8/8/8/PPPPPPPP/RNBQKBNR w KQkq - 0 1"
_RANKS = tuple(0xFF << 8 * r for r in range(8))
# Where a rook leaves or is taken, the right to castle with it is lost; so for a king's square.
_RIGHTS = {0: 0b0010, 7: 0b0001, 56: 0b1000, 63: 0b0100, 4: 0b0011, 60: 0b1100}
# Right -> king from, king to, rook from, rook to, squares between that must be empty.
_CASTLES = {
    0b0001: (4, 6, 7, 5, 0x60),
    0b0010: (4, 2, 0, 3, 0x0E),
    0b0100: (60, 62, 63, 61, 0x60 << 56),
    0b1000: (60, 58, 56, 59, 0x0E << 56),
}
_LIGHT = 0x55AA55AA55AA55AA
MOVES_DRAWN = 150  # plies without capture or pawn move after which a game is drawn, unclaimed


@dataclass(frozen=True, slots=True)
class State:
    """A position.

    Attributes:
        kinds: the squares of the pawns, knights, bishops, rooks, queens and kings, both colours.
        colours: the squares of white's and of black's pieces.
        turn: 0 white, 1 black.
        rights: who may still castle: 1 white short, 2 white long, 4 and 8 black.
        passed: the square a pawn has just passed over by a double step, or -1.
        quiet: plies since the last capture or pawn move.
        number: of the move, from 1, as it is printed.
    """

    kinds: tuple[int, int, int, int, int, int]
    colours: tuple[int, int]
    turn: int = 0
    rights: int = 15
    passed: int = -1
    quiet: int = 0
    number: int = 1

    @classmethod
    def start(cls) -> State:
        """The initial position."""
        return cls.of(START)

    @classmethod
    def of(cls, position: str) -> State:
        """A position in Forsyth-Edwards notation (FEN).

        Raises:
            ModelwrightError: it is no position that can be played.
        """
        state = cls(*notation.from_fen(position))
        notation.check(state.attackers(state.king(1 - state.turn), state.turn), position)
        return state

    def fen(self) -> str:
        """The position in Forsyth-Edwards notation."""
        return notation.fen(self)

    def __str__(self) -> str:
        """The position as ``of`` reads it."""
        return self.fen()

    @property
    def key(self) -> tuple[object, ...]:
        """What is the same in two positions that count as a repetition."""
        usable = self.passed if any(m[1] == self.passed for m in self._pawn_takes()) else -1
        return (self.kinds, self.colours, self.turn, self.rights, usable)

    def king(self, colour: int) -> int:
        """The square of a king."""
        return (self.kinds[5] & self.colours[colour]).bit_length() - 1

    def piece_at(self, square: int) -> int:
        """The kind of piece on a square, 0 where there is none."""
        bit = 1 << square
        for kind, squares in enumerate(self.kinds, 1):
            if squares & bit:
                return kind
        return 0

    def attackers(self, square: int, colour: int, occupied: int | None = None) -> int:
        """The pieces of a colour that attack a square, as bits."""
        full = self.colours[0] | self.colours[1] if occupied is None else occupied
        pawns, knights, bishops, rooks, queens, kings = self.kinds
        found = PAWN_REACH[1 - colour][square] & pawns
        found |= KNIGHT_REACH[square] & knights
        found |= KING_REACH[square] & kings
        found |= bishop_reach(square, full) & (bishops | queens)
        found |= rook_reach(square, full) & (rooks | queens)
        return found & self.colours[colour] & full

    def check(self) -> int:
        """The pieces that give check to the player to move, as bits."""
        return self.attackers(self.king(self.turn), 1 - self.turn)

    # Moves -----------------------------------------------------------------------------------

    def legal_moves(self) -> list[Move]:
        """Every legal move: pieces in the order of their squares, pawns last but castling."""
        return self.sifted(self._pieces() + self._pawns() + self._castles())

    def sifted(self, moves: list[Move]) -> list[Move]:
        """Those of some moves, right but for the king's safety, that are safe."""
        king, check = self.king(self.turn), self.check()
        if check:
            return [m for m in moves if self._safe(m)]
        pinned = self._pinned(king)
        found = []
        for move in moves:
            at = move[0]
            # A pinned piece may move on the line it is pinned on; taking en passant removes two
            # pieces at once, and a king walks: these are tried out.
            if at == king or (move[1] == self.passed and self.kinds[0] >> at & 1):
                if not self._safe(move):
                    continue
            elif pinned >> at & 1 and not line(king, at) >> move[1] & 1:
                continue
            found.append(move)
        return found

    def _pinned(self, king: int) -> int:
        """The own pieces that stand between the king and a line piece of the other side."""
        own, other = self.colours[self.turn], self.colours[1 - self.turn]
        _, _, bishops, rooks, queens, _ = self.kinds
        snipers = bishop_reach(king, 0) & (bishops | queens) & other
        snipers |= rook_reach(king, 0) & (rooks | queens) & other
        found = 0
        for sniper in squares_of(snipers):
            blockers = between(king, sniper) & (own | other)
            if blockers & own and not blockers & (blockers - 1):
                found |= blockers
        return found

    def _safe(self, move: Move) -> bool:
        """Whether the own king is not attacked after a move."""
        at, to, _ = move
        turn, bit = self.turn, 1 << to
        full = (self.colours[0] | self.colours[1]) & ~(1 << at) | bit
        taken = bit & self.colours[1 - turn]
        if to == self.passed and self.kinds[0] >> at & 1:
            taken = 1 << (to - 8 if turn == 0 else to + 8)
            full &= ~taken
        king = self.king(turn)
        return not self.attackers(to if at == king else king, 1 - turn, full) & ~taken

    def reach(self, kind: int, square: int) -> int:
        """The squares that a piece other than a pawn attacks, as bits."""
        if kind == KNIGHT:
            return KNIGHT_REACH[square]
        if kind == KING:
            return KING_REACH[square]
        full = self.colours[0] | self.colours[1]
        found = 0
        if kind in (BISHOP, QUEEN):
            found |= bishop_reach(square, full)
        if kind in (ROOK, QUEEN):
            found |= rook_reach(square, full)
        return found

    def _pieces(self) -> list[Move]:
        own = self.colours[self.turn]
        found: list[Move] = []
        for kind in (KNIGHT, BISHOP, ROOK, QUEEN, KING):
            for at in squares_of(self.kinds[kind - 1] & own):
                found += [(at, to, 0) for to in squares_of(self.reach(kind, at) & ~own)]
        return found

    def _pawns(self) -> list[Move]:
        turn, empty = self.turn, ~(self.colours[0] | self.colours[1])
        pawns = self.kinds[0] & self.colours[turn]
        if turn == 0:
            once = pawns << 8 & empty
            twice, by = (once & _RANKS[2]) << 8 & empty, 8
        else:
            once = pawns >> 8 & empty
            twice, by = (once & _RANKS[5]) >> 8 & empty, -8
        found: list[Move] = []
        for to in squares_of(once):
            found += _promoted(to - by, to)
        found += [(to - 2 * by, to, 0) for to in squares_of(twice)]
        return found + self._pawn_takes()

    def _pawn_takes(self) -> list[Move]:
        turn = self.turn
        targets = self.colours[1 - turn] | (1 << self.passed if self.passed >= 0 else 0)
        found: list[Move] = []
        for at in squares_of(self.kinds[0] & self.colours[turn]):
            for to in squares_of(PAWN_REACH[turn][at] & targets):
                found += _promoted(at, to)
        return found

    def _castles(self) -> list[Move]:
        """Castling, the squares a king crosses being safe; the one it ends on is sifted."""
        rights = self.rights & (0b1100 if self.turn else 0b0011)
        if not rights or self.check():
            return []
        full = self.colours[0] | self.colours[1]
        found: list[Move] = []
        for right, (at, to, _, crossed, empty) in _CASTLES.items():
            if rights & right and not full & empty and not self.attackers(crossed, 1 - self.turn):
                found.append((at, to, 0))
        return found

    def play(self, move: Move) -> State:
        """The position after a legal move."""
        at, to, promotion = move
        turn, gone, come = self.turn, 1 << at, 1 << to
        kind = self.piece_at(at)
        own, other = self.colours[turn], self.colours[1 - turn]
        kinds = list(self.kinds)
        taken = come & other
        if kind == PAWN and to == self.passed:
            taken = 1 << (to - 8 if turn == 0 else to + 8)
        if taken:
            kinds = [squares & ~taken for squares in kinds]
            other &= ~taken
        kinds[kind - 1] &= ~gone
        kinds[(promotion or kind) - 1] |= come
        own = own & ~gone | come
        if kind == KING and abs(to - at) == 2:
            _, _, rook, beside, _ = next(c for c in _CASTLES.values() if c[:2] == (at, to))
            hop = (1 << rook) | (1 << beside)
            kinds[ROOK - 1] ^= hop
            own ^= hop
        double = kind == PAWN and abs(to - at) == 16
        return State(
            (kinds[0], kinds[1], kinds[2], kinds[3], kinds[4], kinds[5]),
            (own, other) if turn == 0 else (other, own),
            1 - turn,
            self.rights & ~(_RIGHTS.get(at, 0) | _RIGHTS.get(to, 0)),
            (at + to) // 2 if double else -1,
            0 if taken or kind == PAWN else self.quiet + 1,
            self.number + turn,
        )

    # The end, and notation -------------------------------------------------------------------

    def result(self) -> float | None:
        """Mate, stalemate, too little left to mate with, or 75 moves without progress."""
        if not self.legal_moves():
            if self.check():
                return 1.0 if self.turn else -1.0
            return 0.0
        return 0.0 if self.quiet >= MOVES_DRAWN or self._dead() else None

    def _dead(self) -> bool:
        """Whether nobody can mate: bare kings, one knight, or bishops of one colour of squares."""
        pawns, knights, bishops, rooks, queens, _ = self.kinds
        if pawns | rooks | queens:
            return False
        if knights:
            return not bishops and knights.bit_count() == 1
        return not (bishops & _LIGHT and bishops & ~_LIGHT)

    def parse(self, text: str) -> Move:
        """A move in SAN, such as Nf3, exd6, O-O, e8=Q+, or by its squares, such as e7e8q."""
        return notation.parse(self, text)

    def write(self, move: Move) -> str:
        """A legal move in SAN, with + for check and # for mate."""
        return notation.write(self, move)

    def board(self) -> NDArray[np.int8]:
        """1 pawn, 2 knight, 3 bishop, 4 rook, 5 queen, 6 king; black's negative; rank 8 first."""
        board = np.zeros(64, dtype=np.int8)
        for kind, squares in enumerate(self.kinds, 1):
            for square in squares_of(squares):
                board[square] = kind if self.colours[0] >> square & 1 else -kind
        return board.reshape(8, 8)[::-1].copy()


def _promoted(at: int, to: int) -> list[Move]:
    """A pawn's move, once for each piece it may become on the last rank."""
    if 8 <= to < 56:
        return [(at, to, 0)]
    return [(at, to, kind) for kind in (QUEEN, ROOK, BISHOP, KNIGHT)]
