"""Does each default earn its place? Every choice of model and optimiser, taken away in turn.

A small decoder learns tinyshakespeare characters (nanoGPT's split) for a fixed number of tokens,
three seeds each: once with every default, once for every choice with that one changed. A row
compares mean validation losses; ``ratio`` is default over changed, the bar says that a default
may not be worse than its alternative by more than the spread of the seeds. Seconds a step stand
beside, since a choice that costs time must pay for it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.run import Row

SEEDS = (1, 2, 3)
STEPS = 200
# question -> fields that undo the default; "model" and "train" as in a recipe
CHANGES: dict[str, dict[str, dict[str, Any]]] = {
    "value embeddings": {"model": {"value_embeddings": False}},
    "shortcuts from the embedding": {"model": {"shortcuts": False}},
    "no bigram table (rather than 4096 rows)": {"model": {"bigrams": 4096}},
    "capped logits at 15": {"model": {"softcap": 0.0}},
    "squared ReLU (rather than gated SiLU)": {"model": {"feed_forward": "gated"}},
    "untied head": {"model": {"tied": True}},
    "Muon on matrices (rather than AdamW)": {
        "train": {"optimizer": "adamw", "learning_rate": 0.002, "weight_decay": 0.1}
    },
    "Muon at 0.03 (rather than 0.02)": {"train": {"matrix_learning_rate": 0.02}},
    "Muon at 0.03 (rather than 0.05)": {"train": {"matrix_learning_rate": 0.05}},
    "AdamW at 0.005 (rather than 0.002)": {"train": {"learning_rate": 0.002}},
    "AdamW at 0.005 (rather than 0.01)": {"train": {"learning_rate": 0.01}},
    "falling over 0.6 of the steps (rather than 0.3)": {"train": {"decay": 0.3}},
    "falling over 0.6 of the steps (rather than 0.9)": {"train": {"decay": 0.9}},
    "momentum 0.95 (rather than 0.9)": {"train": {"momentum": 0.9}},
}


def trained(change: dict[str, dict[str, Any]], seed: int, steps: int) -> dict[str, float]:
    """Validation loss and seconds a step of one training in a process of one thread."""
    command = [sys.executable, "-m", "benchmarks.ablations.trial"]
    order = json.dumps({**change, "seed": seed, "steps": steps})
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, order], check=True, capture_output=True, text=True, env=environment
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def questions(quick: bool) -> list[Row]:
    """One row for each choice."""
    steps, seeds = (40, SEEDS[:2]) if quick else (STEPS, SEEDS)
    orders = [("every default", {}), *CHANGES.items()]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        jobs = {
            name: [pool.submit(trained, change, seed, steps) for seed in seeds]
            for name, change in orders
        }
        results = {name: [job.result() for job in jobs[name]] for name, _ in orders}
    base = results.pop("every default")
    mean = statistics.fmean(r["loss"] for r in base)
    spread = statistics.stdev(r["loss"] for r in base)
    pace = statistics.median(r["seconds"] for r in base)
    rows = []
    for name, found in results.items():
        losses = [r["loss"] for r in found]
        other, noise = statistics.fmean(losses), statistics.stdev(losses)
        slower = statistics.median(r["seconds"] for r in found) / pace
        limit = 1 + 2 * max(spread, noise) / other
        rows.append(
            Row(
                question=name,
                ours=f"{mean:.4f} ± {spread:.4f}",
                peer=f"{other:.4f} ± {noise:.4f}, {slower:.2f} x the time",
                ratio=mean / other,
                bar=f"<= {limit:.4f}",
                holds=mean / other <= limit,
            )
        )
    return rows
