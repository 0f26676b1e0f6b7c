"""Samples a second of classifying film reviews, a small BERT with dropout 0.1, batch 16."""

from __future__ import annotations

import importlib.util

from benchmarks.run import Row
from benchmarks.training.measure import at_least, at_most, in_turns, rate, script
from modelwright.errors import MachineError

BAR = 2.5
LOSS_BAR = 1.05  # of the peer's mean training loss over the same reviews


def rows(quick: bool) -> list[Row]:
    """Ours against HF Trainer with dynamic padding: one pass over the same reviews."""
    if importlib.util.find_spec("modelwright.models.encoder") is None:
        raise MachineError("there is no model family encoder yet")
    reviews = ("--documents", 160 if quick else 320)
    contenders = {
        "ours": script("ours_encoder", *reviews),
        "HF": script("peers.hf_trainer", "classify", *reviews),
    }
    results = in_turns(contenders, 1 if quick else 5)
    question = "classification: {} against HF Trainer, dynamic padding"
    losses = (sum(r["losses"][-1] for r in results[who]) / len(results[who]) for who in results)
    return [
        at_least(question.format("reviews/s"), rate(results["ours"]), rate(results["HF"]), BAR),
        at_most(question.format("mean training loss"), *losses, bar=LOSS_BAR),
    ]
