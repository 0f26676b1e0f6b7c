"""Games that a network plays against itself: ours, and AlphaZero's loop of OpenSpiel with PyTorch.

Both play Connect Four with the same weights, the same simulations a move, on the same number of
threads, a process each, measured in turns. What counts is a position that can be learned from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.run import Row

PARTS = ("self_play",)


def questions(quick: bool) -> list[Row]:
    """The rows of every part; nothing is imported before, as in ``benchmarks.training``."""
    from benchmarks.run import rows_of  # noqa: PLC0415

    return rows_of(__name__, PARTS, quick)
