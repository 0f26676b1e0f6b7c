"""The same model and batch here and in transformers: speed, losses, and stated memory.

Every figure of speed and memory comes from a process of its own, which prints one line of JSON;
contenders are measured in turns. Both start from the same weights where losses are compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.run import Row

PARTS = ("speed", "losses", "memory", "medium")


def questions(quick: bool) -> list[Row]:
    """The rows of every part; nothing is imported before, as in ``benchmarks.training``."""
    from benchmarks.run import rows_of  # noqa: PLC0415

    return rows_of(__name__, PARTS, quick)
