"""Forms that law 8 leaves out: Muon on parts, both divisions at once, hybrid, bfloat16."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.parallel.worlds import losses

SETTING = {
    "task": "documents",
    "batch": 6,
    "accumulate": 2,
    "steps": 12,
    "learning_rate": 0.003,
    "model_fields": {"depth": 2, "context": 16},
}


@pytest.mark.parametrize(
    ("processes", "change", "form", "agree"),
    [
        (2, {"optimizer": "muon"}, {"shard": "fsdp"}, 1e-5),
        (4, {"optimizer": "muon"}, {"shard": "fsdp", "tensor": 2}, 1e-5),
        (2, {"model_fields": {"tied": True, "feed_forward": "gated"}}, {"shard": "fsdp"}, 1e-5),
        (2, {"precision": "bfloat16"}, {"shard": "fsdp"}, 5e-3),
    ],
)
def test_the_losses_are_those_of_one_process(
    processes: int, change: dict[str, Any], form: dict[str, Any], agree: float
) -> None:
    setting = {**SETTING, **change}
    found = losses(processes, {"setting": setting, **form})
    np.testing.assert_allclose(found, losses(1, {"setting": setting}), rtol=agree)


def test_copies_of_shards_on_two_machines() -> None:
    """Hybrid: four processes that believe to be two on each of two machines."""
    setting = {**SETTING, "optimizer": "lion"}
    found = losses(4, {"setting": setting, "shard": "hybrid", "machines": 2})
    np.testing.assert_allclose(found, losses(1, {"setting": setting}), rtol=1e-5)
