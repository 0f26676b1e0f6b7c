"""Useful tokens a second, peak memory and loss of fine-tuning on documents of many lengths."""

from __future__ import annotations

from benchmarks.run import Row
from benchmarks.training.measure import at_least, at_most, in_turns, median, rate, script

BARS = {
    "HF Trainer, dynamic padding": 2.8,
    "TRL, packing": 3.0,
    "HF Trainer, grouped by length": 1.5,
}
MEMORY_BAR = 0.5
LOSS_BAR = 1.02  # of the peer's held-out loss after the same documents


def rows(quick: bool) -> list[Row]:
    """Ours against padding, grouping and packing: one pass over the same documents."""
    documents = ("--documents", 48 if quick else 400)
    contenders = {
        "ours": script("ours", "tune", *documents),
        "HF Trainer, dynamic padding": script("peers.hf_trainer", "tune", *documents),
        "TRL, packing": script("peers.trl_sft", *documents),
        "HF Trainer, grouped by length": script(
            "peers.hf_trainer", "tune", "--grouped", *documents
        ),
    }
    results = in_turns(contenders, 1 if quick else 5)
    ours = results["ours"]
    found = [
        at_least(f"tuning: useful tokens/s against {peer}", rate(ours), rate(results[peer]), bar)
        for peer, bar in BARS.items()
    ]
    for peer in BARS:
        if peer.startswith("HF"):
            pair = (median(who, "training_peak_bytes") / 2**30 for who in (ours, results[peer]))
            found.append(at_most(f"tuning: peak GiB against {peer}", *pair, bar=MEMORY_BAR))
    peer = "HF Trainer, dynamic padding"
    pair = (median(who, "held_out_loss") for who in (ours, results[peer]))
    found.append(at_most(f"tuning: held-out loss against {peer}", *pair, bar=LOSS_BAR))
    return found
