"""Two replicas of Ray Serve, one of them killed: by hand, `pytest tests/slow/test_replicas.py -s`.

Needs `pip install 'ray[serve]'`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import httpx
import pytest

from modelwright.pipeline.deploy import deploy, ray_serve
from tests.exporting import tiny_runs

SECONDS = float(os.environ.get("MODELWRIGHT_SECONDS", "20"))
BODY = {"model": "decoder", "prompt": "import ", "max_tokens": 8, "temperature": 0}


def replicas_of(parent: int) -> list[int]:
    """The processes of replicas below a process."""
    found, below = [], {parent}
    for _ in range(4):
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                pid, after = int(stat.parent.name), stat.read_text().rpartition(")")[2].split()
                name = (stat.parent / "cmdline").read_bytes().replace(b"\0", b" ")
            except OSError:
                continue
            if int(after[1]) in below:
                below.add(pid)
                if b"ServeReplica" in name and pid not in found:
                    found.append(pid)
    return found


def ask(url, wanted, counts, stop) -> None:
    """Ask until told to stop, every request at most five times."""
    with httpx.Client(base_url=url, timeout=60) as http:
        while not stop.is_set():
            counts["asked"] += 1
            for attempt in range(5):
                try:
                    answer = http.post("/v1/completions", json=BODY)
                    if answer.status_code == 200:
                        assert answer.json()["choices"] == wanted
                        break
                except httpx.HTTPError:
                    pass
                counts["again"] += 1
                time.sleep(0.5 * 2**attempt)
            else:
                counts["failed"] += 1


def test_two_replicas_survive_the_loss_of_one(tmp_path):
    """S20 for replicas: no request has failed after a retry, and there are two again."""
    if why := ray_serve.absent():
        pytest.skip(why)
    run = tiny_runs.run_of("decoder", tmp_path / "runs")
    told = deploy(run, tmp_path / "out", print, to="ray-serve", replicas=2)
    assert "4 of 4 greedy answers are the run's own" in told[1]
    process = subprocess.Popen(
        ["/bin/sh", str(tmp_path / "out" / "launch.sh")], env={**os.environ, "PORT": "18473"}
    )
    url = "http://127.0.0.1:18473"
    try:
        until = time.monotonic() + 300
        while time.monotonic() < until:
            try:
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(1)
        first = replicas_of(process.pid)
        assert len(first) == 2
        wanted = httpx.post(f"{url}/v1/completions", json=BODY, timeout=60).json()["choices"]
        counts, stop = {"asked": 0, "again": 0, "failed": 0}, threading.Event()

        threads = [threading.Thread(target=ask, args=(url, wanted, counts, stop)) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(SECONDS / 4)
        os.kill(first[0], signal.SIGKILL)
        time.sleep(SECONDS)
        stop.set()
        for thread in threads:
            thread.join()
        print(f"\n{counts}")
        assert counts["failed"] == 0 and counts["asked"] > 20
        until = time.monotonic() + 120
        while len(replicas_of(process.pid)) < 2 and time.monotonic() < until:
            time.sleep(1)
        again = replicas_of(process.pid)
        assert len(again) == 2 and first[0] not in again and first[1] in again
    finally:
        process.terminate()
        assert process.wait(timeout=90) == 0
