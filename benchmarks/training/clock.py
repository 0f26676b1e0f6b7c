"""What every measured script shares: its clock, its peak memory, its one line of JSON."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

BEGAN = "MODELWRIGHT_BENCH_BEGAN"  # seconds since the epoch at which the process was started


class Clock:
    """Wall time from the start of the process, and the stamps of its steps.

    ``paused`` takes the judge's own work, such as evaluating a loss to know whether it was
    reached, out of the time; it is the same for ours and every peer.
    """

    def __init__(self) -> None:
        self.began = float(os.environ.get(BEGAN, time.time()))
        self.stamps: list[float] = []
        self.losses: list[float] = []
        self._lost = 0.0

    def now(self) -> float:
        """Seconds since the process was started, less what was spent paused."""
        return time.time() - self.began - self._lost

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time of this block."""
        before = time.time()
        try:
            yield
        finally:
            self._lost += time.time() - before

    def stamp(self, loss: float | None = None) -> None:
        """Mark the beginning of the first step, then the end of every step."""
        self.stamps.append(self.now())
        if loss is not None:
            self.losses.append(float(loss))

    def report(self, warmup: int, tokens_per_step: float, **more: Any) -> None:
        """Print the line for steps of equal size, of which the first ``warmup`` do not count."""
        counted = self.stamps[warmup:]
        if warmup < 1 or len(counted) < 2:
            sys.exit(f"{len(self.stamps) - 1} steps, {warmup} of them warm-up: nothing to measure")
        steps = [b - a for a, b in pairwise(counted)]
        emit(
            tokens=tokens_per_step * len(steps),
            seconds=counted[-1] - counted[0],
            step_seconds=statistics.median(steps),
            start_up_seconds=self.stamps[0],
            compile_seconds=self.stamps[1] - self.stamps[0] - statistics.median(steps),
            losses=self.losses[:1] + self.losses[-1:],
            **more,
        )


def peak_bytes() -> int:
    """The largest resident set of this process, from its own page tables.

    ``ru_maxrss`` will not do: it starts from the size of the process that forked.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM; peak memory is measured on Linux only")


def emit(**fields: Any) -> None:
    """Print one line of JSON, peak memory and threads included."""
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else None
    print(json.dumps({**fields, "peak_bytes": peak_bytes(), "threads": threads}), flush=True)
