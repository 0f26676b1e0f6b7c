"""Boards as lines of text."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def grid(board: NDArray[np.int8], signs: tuple[str, str], rows: str, columns: str) -> str:
    """A board with its names around it.

    Args:
        board: as ``State.board`` gives it.
        signs: of the pieces 0, 1, ... of player 0, and of player 1.
        rows: the name of each row, from above; empty: they have none.
        columns: the name of each column.
    """
    lines = [" ".join(signs[v < 0][abs(v)] for v in row) for row in board.tolist()]
    if rows:
        lines = [f"{name}  {line}" for name, line in zip(rows, lines, strict=True)]
    return "\n".join([*lines, ("   " if rows else "") + " ".join(columns)])
