"""Where the pieces of chess reach: tables by square, and lines up to what stands in the way."""

from __future__ import annotations

_KNIGHT = ((1, 2), (2, 1), (2, -1), (1, -2), (-1, -2), (-2, -1), (-2, 1), (-1, 2))
_ROOK = ((1, 0), (0, 1), (-1, 0), (0, -1))
_BISHOP = ((1, 1), (-1, 1), (-1, -1), (1, -1))


def squares_of(bits: int) -> list[int]:
    """The numbers of the set bits, lowest first."""
    found = []
    while bits:
        low = bits & -bits
        found.append(low.bit_length() - 1)
        bits ^= low
    return found


def _steps(square: int, ways: tuple[tuple[int, int], ...]) -> int:
    """The squares one step of (files, ranks) away."""
    found = 0
    for files, ranks in ways:
        file, rank = square % 8 + files, square // 8 + ranks
        if 0 <= file < 8 and 0 <= rank < 8:
            found |= 1 << (8 * rank + file)
    return found


def _ray(square: int, way: tuple[int, int], occupied: int = 0) -> int:
    """The squares in one direction up to and with the first occupied one."""
    file, rank, found = square % 8 + way[0], square // 8 + way[1], 0
    while 0 <= file < 8 and 0 <= rank < 8:
        bit = 1 << (8 * rank + file)
        found |= bit
        if bit & occupied:
            break
        file, rank = file + way[0], rank + way[1]
    return found


KNIGHT_REACH = tuple(_steps(s, _KNIGHT) for s in range(64))
KING_REACH = tuple(_steps(s, _ROOK + _BISHOP) for s in range(64))
PAWN_REACH = (
    tuple(_steps(s, ((-1, 1), (1, 1))) for s in range(64)),
    tuple(_steps(s, ((-1, -1), (1, -1))) for s in range(64)),
)
_ROOK_LINES = tuple(sum(_ray(s, w) for w in _ROOK) for s in range(64))
_BISHOP_LINES = tuple(sum(_ray(s, w) for w in _BISHOP) for s in range(64))
# What a line piece reaches depends on what stands on its lines alone; found once, remembered.
_rook_known: tuple[dict[int, int], ...] = tuple({} for _ in range(64))
_bishop_known: tuple[dict[int, int], ...] = tuple({} for _ in range(64))


def rook_reach(square: int, occupied: int) -> int:
    """What a rook attacks when ``occupied`` squares stop it."""
    relevant = occupied & _ROOK_LINES[square]
    found = _rook_known[square].get(relevant)
    if found is None:
        found = sum(_ray(square, way, relevant) for way in _ROOK)
        _rook_known[square][relevant] = found
    return found


def bishop_reach(square: int, occupied: int) -> int:
    """What a bishop attacks when ``occupied`` squares stop it."""
    relevant = occupied & _BISHOP_LINES[square]
    found = _bishop_known[square].get(relevant)
    if found is None:
        found = sum(_ray(square, way, relevant) for way in _BISHOP)
        _bishop_known[square][relevant] = found
    return found


def _between(a: int, b: int) -> int:
    ends = (1 << a) | (1 << b)
    for lines, reach in ((_ROOK_LINES, rook_reach), (_BISHOP_LINES, bishop_reach)):
        if lines[a] >> b & 1:
            return reach(a, ends) & reach(b, ends) & ~ends
    return 0


def _line(a: int, b: int) -> int:
    for lines in (_ROOK_LINES, _BISHOP_LINES):
        if lines[a] >> b & 1:
            return lines[a] & lines[b] | (1 << a) | (1 << b)
    return 0


_BETWEEN = tuple(tuple(_between(a, b) for b in range(64)) for a in range(64))
_LINE = tuple(tuple(_line(a, b) for b in range(64)) for a in range(64))


def between(a: int, b: int) -> int:
    """The squares strictly between two on one line, 0 where they are not."""
    return _BETWEEN[a][b]


def line(a: int, b: int) -> int:
    """The whole line through two squares, both included, 0 where there is none."""
    return _LINE[a][b]
