"""Fine-tuning beside TRL, PEFT and the HF Trainer: tokens a second, peak memory, loss.

One published checkpoint, made for the run by ``base.py``, is tuned by all of them on the same
numbers of tokens, in bfloat16, with the same optimiser and rate. Every figure comes from a process
of its own, and contenders are measured in turns. Which settings are a peer's best was measured
once and is fixed in its script.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.run import Row

PARTS = ("full", "lora", "dpo")


def questions(quick: bool) -> list[Row]:
    """The rows of every part; nothing is imported before, as in ``benchmarks.training``."""
    from benchmarks.run import rows_of  # noqa: PLC0415

    return rows_of(__name__, PARTS, quick)
