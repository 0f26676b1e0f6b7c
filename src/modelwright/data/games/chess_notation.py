"""Chess in writing: positions as FEN, moves as SAN, by the PGN standard of 1994."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from modelwright.data.games.chess_attacks import PAWN_REACH, squares_of
from modelwright.data.games.state import IllegalMove, Move
from modelwright.errors import ModelwrightError

if TYPE_CHECKING:
    from modelwright.data.games.chess import State

_LETTERS = "PNBRQK"
_CASTLE = {"O-O": 2, "O-O-O": -2}
_SAN = re.compile(
    r"([NBRQK])?([a-h])?([1-8])?[x:]?([a-h])([1-8])(?:=?\(?([NBRQ])\)?)?(?:\s*e\.?p\.?)?"
)
_PLAIN = re.compile(r"([a-h][1-8])[-x]?([a-h][1-8])([nbrq])?")
_HOMES = ((1, 4, 7, 0), (2, 4, 0, 0), (4, 60, 63, 1), (8, 60, 56, 1))  # right, king, rook, colour
Fields = tuple[tuple[int, int, int, int, int, int], tuple[int, int], int, int, int, int, int]


def square_name(square: int) -> str:
    """A square such as e4."""
    return f"{'abcdefgh'[square % 8]}{square // 8 + 1}"


def from_fen(text: str) -> Fields:
    """The fields of a chess ``State`` of a FEN; the two counters may be left out.

    Raises:
        ModelwrightError: it is no FEN, or has not one king of each colour.
    """
    words = text.split()
    match = re.fullmatch(
        r"([1-8pnbrqkPNBRQK/]+) ([wb]) (-|K?Q?k?q?) (-|[a-h][36])( \d+)?( \d+)?", " ".join(words)
    )
    placed = re.sub(r"\d", lambda m: "." * int(m[0]), match[1]) if match else ""
    rows = placed.split("/")
    if not match or len(rows) != 8 or any(len(r) != 8 for r in rows):
        raise ModelwrightError(f"chess: {text[:90]!r} is no position in FEN")
    kinds, colours = [0] * 6, [0, 0]
    for rank, row in enumerate(reversed(rows)):
        for file, letter in enumerate(row):
            if letter != ".":
                bit = 1 << (8 * rank + file)
                kinds[_LETTERS.index(letter.upper())] |= bit
                colours[letter.islower()] |= bit
    kings = [(kinds[5] & colour).bit_count() for colour in colours]
    if kings != [1, 1] or kinds[0] & 0xFF000000000000FF:
        raise ModelwrightError(f"chess: {text[:90]!r} has a wrong number of kings or a lost pawn")
    rights = sum(1 << "KQkq".index(c) for c in match[3] if c != "-")
    for right, king, rook, colour in _HOMES:  # a right without its king and rook is none
        homed = kinds[5] >> king & kinds[3] >> rook & colours[colour] >> king & 1
        if not (homed and colours[colour] >> rook & 1):
            rights &= ~right
    passed = -1 if match[4] == "-" else _number(match[4])
    quiet, number = int(match[5] or 0), int(match[6] or 1)
    six = (kinds[0], kinds[1], kinds[2], kinds[3], kinds[4], kinds[5])
    return six, (colours[0], colours[1]), int(match[2] == "b"), rights, passed, quiet, number


def check(attacked: int, text: str) -> None:
    """Refuse a position where the player who is not to move stands in check."""
    if attacked:
        raise ModelwrightError(f"chess: {text[:90]!r}: the king could be taken; whose turn is it?")


def fen(state: State) -> str:
    """The position in Forsyth-Edwards notation."""
    rows = []
    for rank in range(7, -1, -1):
        row = ""
        for square in range(8 * rank, 8 * rank + 8):
            kind = state.piece_at(square)
            letter = _LETTERS[kind - 1] if kind else "."
            row += letter if state.colours[0] >> square & 1 else letter.lower()
        rows.append(re.sub(r"\.+", lambda m: str(len(m[0])), row))
    rights = "".join(c for i, c in enumerate("KQkq") if state.rights >> i & 1) or "-"
    passed = square_name(state.passed) if state.passed >= 0 else "-"
    return f"{'/'.join(rows)} {'wb'[state.turn]} {rights} {passed} {state.quiet} {state.number}"


def parse(state: State, text: str) -> Move:
    """The legal move that SAN, or a pair of squares, names.

    Raises:
        IllegalMove: it is no move, not a legal one, or could be several.
    """
    bare = text.strip().rstrip("+#!?").replace("0", "O")
    if bare in _CASTLE:
        king = state.king(state.turn)
        castle = (king, king + _CASTLE[bare], 0)
        if castle not in state.legal_moves():
            raise IllegalMove(f"{text}: castling is not legal here")
        return castle
    if plain := _PLAIN.fullmatch(bare):
        kind = "?nbrq".index(plain[3]) + 1 if plain[3] else 0
        move = (_number(plain[1]), _number(plain[2]), kind)
        if move in state.legal_moves():
            return move
    match = _SAN.fullmatch(bare)
    if not match:
        raise IllegalMove(f"{text[:20]!r} is no move")
    found = state.sifted(_candidates(state, match))
    if len(found) != 1:
        raise IllegalMove(f"{text}: " + ("could be several moves" if found else "is not legal"))
    return found[0]


def _candidates(state: State, match: re.Match[str]) -> list[Move]:
    """The moves that fit what is written, but for the king's safety."""
    letter, file, rank, to_file, to_rank, promotion = match.groups()
    to, own = _number(to_file + to_rank), state.colours[state.turn]
    if own >> to & 1:
        return []
    kind = _LETTERS.index(letter) + 1 if letter else 1
    becomes = _LETTERS.index(promotion) + 1 if promotion else 0
    if kind == 1:
        if (to // 8 in (0, 7)) != bool(becomes):
            return []
        froms = _pawns_to(state, to)
    elif becomes:
        return []
    else:
        froms = state.reach(kind, to) & state.kinds[kind - 1] & own
    if file:
        froms &= 0x0101010101010101 << "abcdefgh".index(file)
    if rank:
        froms &= 0xFF << 8 * (int(rank) - 1)
    return [(at, to, becomes) for at in squares_of(froms)]


def _pawns_to(state: State, to: int) -> int:
    """The own pawns that can go to a square, but for the king's safety."""
    turn = state.turn
    pawns, full = state.kinds[0] & state.colours[turn], state.colours[0] | state.colours[1]
    if state.colours[1 - turn] >> to & 1 or to == state.passed:
        return PAWN_REACH[1 - turn][to] & pawns
    if full >> to & 1:
        return 0
    by = -8 if turn else 8
    behind = 1 << (to - by) if 0 <= to - by < 64 else 0
    if behind & full:
        return behind & pawns
    return (1 << (to - 2 * by)) & pawns if to // 8 == (4 if turn else 3) else 0


def write(state: State, move: Move) -> str:
    """A legal move in SAN, with as little as tells it from others, and + or #."""
    at, to, becomes = move
    kind = state.piece_at(at)
    takes = bool(state.colours[1 - state.turn] >> to & 1)
    if kind == 6 and abs(to - at) == 2:
        text = "O-O" if to > at else "O-O-O"
    elif kind == 1:
        takes = takes or to == state.passed
        text = f"{square_name(at)[0]}x" if takes else ""
        text += square_name(to) + (f"={_LETTERS[becomes - 1]}" if becomes else "")
    else:
        text = _LETTERS[kind - 1] + _told_apart(state, move, kind)
        text += ("x" if takes else "") + square_name(to)
    after = state.play(move)
    if not after.check():
        return text
    return text + ("+" if after.legal_moves() else "#")


def _told_apart(state: State, move: Move, kind: int) -> str:
    """The file, the rank or the square that tells a piece from others that could go there."""
    at, to, _ = move
    same = state.reach(kind, to) & state.kinds[kind - 1] & state.colours[state.turn]
    rivals = [m[0] for m in state.sifted([(s, to, 0) for s in squares_of(same) if s != at])]
    if not rivals:
        return ""
    name = square_name(at)
    if all(rival % 8 != at % 8 for rival in rivals):
        return name[0]
    return name[1] if all(rival // 8 != at // 8 for rival in rivals) else name


def _number(name: str) -> int:
    return "abcdefgh".index(name[0]) + 8 * (int(name[1]) - 1)
