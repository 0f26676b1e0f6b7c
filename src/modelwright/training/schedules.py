"""Learning-rate schedules: a multiplier of the base rate, a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[int, int, float, float], float]

ONE_CYCLE_START = 0.1  # of the highest rate: where a cycle begins and ends


def constant(step: int, steps: int, warmup: float, decay: float) -> float:  # noqa: ARG001
    """Linear warm-up over the first ``warmup`` share of the steps, then 1."""
    return min(1.0, (step + 1) / max(1.0, warmup * steps))


def warmup_stable_decay(step: int, steps: int, warmup: float, decay: float) -> float:
    """Linear warm-up, 1, then linear to zero over the last ``decay`` share (arXiv:2404.06395)."""
    left = (steps - step) / max(1.0, decay * steps)
    return min(constant(step, steps, warmup, decay), left)


def linear(step: int, steps: int, warmup: float, decay: float) -> float:  # noqa: ARG001
    """Linear warm-up, then linear to zero at the last step."""
    return min(constant(step, steps, warmup, 0.0), (steps - step) / max(1.0, (1 - warmup) * steps))


def cosine(step: int, steps: int, warmup: float, decay: float) -> float:  # noqa: ARG001
    """Linear warm-up, then half a cosine to zero (arXiv:1608.03983)."""
    done = max(0.0, (step - warmup * steps) / max(1.0, (1 - warmup) * steps))
    return min(constant(step, steps, warmup, 0.0), 0.5 * (1 + math.cos(math.pi * done)))


def one_cycle(step: int, steps: int, warmup: float, decay: float) -> float:
    """From 0.1 linear to 1 and back, then linear to zero (arXiv:1708.07120).

    ``warmup`` is the share of the steps on the way up, ``decay`` the share after the cycle, in
    which the rate falls below where it began; what lies between is the way down. The source
    has the two ways equally long: warmup = (1 - decay) / 2.
    """
    s, top, end = ONE_CYCLE_START, warmup * steps, (1 - decay) * steps
    if step >= end:
        return s * (steps - step) / max(1.0, decay * steps)
    up = s + (1 - s) * min(1.0, (step + 1) / max(1.0, top))
    down = 1 - (1 - s) * max(0.0, step - top) / max(1.0, end - top)
    return min(up, max(s, down))


SCHEDULES: dict[str, Schedule] = {
    "constant": constant,
    "warmup_stable_decay": warmup_stable_decay,
    "linear": linear,
    "cosine": cosine,
    "one_cycle": one_cycle,
}


def replanned(
    step: int, steps: int, new_steps: int, warmup: float, decay: float
) -> tuple[float, float]:
    """Warm-up and decay of ``warmup_stable_decay`` when a training of ``steps`` gets new ones.

    After ``step`` steps. The warm-up keeps its steps; where the rate falls already it goes on
    from where it is to zero at the new end, so that no step jumps.
    """
    if step >= (1 - decay) * steps:
        rate = (steps - step) / (decay * steps)
        decay = (new_steps - step) / (rate * new_steps)
    return warmup * steps / new_steps, decay
