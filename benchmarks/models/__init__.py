"""The same model and batch here and in transformers: speed, losses, and stated memory.

Every figure of speed and memory comes from a process of its own, which prints one line of JSON;
contenders are measured in turns. Both start from the same weights where losses are compared.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.run import Row

PARTS = ("speed", "losses", "memory")


def questions(quick: bool) -> list[Row]:
    """The rows of every part; a part that cannot be measured here says why and does not hold."""
    from benchmarks.run import ONLY  # noqa: PLC0415 - a peer's start-up must not pay for ours
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
