"""From files to the first token: seconds, and memory beside that of the weights themselves."""

from __future__ import annotations

import statistics

from benchmarks.run import Row
from benchmarks.serving.single import measured
from benchmarks.serving.weights import prepare

SECONDS, MEMORY = 1.0, 1.2


def rows(quick: bool) -> list[Row]:
    """Of packed int4 weights, hashes verified."""
    shape = "125M" if quick else "1.1B"
    prepare(shape)
    taken = [measured("ours", shape, "int4", "load") for _ in range(1 if quick else 5)]
    seconds, peak, weights = (
        statistics.median(float(one[name]) for one in taken)
        for name in ("seconds", "peak", "weights")
    )
    return [
        Row(
            f"{shape} int4: seconds from files in the system's cache to the first token",
            round(seconds, 3),
            SECONDS,
            seconds / SECONDS,
            f"<= {SECONDS}",
            seconds <= SECONDS,
        ),
        Row(
            f"{shape} int4: peak memory, MB, against that of the packed weights",
            round(peak / 1e6, 1),
            round(weights / 1e6, 1),
            peak / weights,
            f"<= {MEMORY}",
            peak <= MEMORY * weights,
        ),
    ]
