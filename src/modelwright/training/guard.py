"""What may not become part of a model: NaN, infinities, and losses far above the recent ones.

A step is judged by its loss and its gradient's norm before the optimiser moves anything, so a
step that is refused leaves parameters and optimiser as they were, bit for bit.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from modelwright.errors import ModelwrightError
from modelwright.types import Array

WINDOW = 128  # losses that a new one is compared with
ENOUGH = 32  # losses before the first judgement
RATIO = 2.0  # times the median: below, no loss is a spike
DEVIATIONS = 6.0  # robust standard deviations of the logarithm above the median
BEYOND = 5.0  # times the largest of the window: a spike however noisy the losses are
NEAR = 16  # losses whose median is the level of now
NEAR_RATIO, NEAR_DEVIATIONS, NEAR_BEYOND = 4.0, 8.0, 6.0  # the same three, of what is above it
SKIPS = 5  # batches in a row that on_nan: skip passes over
RETURNS = 3  # times that a training goes back to one checkpoint
SHOWN = 8  # rows named in a message


class Fault(ModelwrightError):
    """A step that was not taken: nothing was updated.

    ``step`` counts from 0; ``facts`` are for the log; ``back`` asks the loop to go back to a
    checkpoint, passing over the batches up to this step where ``passing``.
    """

    def __init__(
        self,
        message: str,
        step: int,
        facts: Mapping[str, Any],
        *,
        back: bool = False,
        passing: bool = True,
    ) -> None:
        super().__init__(message)
        self.step, self.facts, self.back, self.passing = step, dict(facts), back, passing


@dataclass
class Spikes:
    """Finds losses far above the recent ones, by median and MAD of their logarithms.

    A loss is a spike when it is above all of the window and above twice its median, and either
    more than 6 robust standard deviations (1.4826 MAD, on the logarithm) above the median or
    more than 5 times the largest of the window. Where a small batch makes losses scatter over
    decades by nature, a spike must stand out of that scatter; where they are smooth, ten times
    the median always does. Losses that are not all positive are compared as they are.

    Where the losses of the window still fall, their scatter is mostly that fall. So a loss is also
    a spike by what is near: r = log(loss) - median of the 16 logarithms before it, compared with
    the r of the window, when it is above all of them and log 4, and either more than 8 robust
    standard deviations above their median or log 6 above the largest.
    """

    losses: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def found(self, loss: float) -> bool:
        """Whether a finite ``loss`` is a spike; does not take it into the window."""
        if len(self.losses) < ENOUGH:
            return False
        return self._above_all(loss) or self._above_near(loss)

    def _above_all(self, loss: float) -> bool:
        if loss <= (highest := max(self.losses)):
            return False
        positive = min(self.losses) > 0
        if positive and loss > BEYOND * highest:
            return True
        if positive and loss < RATIO * statistics.median(self.losses):
            return False
        scale = math.log if positive else float
        values, value = [scale(x) for x in self.losses], scale(loss)
        middle = statistics.median(values)
        spread = 1.4826 * statistics.median(abs(v - middle) for v in values)
        return value - middle > DEVIATIONS * max(spread, 1e-3)

    def _above_near(self, loss: float) -> bool:
        recent = list(self.losses)
        near = recent[-NEAR:]
        if loss < NEAR_RATIO * min(near) or loss < NEAR_RATIO * (level := statistics.median(near)):
            return False  # the rule, so nothing more is computed
        if min(recent) <= 0:
            return False
        logs = [math.log(x) for x in recent]
        steps = [y - statistics.median(logs[i - NEAR : i]) for i, y in enumerate(logs) if i >= NEAR]
        above, highest, middle = math.log(loss / level), max(steps), statistics.median(steps)
        if above <= highest:
            return False
        spread = 1.4826 * statistics.median(abs(step - middle) for step in steps)
        far = above - middle > NEAR_DEVIATIONS * max(spread, 1e-3)
        return far or above > highest + math.log(NEAR_BEYOND)

    def add(self, loss: float) -> None:
        """Take a loss into the window."""
        self.losses.append(loss)


@dataclass
class Guard:
    """The policies of a stage, and what they need to remember.

    ``on_nan``: "stop", "skip" (at most 5 in a row) or "rollback"; ``on_spike``: "warn",
    "rollback" or "off".
    """

    on_nan: str = "stop"
    on_spike: str = "warn"
    spikes: Spikes = field(default_factory=Spikes)

    def state(self) -> list[float]:
        """The recent losses, for a checkpoint: with them the judgements go on exactly."""
        return list(self.spikes.losses)

    def load(self, losses: Sequence[float]) -> None:
        """Take back what ``state`` gave."""
        self.spikes.losses.clear()
        self.spikes.losses.extend(losses)


def not_finite(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first tensor that holds a NaN or an infinity."""
    for name, tensor in named:
        if tensor.is_floating_point() and not bool(tensor.detach().isfinite().all()):
            return name
    return None


def shown(rows: Sequence[Array]) -> str:
    """Row numbers for a message: the first few, and how many more."""
    numbers = [int(r) for part in rows for r in part]
    more = f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
    return ", ".join(map(str, numbers[:SHOWN])) + more
