"""Forward and backward of the same model and batch, ours over theirs, best settings of both.

Products in bfloat16. Both are measured compiled and not, transformers with PyTorch's attention, and
the faster of the two is what counts on either side. Who is slower than the other way of the same
side by more than ``CLEARLY`` in the first round is measured no further.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from benchmarks.models.shapes import shapes
from benchmarks.run import Row
from benchmarks.training.clock import BEGAN
from benchmarks.training.measure import (
    LONGEST,
    QUIET,
    Result,
    Script,
    at_least,
    in_turns,
    parsed,
    rate,
)
from modelwright.errors import MachineError

ROOT = Path(__file__).resolve().parents[2]
BAR = 1.0  # times as fast
CLEARLY = 0.1
REPEATS = "MODELWRIGHT_BENCH_REPEATS"  # how often each is measured; a round takes half an hour


def rows(quick: bool) -> list[Row]:
    """Items a second of each shape."""
    found = []
    repeats = 1 if quick else int(os.environ.get(REPEATS, "5"))
    times = "one run" if repeats == 1 else f"median of {repeats}"
    for name, shape in shapes(quick).items():
        results = _measured(_contenders(name, quick), repeats)
        peers = {who: rate(results[who]) for who in results if who.startswith("transformers")}
        best = max(peers, key=lambda who: peers[who])
        mine = {who: rate(results[who]) for who in results if who not in peers}
        unit = "tokens/s" if shape.length else "images/s"
        question = f"{name}: {unit}, forward and backward, against the faster way of transformers"
        question += f"; {best}, {times}"
        found.append(at_least(question, max(mine.values()), peers[best], BAR))
    return found


def _measured(contenders: dict[str, Script], repeats: int) -> dict[str, list[Result]]:
    """The results of those that may be the faster way of their side."""
    first = in_turns(contenders, 1)
    best: dict[str, float] = {}
    for who, found in first.items():
        side = who.partition(",")[0]
        best[side] = max(best.get(side, 0.0), rate(found))
    near = {
        who: first[who]
        for who in contenders
        if rate(first[who]) >= (1 - CLEARLY) * best[who.partition(",")[0]]
    }
    if repeats > 1:
        more = in_turns({who: contenders[who] for who in near}, repeats - 1)
        near = {who: found + more[who] for who, found in near.items()}
    return near


def _contenders(name: str, quick: bool) -> dict[str, Script]:
    few = ("--quick",) if quick else ()
    everyone = {"ours": ("ours", name), "transformers": ("theirs", name)}
    scripts = {who: partial(_run, (*words, *few)) for who, words in everyone.items()}
    if not quick:  # tiny models say nothing of a compiler
        for who, words in everyone.items():
            scripts[f"{who}, compiled"] = partial(_run, (*words, "--compiled"))
    return dict(scripts)


def _run(arguments: tuple[str, ...]) -> Result:
    """What ``contender.py`` printed."""
    environment = {**os.environ, **QUIET, BEGAN: repr(time.time())}
    command = [sys.executable, "-m", "benchmarks.models.contender", *arguments]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST,
        )
    except subprocess.TimeoutExpired as error:
        raise MachineError(f"bench: {arguments} took more than {LONGEST:.0f} s") from error
    return parsed(" ".join(arguments), done)
