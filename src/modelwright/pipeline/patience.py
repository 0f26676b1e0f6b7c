"""Early stopping: the validations of a stage, the best of them, and when there is no gain left.

Training ends when ``allowed`` validations in a row were no better than the best before them, and
the model of the best one is what counts (Prechelt 1998, "Early Stopping - But When?", the criterion
UP in his terms). What was seen is read back from the log, so a run that was killed decides as one
that was not.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

from modelwright.checkpoint.layout import step_of, steps

BEST = "best"  # beside the checkpoints of a stage


class Patience:
    """The losses of the validations of a stage so far; ``allowed`` 0: nothing is judged."""

    def __init__(self, allowed: int, log: Path | None = None) -> None:
        self.allowed = allowed
        self.losses: dict[int, float] = {}
        if not allowed or log is None or not log.exists():
            return
        for line in map(json.loads, log.read_text(encoding="utf-8").splitlines()):
            if "validation" in line:
                self.losses[line["step"]] = line["validation"]["loss"]

    def better(self, step: int, loss: float) -> bool:
        """Take a validation in; whether it is better than all at earlier steps."""
        known = self.losses.items()
        before = [value for at, value in known if at < step and not math.isnan(value)]
        self.losses[step] = loss
        return loss < min(before, default=math.inf)

    def best(self) -> int | None:
        """The step of the least loss, the first of equals; None: nothing was validated."""
        found = [step for step in sorted(self.losses) if not math.isnan(self.losses[step])]
        return min(found, key=self.losses.__getitem__, default=None)

    def exhausted(self) -> bool:
        """Whether the last ``allowed`` validations were no better than the best before them."""
        best = self.best()
        if not self.allowed:
            return False
        return sum(step > (best or 0) for step in self.losses) >= self.allowed


def chosen(folder: Path) -> Path | None:
    """The complete checkpoint of a stage that is its model: the best validated, or the newest."""
    for place in (folder / BEST, folder):
        if there := steps(place, complete=True):
            return there[-1]
    return None


def forget_after(folder: Path, step: int) -> None:
    """Remove the best models of steps beyond ``step``, from which training goes on."""
    for path in steps(folder / BEST, complete=True):
        if (step_of(path) or 0) > step:
            shutil.rmtree(path)
