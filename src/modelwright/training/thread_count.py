"""How many threads a small model wants: one thread where its products are not worth dividing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

from modelwright import runtime

LONG = 1000  # steps of a stage that are worth a measurement
QUICK = 0.02  # seconds of a step that may gain from fewer threads; and between two lines of a log
ROUNDS, STEPS = 7, 8  # of every number of threads
GAIN = 0.95  # of the time: more threads must take less


def candidates(cores: int) -> list[int]:
    """The numbers of threads that are tried: 1, 2, 4, ... and all cores."""
    return sorted({2**i for i in range(cores.bit_length()) if 2**i <= cores} | {cores})


def measured(step: Callable[[], object], tried: Sequence[int]) -> dict[int, float]:
    """Seconds of a step with each number of threads: medians of rounds in turns."""
    times: dict[int, list[float]] = {count: [] for count in tried}
    for turn in range(ROUNDS + 1):
        for count in tried:
            with runtime.threads(count):
                start = time.perf_counter()
                for _ in range(STEPS):
                    step()
                if turn:  # the first round warms up
                    times[count].append((time.perf_counter() - start) / STEPS)
    return {count: statistics.median(seconds) for count, seconds in times.items()}


def chosen(seconds: dict[int, float]) -> tuple[int, str]:
    """The number of threads, and why: the fewest whose successor gains less than a twentieth."""
    best, *more = sorted(seconds)
    for count in more:
        if seconds[count] < GAIN * seconds[best]:
            best = count
    said = ", ".join(f"{s * 1e3:.2f} ms with {n}" for n, s in sorted(seconds.items()))
    return best, f"measured here, a step: {said}"


def line_every(seconds: float) -> tuple[int, str]:
    """Steps between two lines of the log, and why."""
    every = max(1, round(QUICK / seconds))
    if every == 1:
        return 1, "every step"
    return every, f"a step takes {seconds * 1e3:.2f} ms; a line has the mean of {every}"
