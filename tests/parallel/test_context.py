"""Context parallelism on real processes: one text is cut over two, and over two of four.

The losses are those of one process (law 8), with documents longer than what a process holds.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from tests.parallel.worlds import losses
from tests.trainings import Setting

LONG: dict[str, Any] = {
    "task": "docstrings",
    "batch": 3,
    "steps": 20,
    "learning_rate": 0.003,
    "model_fields": {"depth": 2, "context": 512},
}
# Windows of 8 tokens, one a micro-batch.
WINDOW: dict[str, Any] = {**LONG, "task": "documents", "batch": 2, "accumulate": 2}
CASES: list[tuple[int, dict[str, Any], dict[str, Any], float]] = [
    (2, LONG, {}, 1e-5),
    (2, WINDOW, {}, 1e-5),
    (2, {**LONG, "optimizer": "muon"}, {"shard": "fsdp"}, 1e-5),
    (2, {**LONG, "precision": "bfloat16"}, {}, 5e-3),
    (4, LONG, {}, 1e-5),
]


@cache
def together(processes: int) -> list[list[float]]:
    """Of all cases of so many processes, which start once."""
    cases = [case for case in CASES if case[0] == processes]
    orders = [{"setting": setting, "context": 2, **form} for _, setting, form, _ in cases]
    return losses(processes, *orders)


@pytest.mark.parametrize("number", range(len(CASES)))
def test_the_losses_are_those_of_one_process(number: int) -> None:
    processes, setting, _, agree = CASES[number]
    own = sum(case[0] == processes for case in CASES[:number])
    found = together(processes)[own]
    np.testing.assert_allclose(found, losses(1, {"setting": setting})[0], rtol=agree)
    assert found[-1] < found[0]


def test_documents_are_longer_than_what_a_process_holds() -> None:
    """The cases above would not look beyond their own rows otherwise."""
    for setting in (LONG, WINDOW):
        trainer = Setting(**setting).trainer()
        for columns in trainer.examples(0):
            batch = trainer.objective.collate(columns, torch.Generator())
            longest = int(batch.inputs["starts"].diff().max())
            assert longest > batch.inputs["tokens"].numel() / 4  # a chunk, of four
