"""What every board game is: states, legal moves, an end, and a way to write moves down.

A state never changes; ``play`` gives the next one. Players are 0, who begins, and 1. Results are
seen by player 0: 1 won, -1 lost, 0 drawn.
"""

from __future__ import annotations

from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from modelwright.errors import ModelwrightError

Move = tuple[int, ...]  # squares, and what a game needs beside them; () is a pass


class IllegalMove(ModelwrightError):
    """A move that the rules do not allow, or that cannot be read as a move."""


class State(Protocol):
    """A position, and whose turn it is."""

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
        """The board (8, 8) as it is printed, pieces of player 0 positive, of player 1 negative."""
        ...
