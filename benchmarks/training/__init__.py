"""Training against nanoGPT, nanochat, HF Trainer, Keras and TRL: speed, memory, time to quality.

Every figure comes from a process of its own (``ours.py`` and ``peers/``), which prints one line
of JSON. All contenders of a question are measured in turns in the same run. They share what
decides the cost: shape, vocabulary, batch, precision. Which settings are a peer's best was
measured once and is fixed in its script.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.run import Row

PARTS = ("throughput", "time_to_loss", "mnist", "fine_tuning", "classification")


def questions(quick: bool) -> list[Row]:
    """The rows of every part; a part that cannot be measured here says why and does not hold.

    Nothing is imported before: the measured scripts stand in this package, and a peer's start-up
    must not pay for ours.
    """
    from benchmarks.run import rows_of  # noqa: PLC0415

    return rows_of(__name__, PARTS, quick)
