"""The comparison with TRL's DPOTrainer, in float32: the same pairs in one order give one loss.

    PYTHONPATH=. pytest tests/slow/test_dpo_of_trl.py

needs what ``benchmarks/tuning/requirements.txt`` lists. The processes are those of the benchmark.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.training.measure import script
from benchmarks.tuning.work import FIELDS
from modelwright.hub.families import family_of
from modelwright.hub.writing import write
from modelwright.models import llama

STEPS = 4


@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="TRL is not installed")
def test_held_out_loss_is_that_of_trl(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = llama.Config(**{**FIELDS, "depth": 2, "width": 64, "hidden": 128})
    write(tmp_path, config.build(), config, family_of("llama", "test"))
    given = (tmp_path, "--documents", 4 * STEPS, "--precision", "float32")
    found: list[dict[str, Any]] = [
        script(name, "dpo", *given, package="benchmarks.tuning")() for name in ("ours", "peers")
    ]
    one, other = (result["held_out_loss"] for result in found)
    assert one == pytest.approx(other, abs=1e-3)
    assert one < 0.69  # they have learned
