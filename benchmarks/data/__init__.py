"""Data: ours beside datatrove, HF datasets and tokenizers, trafilatura, resiliparse, cleanlab.

All contenders of a question are measured in turns in the same run, one core each, on the same
real texts. A peer whose requirements do not agree with the repository's constraints stands in an
environment of its own; its file in ``peers`` says which.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.run import Row

PARTS = ("dedup", "tokenization", "extraction", "labels", "pii")
ONLY = "MODELWRIGHT_BENCH_PARTS"  # the parts to measure, divided by commas; left out: all


def questions(quick: bool) -> list[Row]:
    """The rows of every part; one that cannot be measured here says why and does not hold."""
    from benchmarks.training.measure import left_out  # noqa: PLC0415 - only when measuring
    from modelwright.errors import MachineError, ModelwrightError, did_you_mean  # noqa: PLC0415

    asked = os.environ.get(ONLY)
    present = [p for p in PARTS if importlib.util.find_spec(f"{__name__}.{p}")]
    chosen = asked.split(",") if asked else present
    if unknown := next((p for p in chosen if p not in present), None):
        raise ModelwrightError(
            f"{ONLY}: no part {unknown!r}{did_you_mean(unknown, present)};"
            f" known: {', '.join(present)}"
        )
    rows: list[Row] = []
    for name in chosen:
        print(f"{name}:", file=sys.stderr, flush=True)
        try:
            rows += importlib.import_module(f"{__name__}.{name}").rows(quick)
        except MachineError as error:
            rows.append(left_out(name, str(error)))
    return rows
