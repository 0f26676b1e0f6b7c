"""Fault T7 at length: twenty kills of a random rank at a random step, with two and four processes.

    pytest -o timeout=0 tests/slow/test_lost_ranks.py

Every seed is printed; MODELWRIGHT_KILLS=3 does fewer.
"""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from tests.parallel.jobs import job, recipe, train
from tests.programs import outcome, write_corpus

KILLS = int(os.environ.get("MODELWRIGHT_KILLS", "20"))
STEPS = 24


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize(("shard", "context"), [("none", 1), ("fsdp", 1), ("none", 2)])
def test_any_rank_at_any_step(tmp_path: Path, processes: int, shard: str, context: int) -> None:
    write_corpus(tmp_path)
    name = str(recipe(tmp_path, "lost", steps=STEPS, shard=shard, context=context))
    train(tmp_path, processes, name, "--out", "whole")
    whole = outcome(tmp_path / "whole")
    for seed in range(KILLS):
        rng = random.Random(f"{seed} {processes} {shard}" + f" {context}" * (context > 1))
        step, rank = rng.randrange(1, STEPS - 2), rng.randrange(processes)
        print(f"seed {seed}: rank {rank} at step {step}", flush=True)
        out = tmp_path / f"killed-{seed}"
        with job(tmp_path, processes, name, "--out", out.name, restarts=3) as struck:
            pid = struck.strike(out, step, rank, signal.SIGKILL)
            said = struck.wait()
        assert f"rank {rank} (process {pid} on " in said, said
        assert outcome(out) == whole
