"""All parameters tuned on documents of many lengths."""

from __future__ import annotations

from benchmarks.run import Row
from benchmarks.tuning.compare import GROUPED, TRL
from benchmarks.tuning.compare import rows as compared


def rows(quick: bool) -> list[Row]:
    """Beside TRL's packing, and beside the HF Trainer with grouped lengths."""
    return compared("full", {TRL: "full", GROUPED: "grouped-full"}, quick)
