"""Fault T7 and T8 on real processes: one rank is killed or stopped; it is named, nothing is lost.

Twenty of twenty, with two and four processes, with copies of the model and with shards, are in
tests/slow/test_lost_ranks.py.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.parallel.jobs import job, recipe, train
from tests.programs import outcome, write_corpus

STEPS = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("lost"))


def test_killed_restarted_and_equal_bit_for_bit(folder: Path) -> None:
    name = str(recipe(folder, "killed", steps=STEPS))
    train(folder, 2, name, "--out", "whole")
    out = folder / "killed"
    with job(folder, 2, name, "--out", out.name, restarts=3) as struck:
        pid = struck.strike(out, 11, 1, signal.SIGKILL)
        said = struck.wait()
    assert f"rank 1 (process {pid} on " in said
    assert "gives no sign of life: killed or stopped" in said
    assert "continuing after step" in said
    assert outcome(out) == outcome(folder / "whole")


def test_stopped_is_named_with_stacks_in_time(folder: Path) -> None:
    name = str(recipe(folder, "stopped", steps=5000, timeout=8))
    out = folder / "stopped"
    with job(folder, 2, name, "--out", out.name) as struck:
        pid = struck.strike(out, 3, 1, signal.SIGSTOP)
        give_up = time.monotonic() + 90
        while "gives no sign of life" not in struck.said:
            assert time.monotonic() < give_up, struck.said
            time.sleep(0.05)
        os.kill(pid, signal.SIGKILL)  # the launcher would wait half a minute for it
        said = struck.wait(1)
    assert f"rank 1 (process {pid} on " in said
    assert "Traceback" in said  # where the other one waited for it
    assert "train.py" in said
