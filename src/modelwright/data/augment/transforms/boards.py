"""The eight symmetries of a square: four quarter turns, each with or without a mirror.

Numbered 0 to 7: symmetry k mirrors left and right if k > 3, then turns by k % 4 quarters against
the clock. Number 0 changes nothing. A position of Othello or of go keeps its meaning under all
of them; of chess and draughts under none, since pawns and men have a direction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np

from modelwright.data import games
from modelwright.errors import ModelwrightError

if TYPE_CHECKING:
    from modelwright.types import Array, Column, Columns, Ragged


COUNT = 8


@dataclass(frozen=True)
class Symmetry:
    """Turn and mirror each board by one of eight symmetries, drawn evenly; labels stay."""

    kind: ClassVar[str] = "image"

    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        """Square boards (B, n, n) or (B, n, n, planes), each by its own symmetry.

        Raises:
            ModelwrightError: they are not square.
        """
        if images.shape[1] != images.shape[2]:
            raise ModelwrightError(
                f"augment: symmetry is for squares, these are {images.shape[1]} x "
                f"{images.shape[2]}; use flip instead"
            )
        drawn, out = rng.integers(COUNT, size=len(images)), images.copy()
        for number in range(1, COUNT):
            out[drawn == number] = turned(images[drawn == number], number)
        return out


@dataclass(frozen=True)
class GameSymmetry:
    """A whole game of Othello by one of the three symmetries that keep its first position."""

    kind: ClassVar[str] = "game"
    KEEP: ClassVar[tuple[int, ...]] = (2, 5, 7)  # half a turn, and both diagonals

    def __call__(self, moves: list[str], rng: np.random.Generator) -> list[str]:
        """The moves in squares such as f5; passes stay."""
        number = self.KEEP[int(rng.integers(len(self.KEEP)))]
        to = squares(8, number)
        return [_square(to, move) for move in moves]


@dataclass(frozen=True)
class BoardSymmetry:
    """Stored positions and their moves by one of the symmetries of their game, drawn evenly."""

    kind: ClassVar[str] = "board"

    def columns(self, columns: Columns, rng: np.random.Generator) -> Columns:
        """Columns of the codec ``boards``, each row by its own symmetry.

        Raises:
            ModelwrightError: the game has none.
        """
        game = np.asarray(columns["game"])[0].decode()
        seen = games.encoding(game)
        if len(seen.symmetries) < 2 or seen.kinds > 1:
            raise ModelwrightError(f"augment: board_symmetry: {game} has none; leave it out")
        planes = np.array(columns["planes"])
        drawn = rng.integers(len(seen.symmetries), size=len(planes))
        moves = np.stack([_moves(seen, number) for number in seen.symmetries])
        for i, number in enumerate(seen.symmetries):
            rows = drawn == i
            if number and rows.any():
                bits = np.unpackbits(planes[rows, ..., None], -1, seen.columns, "little")
                bits = turned(bits.transpose(0, 2, 3, 1), number).transpose(0, 3, 1, 2)
                planes[rows] = np.packbits(bits, -1, "little")[..., 0]
        changed = {name: _followed(columns[name], drawn, moves) for name in ("legal", "played")}
        return {**columns, "planes": planes, **changed}


def _moves(seen: games.Encoding, number: int) -> Array:
    """Where the number of every move goes; moves at no square stay."""
    squares_of = np.arange(seen.rows * seen.columns)
    came_from = turned(squares_of.reshape(1, seen.rows, seen.columns), number).ravel()
    goes_to = np.arange(len(squares_of) + seen.others, dtype=np.int16)
    goes_to[came_from] = squares_of
    return goes_to


def _followed(column: Column, drawn: Array, moves: Array) -> Ragged:
    """A ragged column of numbers of moves, each row by its own symmetry."""
    ragged = cast("Ragged", column)
    values = moves[np.repeat(drawn, ragged.lengths), np.asarray(ragged.values)]
    return replace(ragged, values=values)


def turned(boards: Array, number: int) -> Array:
    """Boards (B, n, n, ...) by the symmetry ``number``."""
    seen = np.flip(boards, axis=2) if number > 3 else boards
    return np.rot90(seen, k=number % 4, axes=(1, 2))


def inverse(number: int) -> int:
    """The symmetry that undoes another: a mirrored one undoes itself."""
    return number if number > 3 else -number % 4


def squares(size: int, number: int) -> Array:
    """Where each square of a board goes, (size * size,), row by row.

    ``turned(board)[squares[i]] == board[i]`` for squares counted row by row; so the labels of
    moves follow their boards.
    """
    numbers = np.arange(size * size).reshape(1, size, size)
    came_from = turned(numbers, number).ravel()
    goes_to = np.empty(size * size, dtype=np.int64)
    goes_to[came_from] = np.arange(size * size)
    return goes_to


def _square(to: Array, move: str) -> str:
    name = move.strip().lower()
    if len(name) == 2 and name.isdigit():  # row and column, as in the WTHOR base
        name = f"{'?abcdefgh?'[int(name[1])]}{name[0]}"
    if len(name) != 2 or name[0] not in "abcdefgh" or name[1] not in "12345678":
        return move
    row, column = divmod(int(to[8 * (int(name[1]) - 1) + "abcdefgh".index(name[0])]), 8)
    return f"{'abcdefgh'[column]}{row + 1}"
