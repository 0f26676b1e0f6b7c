"""Adapters of rank 16 on every linear layer of the blocks, tuned on the same documents."""

from __future__ import annotations

from benchmarks.run import Row
from benchmarks.tuning.compare import GROUPED, TRL
from benchmarks.tuning.compare import rows as compared


def rows(quick: bool) -> list[Row]:
    """Beside PEFT in TRL's packing, and in the HF Trainer with grouped lengths."""
    return compared("lora", {TRL: "lora", GROUPED: "grouped-lora"}, quick)
