"""Faults as code that a child process runs before the command (``Programs.run(before=...)``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TRAIN = ("train", "tiny.yaml", "train.steps=20", "--out")

_BACKWARD = """
from modelwright.training import train
real_backward = train.Trainer.backward
def backward(self, *a, **k):
    loss = real_backward(self, *a, **k)
    return {expression}
train.Trainer.backward = backward
"""


def loss_of_batch(number: int, factor: str) -> str:
    """The batch planned for step ``number`` (from 0) has its loss multiplied, wherever it comes."""
    planned = "self.ledger.data_step(self.at)"
    return _BACKWARD.format(
        expression=f"loss * float('{factor}') if {planned} == {number} else loss"
    )


def loss_of_step(number: int, factor: str) -> str:
    """Step ``number`` (from 0) has its loss multiplied, whatever its batch."""
    return _BACKWARD.format(expression=f"loss * float('{factor}') if self.at == {number} else loss")


def kill_after_going_back() -> str:
    """The process is killed right after a departure was written, before the training goes on."""
    return """
import os, signal
from modelwright.pipeline import watch
def went_back(self, step, to):
    os.kill(os.getpid(), signal.SIGKILL)
watch.StageObserver.went_back = went_back
"""


def out_of_memory(where: str, step: int) -> str:
    """Once, at a step (from 0), memory is short in ``where``."""
    targets = {
        "forward": ("modelwright.training.train", "Trainer", "backward"),
        "backward": ("torch", "Tensor", "backward"),
        "optimizer": ("modelwright.training.optimizers", "Optimizers", "step"),
        "evaluation": ("modelwright.objectives.next_token", "Objective", "loss"),
    }
    module, owner, name = targets[where]
    return f"""
import importlib
from modelwright.training import train
owner = importlib.import_module({module!r}).{owner}
at, done, real_step, real = [0], [], train.Trainer.step, owner.{name}
def step(self, number):
    at[0] = number
    return real_step(self, number)
def short(self, *a, **k):
    wanted = {where!r} != "evaluation" or not a[0].training
    if wanted and at[0] == {step} and not done:
        done.append(1)
        words = "you tried to allocate 7 bytes"
        raise RuntimeError(f"DefaultCPUAllocator: can't allocate memory: {{words}}")
    return real(self, *a, **k)
train.Trainer.step, owner.{name} = step, short
"""


def manifest(run: Path, stage: str = "train") -> dict[str, Any]:
    """The manifest's record of a stage."""
    record: dict[str, Any] = json.loads((run / "manifest.json").read_text())["stages"][stage]
    return record


def lines(run: Path, stage: str = "train") -> list[dict[str, Any]]:
    """The lines of a stage's metrics."""
    text = (run / "metrics" / f"{stage}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]
