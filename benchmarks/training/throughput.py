"""Tokens a second, model FLOPs and peak memory of pretraining, at two shapes."""

from __future__ import annotations

from benchmarks.run import Row
from benchmarks.training.measure import (
    Result,
    Script,
    at_least,
    at_most,
    in_turns,
    median,
    product_peak,
    rate,
    script,
)
from benchmarks.training.shapes import SHAPES

FLOPS_BAR = 0.75  # of the matrix-product ceiling, at L
MEMORY_BAR = 0.6  # of HF Trainer's, at L
STEPS = {"S": 15, "L": 8}  # of each of five rounds, after five to warm up
# nanochat's optimiser is a part of it and is Muon: it is compared with ours with Muon.
PEERS = {
    "nanoGPT (bf16, compiled)": ("ours", {"S": 1.25, "L": 1.15}),
    "nanochat (bf16, compiled, Muon)": ("ours with Muon", {"S": 1.4, "L": 1.4}),
    "HF Trainer (bf16)": ("ours", {"S": 1.4, "L": 1.4}),
    "Keras fit (mixed bf16)": ("ours", {"S": 1.4}),
}


def contenders(shape: str, steps: int) -> dict[str, Script]:
    """Everything that is measured at a shape; AdamW unless it says Muon."""
    common = ("--shape", shape, "--steps", steps)
    found = {
        "ours": script("ours", "speed", *common),
        "ours with Muon": script("ours", "speed", "--optimizer", "muon", *common),
        "nanoGPT (bf16, compiled)": script("peers.nanogpt", "speed", "--compile", *common),
        "nanochat (bf16, compiled, Muon)": script("peers.nanochat", *common),
        "HF Trainer (bf16)": script("peers.hf_trainer", "speed", *common),
    }
    if shape == "S":
        found["Keras fit (mixed bf16)"] = script("peers.keras_fit", "speed", *common)
    return found


def rows(quick: bool) -> list[Row]:
    """Ours against every peer at S and at L, the ceiling measured before and after."""
    found: list[Row] = []
    for shape in ("S", "L"):
        before = product_peak(quick)
        results = in_turns(contenders(shape, 5 if quick else STEPS[shape]), 1 if quick else 5)
        ceiling = (before + product_peak(quick)) / 2
        found += shape_rows(shape, results, ceiling)
    return found


def shape_rows(shape: str, results: dict[str, list[Result]], ceiling: float) -> list[Row]:
    """The rows of one shape."""
    found = [
        at_least(f"{shape}: tokens/s against {peer}", rate(results[who]), rate(results[peer]), bar)
        for peer, (who, bars) in PEERS.items()
        if (bar := bars.get(shape))
    ]
    achieved = rate(results["ours"]) * SHAPES[shape].flops_per_token / 1e9
    if shape == "L":
        question = "L: model GFLOP/s against the bf16 product ceiling"
        found.append(at_least(question, achieved, ceiling / 1e9, FLOPS_BAR))
        ours, peer = (
            median(results[k], "peak_bytes") / 2**30 for k in ("ours", "HF Trainer (bf16)")
        )
        found.append(at_most("L: peak GiB against HF Trainer", ours, peer, MEMORY_BAR))
    return found
