"""DPO of all parameters on pairs of answers, the reference's part included."""

from __future__ import annotations

from benchmarks.run import Row
from benchmarks.tuning.compare import TRL
from benchmarks.tuning.compare import rows as compared


def rows(quick: bool) -> list[Row]:
    """Beside TRL's DPOTrainer."""
    return compared("dpo", {TRL: "dpo"}, quick)
