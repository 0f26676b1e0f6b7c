"""Training on pictures against a PyTorch loop with DataLoader, Keras fit and a speed run.

As in ``benchmarks.training``: every figure comes from a process of its own, all contenders of a
question are measured in turns in the same run, and share data, batch and epochs. The pictures are
the 50,000 of CIFAR-10's train part, of which 5,000 are held out to measure accuracy by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.run import Row

PARTS = ("throughput", "time_to_ninety")


def questions(quick: bool) -> list[Row]:
    """The rows of every part; nothing is imported before, as in ``benchmarks.training``."""
    from benchmarks.run import rows_of  # noqa: PLC0415

    return rows_of(__name__, PARTS, quick)
