"""Fault T14: a run goes on with another number of processes: 1, 2, 4 and 1 again.

The same samples in the same order and the same global batch: the losses stay within 1e-5 of
those of a run on one process.
"""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from modelwright import checkpoint
from tests.parallel.jobs import job, recipe, train
from tests.programs import write_corpus

AGREE = 1e-5
STEPS = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = write_corpus(tmp_path_factory.mktemp("resharding"))
    train(made, 1, str(recipe(made, "alone", steps=STEPS, shard="fsdp")), "--out", "alone")
    return made


def losses(run: Path) -> list[float]:
    """The loss of every step, from the file of metrics."""
    lines = map(json.loads, (run / "metrics" / "train.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


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
    found = losses(out)
    assert len(found) == STEPS
    np.testing.assert_allclose(found, losses(folder / "alone"), rtol=AGREE)


def test_a_damaged_shard_is_passed_over_by_all(folder: Path) -> None:
    name = str(recipe(folder, "damaged", steps=STEPS, shard="fsdp"))
    out = folder / "damaged"
    train(folder, 2, name, "--out", out.name)
    newest = checkpoint.newest(out / "checkpoints" / "train")
    assert newest is not None
    file = newest / "optimizer-00002-of-00002.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 4
    file.write_bytes(content)
    before = losses(out)
    said = train(folder, 2, name, "--out", out.name)
    assert "passed over a damaged checkpoint" in said
    assert file.name in said
    assert losses(out) == before
    shutil.rmtree(out)
