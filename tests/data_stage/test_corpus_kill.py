"""A run killed at any moment goes on to the bytes of a run that nobody disturbed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.data_stage.corpora import MODULES, finish, make_sources, start, tree

KILLS = 4


def run(path: Path, corpus: Path) -> subprocess.Popen[str]:
    return start("run", path, "--out", corpus, "--engine", "pool", "--workers", 2)


def undisturbed(path: Path, corpus: Path) -> tuple[dict[str, str], float]:
    """The files of a run, and the seconds it took."""
    started = time.monotonic()
    code, _, wrong = finish(run(path, corpus))
    assert code == 0, wrong
    return tree(corpus), time.monotonic() - started


def kill_at(path: Path, corpus: Path, seconds: float) -> bool:
    """Start the run, kill it after so long; whether it was still at work."""
    process = run(path, corpus)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def prove(corpus: Path) -> None:
    """Rows in are rows kept and dropped, by number and checksum of ids, over all units."""
    sums = {way: [0, 0] for way in ("in", "kept", "dropped", "quarantined")}
    for path in (corpus / "stages" / "read").glob("*.json"):
        facts = json.loads(path.read_bytes())["facts"]
        for way, held in sums.items():
            held[0] += facts[way]["rows"]
            held[1] += int(facts[way]["ids"], 16)
    ways = [sums[way] for way in ("kept", "dropped", "quarantined")]
    assert sums["in"][0] == sum(held[0] for held in ways) > 0
    assert sums["in"][1] % 2**64 == sum(held[1] for held in ways) % 2**64


def test_killed_at_any_moment(tmp_path: Path):
    path = make_sources(tmp_path / "in", MODULES[:4])
    expected, seconds = undisturbed(path, tmp_path / "calm")
    chance = random.Random(5)
    corpus = tmp_path / "killed"
    killed = sum(kill_at(path, corpus, chance.uniform(0.3, 0.7) * seconds) for _ in range(KILLS))
    assert killed > 0
    code, _, wrong = finish(run(path, corpus))
    assert code == 0, wrong
    assert tree(corpus) == expected
    assert not (corpus / "tmp").exists()
    prove(corpus)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_when_asked(tmp_path: Path, number: signal.Signals):
    """It says how to go on, leaves no worker behind, and goes on."""
    path = make_sources(tmp_path / "in", MODULES[:2])
    process = run(path, tmp_path / "corpus")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("read: "):
            break
    os.kill(process.pid, number)
    code, _, wrong = finish(process)
    assert code == (130 if number == signal.SIGINT else 75), wrong
    assert "give the same command again to go on" in wrong
    assert len(wrong.splitlines()) == 1
    code, _, wrong = finish(run(path, tmp_path / "corpus"))
    assert code == 0, wrong
    finish(run(path, tmp_path / "calm"))
    assert tree(tmp_path / "corpus") == tree(tmp_path / "calm")
