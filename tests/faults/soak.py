"""A long training of a tiny network that saves and validates often, and what it holds of memory."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import torch

from modelwright import checkpoint
from modelwright.training.train import Observer, Record
from tests.trainings import Setting


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def soak(folder: Path, steps: int, every: int) -> tuple[list[int], list[int], list[int]]:
    """Train ``steps`` steps, saving and validating each ``every``.

    Returns:
        Memory in bytes, open files, and threads: at a tenth of the way and at the end.
    """
    setting = replace(Setting("vector_classification"), steps=steps)
    trainer = setting.trainer()
    _, columns = setting.data()
    seen: tuple[list[int], list[int], list[int]] = ([], [], [])

    class Busy(Observer):
        def after_step(self, record: Record, *, last: bool) -> None:
            if record.step % every == 0:
                with torch.no_grad():
                    generator = torch.Generator().manual_seed(0)
                    batch = trainer.objective.collate(columns, generator)
                    float(trainer.objective.loss(trainer.model, batch))
                groups = {"model": trainer.model.state_dict(), **trainer.optimizers.saved()}
                checkpoint.save(folder, record.step, groups, {})
            if record.step == steps // 10 or last:
                seen[0].append(resident())
                seen[1].append(len(os.listdir("/proc/self/fd")))  # noqa: PTH208
                seen[2].append(threading.active_count())

    trainer.run(0, Busy())
    return seen
