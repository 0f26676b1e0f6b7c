"""Ours and the peer as processes, in turns."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from benchmarks.run import Row
from benchmarks.speech import shapes
from benchmarks.training.clock import BEGAN
from benchmarks.training.measure import LONGEST, QUIET, Result, at_least, in_turns, parsed, rate
from modelwright.errors import MachineError

ROOT = Path(__file__).resolve().parents[2]
BAR = 2.0  # times as many recordings a second
QUICK_STEPS = 3


def row(what: str, quick: bool) -> Row:
    """Recordings a second of ``what``, ours over PyTorch and librosa."""
    shapes.recordings()  # said before anything is measured
    steps = QUICK_STEPS if quick else shapes.STEPS
    contenders = {
        who: partial(_run, module, what, steps)
        for who, module in (("ours", "ours"), ("peer", "librosa_pipeline"))
    }
    found = in_turns(contenders, 1 if quick else 5)
    question = f"{what}: recordings of 3 s a second, against PyTorch and librosa"
    return at_least(question, rate(found["ours"]), rate(found["peer"]), BAR)


def _run(module: str, what: str, steps: int) -> Result:
    """What a script printed."""
    environment = {**os.environ, **QUIET, BEGAN: repr(time.time())}
    command = [sys.executable, "-m", f"benchmarks.speech.{module}", what, "--steps", str(steps)]
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
        raise MachineError(f"bench: {module} took more than {LONGEST:.0f} s") from error
    return parsed(f"{module} {what}", done)
