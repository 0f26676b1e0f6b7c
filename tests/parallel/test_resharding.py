"""Fault T14: a run goes on with another number of processes, also past a damaged shard.

The same samples in the same order and the same global batch: the losses stay within 1e-5 of
those of a run on one process. Four processes, and copies of the model, are in
tests/slow/test_resharding.py.
"""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np

from modelwright import checkpoint
from modelwright.errors import EXIT_REQUEUE
from tests.parallel.jobs import damage, job, recipe, step_losses, steps_done
from tests.programs import serving, the_line

AGREE = 1e-5
STEPS = 24
SHARD = "optimizer-00002-of-00002.safetensors"


def until(folder: Path, name: str, out: Path, step: int) -> str:
    """Train so far on two, ask them to stop, and see that they have saved; what was said."""
    with job(folder, 2, name, "--out", out.name) as started:
        started.until_step(out, step)
        started.process.send_signal(signal.SIGTERM)
        started.process.wait(timeout=120)
        assert started.process.returncode != 0
        assert "stopped after step" in started.said, started.said
        return started.said


def test_one_two_two_and_one_again(tmp_path: Path) -> None:
    """Each is gone on from by more or fewer; all of two pass over what one of them saved badly."""
    alone = serving(tmp_path)
    folder = alone.cwd
    other = str(recipe(folder, "alone", steps=STEPS, shard="fsdp"))
    alone.run("train", other, "--out", "alone")
    name, out = str(recipe(folder, "changing", steps=STEPS, shard="fsdp")), folder / "changing"
    begun = alone.start("train", name, "--out", out.name)
    begun.until(lambda: steps_done(out) >= 4)
    begun.signal(signal.SIGTERM)
    assert begun.wait() == EXIT_REQUEUE
    assert "stopped after step" in the_line(begun.said)
    until(folder, name, out, step=9)
    newest = checkpoint.newest(out / "checkpoints" / "train")
    assert newest is not None
    damage(newest, SHARD)
    said = until(folder, name, out, step=14)
    assert "passed over a damaged checkpoint" in said
    assert SHARD in said
    said = alone.run("train", name, "--out", out.name)
    assert "continuing after step" in said
    found = step_losses(out)
    assert len(found) == STEPS
    np.testing.assert_allclose(found, step_losses(folder / "alone"), rtol=AGREE)
