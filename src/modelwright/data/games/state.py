"""What every board game is: states, legal moves, an end, and a way to write moves down.

A state never changes; ``play`` gives the next one. Players are 0, who begins, and 1. Results are
seen by player 0: 1 won, -1 lost, 0 drawn.
"""

from __future__ import annotations

from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from modelwright.errors import ModelwrightError

Move = tuple[int, ...]  # squares, and what a game needs beside them; () is a pass


class IllegalMove(ModelwrightError):
    """A move that the rules do not allow, or that cannot be read as a move."""


class State(Protocol):
    """A position, and whose turn it is; ``str`` of it is what the class method ``of`` reads."""

    @property
    def turn(self) -> int:
        """The player to move, 0 or 1."""
        ...

    def legal_moves(self) -> list[Move]:
        """Every legal move, in a fixed order; empty when the game is over by the rules."""
        ...

    def play(self, move: Move) -> Self:
        """The state after a legal move; a move that is not legal gives nonsense, unchecked."""
        ...

    def result(self) -> float | None:
        """1, 0 or -1 for player 0 when the game is over by the rules, else None."""
        ...

    def parse(self, text: str) -> Move:
        """The legal move that the game's notation names.

        Raises:
            IllegalMove: it is no move, not a legal one, or could be several.
        """
        ...

    def write(self, move: Move) -> str:
        """A legal move in the game's notation; ``parse`` reads it back."""
        ...

    def board(self) -> NDArray[np.int8]:
        """The board as it is printed, 8 x 8 but for games on another: pieces of player 0 positive.

        Those of player 1 are negative, int8.
        """
        ...


class Encoding(Protocol):
    """How a network sees a game and numbers its moves, both from the mover's side of the board.

    A module ``GAME_encoding`` of this room has one as ``ENCODING``. A position is ``planes`` planes
    of bits over ``rows`` x ``columns`` squares; a move is a square and one of ``kinds`` kinds of
    move there, or one of ``others`` at no square: ``models/board.py``.

    Attributes:
        colours: of the two players as records name them, who begins first.
        symmetries: those numbers of ``augment/transforms/boards.py`` under which the game stays
            the same, for moves of one kind a square.
    """

    rows: int
    columns: int
    planes: int
    kinds: int
    others: int
    symmetries: tuple[int, ...]
    colours: tuple[str, str]

    def seen(self, state: Any, touched: int) -> bytes:
        """The planes, a byte a row of each: bit c is column c. ``touched``: the last move's."""
        ...

    def clock(self, state: Any) -> int:
        """What the planes do not show and an end depends on: plies without progress, or 0."""
        ...

    def restored(self, seen: bytes, turn: int, clock: int) -> tuple[Any, int]:
        """The state and the touched squares of planes, which ``seen`` would give again."""
        ...

    def touched(self, state: Any, move: Move) -> int:
        """The squares of a move that is to be played in ``state``, as bits."""
        ...

    def number(self, state: Any, move: Move) -> int:
        """The number of a legal move."""
        ...

    def text(self, turn: int, number: int) -> str:
        """A move by its number for the player ``turn``, as ``State.parse`` reads it."""
        ...

    def worth(self, state: Any) -> float:
        """What stands on the board in customary units, seen by player 0: what greed counts."""
        ...

    def drawn(self, state: Any) -> str:
        """The board as lines of text, its rows and columns named."""
        ...

    def squares(self, state: Any, move: Move) -> list[tuple[int, int]]:
        """Row from above and column of the squares of a move on the drawn board."""
        ...
