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


CASES: list[tuple[int, dict[str, Any], dict[str, Any], float]] = [
    (2, {"optimizer": "muon"}, {"shard": "fsdp"}, 1e-5),
    (2, {"model_fields": {"tied": True, "feed_forward": "gated"}}, {"shard": "fsdp"}, 1e-5),
    (2, {"precision": "bfloat16"}, {"shard": "fsdp"}, 5e-3),
    (4, {"optimizer": "muon"}, {"shard": "fsdp", "tensor": 2}, 1e-5),
    # Hybrid: four processes that believe to be two on each of two machines.
    (4, {"optimizer": "lion"}, {"shard": "hybrid", "machines": 2}, 1e-5),
]


@pytest.mark.parametrize("processes", [2, 4])
def test_the_losses_are_those_of_one_process(processes: int) -> None:
    cases = [case for case in CASES if case[0] == processes]
    orders = [{"setting": {**SETTING, **change}, **form} for _, change, form, _ in cases]
    together, alone = losses(processes, *orders), losses(1, *orders)
    for case, found, expected in zip(cases, together, alone, strict=True):
        np.testing.assert_allclose(found, expected, rtol=case[-1], err_msg=str(case))
