"""The rows of one kind of tuning: speed, memory and loss beside each peer, measured in turns."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from benchmarks.run import Row
from benchmarks.training.measure import at_least, at_most, in_turns, median, rate, script

REPEATS = "MODELWRIGHT_BENCH_REPEATS"  # how often each is measured
BASE = "MODELWRIGHT_BENCH_FOLDER"  # where the tuned checkpoint is kept; unset: made for every part
TRL, GROUPED = "TRL", "HF Trainer, grouped by length"
SPEED = {TRL: 2.5, GROUPED: 1.5}
MEMORY = {TRL: 0.7}
LOSS = 1.02  # of the peer's held-out loss after the same rows
BASE_STEPS, QUICK_STEPS = 600, 120
ROWS, QUICK_ROWS = 400, 48


def rows(what: str, peers: dict[str, str], quick: bool) -> list[Row]:
    """``peers`` are names, and what ``peers.py`` is told."""
    repeats = 1 if quick else int(os.environ.get(REPEATS, "5"))
    with tempfile.TemporaryDirectory() as folder:
        base = _base(Path(os.environ.get(BASE, folder)), quick)
        given = (base, "--documents", QUICK_ROWS if quick else ROWS)
        contenders = {"ours": script("ours", what, *given, package="benchmarks.tuning")}
        for name, told in peers.items():
            contenders[name] = script("peers", told, *given, package="benchmarks.tuning")
        results = in_turns(contenders, repeats)
    times = "one run" if repeats == 1 else f"median of {repeats}"
    found = []
    for name in peers:
        one, other = results["ours"], results[name]
        said = f"{what}, against {name}, {times}"
        speeds, peaks, losses = (
            (of(one), of(other)) for of in (rate, _peak, lambda r: median(r, "held_out_loss"))
        )
        found.append(at_least(f"useful tokens/s, {said}", *speeds, SPEED[name]))
        if name in MEMORY:
            found.append(at_most(f"peak GiB, {said}", *peaks, MEMORY[name]))
        found.append(at_most(f"held-out loss after the same rows, {said}", *losses, LOSS))
    return found


def _peak(results: list[dict[str, float]]) -> float:
    return median(results, "training_peak_bytes") / 2**30


def _base(folder: Path, quick: bool) -> Path:
    """The checkpoint that is tuned, made where it is not there."""
    steps = QUICK_STEPS if quick else BASE_STEPS
    made = folder / f"tuning-base-{steps}"
    if not (made / "config.json").is_file():
        print(f"  making the model to tune: {steps} steps", file=sys.stderr, flush=True)
        script("base", made, "--steps", steps, package="benchmarks.tuning")()
    return made
