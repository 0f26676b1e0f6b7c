"""Training against nanoGPT, nanochat, HF Trainer, Keras and TRL: speed, memory, time to quality.

Every figure comes from a process of its own (``ours.py`` and ``peers/``), which prints one line
of JSON. All contenders of a question are measured in turns in the same run. They share what
decides the cost: shape, vocabulary, batch, precision. Which settings are a peer's best was
measured once and is fixed in its script.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.run import Row

PARTS = ("throughput", "time_to_loss", "mnist", "fine_tuning", "classification")


def questions(quick: bool) -> list[Row]:
    """The rows of every part; a part that cannot be measured here says why and does not hold.

    Nothing is imported before: the measured scripts stand in this package, and a peer's start-up
    must not pay for ours.
    """
    from benchmarks.run import ONLY  # noqa: PLC0415
    from benchmarks.training.measure import left_out  # noqa: PLC0415
    from modelwright.errors import MachineError, ModelwrightError  # noqa: PLC0415

    chosen = os.environ.get(ONLY, ",".join(PARTS)).split(",")
    if unknown := set(chosen) - set(PARTS):
        raise ModelwrightError(f"{ONLY}: no part {unknown.pop()!r}; known: {', '.join(PARTS)}")
    rows: list[Row] = []
    for name in chosen:
        print(f"{name}:", file=sys.stderr, flush=True)
        try:
            rows += importlib.import_module(f"{__name__}.{name}").rows(quick)
        except MachineError as error:
            rows.append(left_out(name, str(error)))
    return rows
