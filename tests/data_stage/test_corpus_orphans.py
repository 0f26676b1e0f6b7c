"""A run that is killed takes its workers with it, whatever they are at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.data_stage.corpora import PACKAGE

ROOT = Path(__file__).resolve().parents[2]
RUN = """\
import sys
from pathlib import Path
from modelwright.data.corpus.engine import run_units
from modelwright.data.corpus.unit import Unit
units = [Unit("s", f"u{i}", "tests.data_stage.unit_works:stuck", {}) for i in range(2)]
run_units(units, Path(sys.argv[1]), "pool", workers=2)
"""
PATIENCE = 60.0  # seconds; a worker that is not killed would be at it for years


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a process with its parent")
def test_stuck_workers_end_with_the_run(tmp_path: Path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(PACKAGE), str(ROOT)])}
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path / "corpus")], env=environment
    )
    said, workers = tmp_path / "stuck.txt", list[int]()
    try:
        while len(workers) < 2 and process.poll() is None:
            time.sleep(0.05)
            workers = [int(w) for w in said.read_text().split()] if said.exists() else []
        assert all(map(alive, workers))
        assert len(set(workers)) == 2
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        until = time.monotonic() + PATIENCE
        while any(map(alive, workers)) and time.monotonic() < until:
            time.sleep(0.05)
        assert not [w for w in workers if alive(w)]
    finally:
        process.kill()
        process.wait()
        for worker in filter(alive, workers):
            os.kill(worker, signal.SIGKILL)
