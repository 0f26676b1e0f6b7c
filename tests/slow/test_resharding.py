"""Fault T14 at length: 1, 2, 4 and 1 process again, with copies of the model and with shards."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from tests.parallel.jobs import job, recipe, step_losses, train
from tests.programs import write_corpus

AGREE = 1e-5
STEPS = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = write_corpus(tmp_path_factory.mktemp("resharding"))
    train(made, 1, str(recipe(made, "alone", steps=STEPS, shard="fsdp")), "--out", "alone")
    return made


@pytest.mark.parametrize("shard", ["none", "fsdp"])
def test_one_two_four_and_one_again(folder: Path, shard: str) -> None:
    """Each is asked to stop on its way, saves, and is gone on from by more or fewer processes."""
    name = str(recipe(folder, f"changing-{shard}", steps=STEPS, shard=shard))
    out = folder / f"changing-{shard}"
    for processes, step in ((1, 4), (2, 9), (4, 14)):
        with job(folder, processes, name, "--out", out.name) as started:
            started.until_step(out, step)
            started.process.send_signal(signal.SIGTERM)
            started.process.wait(timeout=120)
            assert started.process.returncode != 0
            assert "stopped after step" in started.said, started.said
    said = train(folder, 1, name, "--out", out.name)
    assert "continuing after step" in said
    found = step_losses(out)
    assert len(found) == STEPS
    np.testing.assert_allclose(found, step_losses(folder / "alone"), rtol=AGREE)
