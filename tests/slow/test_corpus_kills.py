"""Kill -9 at fifty random moments of a pipeline with two workers; by hand, some minutes.

    python -m pytest tests/slow/test_corpus_kills.py -s

Three in four runs are killed and gone on with, the rest begin anew, so that every stage is hit.
The corpus is small: it is the number of moments that counts, and a run of seconds has them all.
Moments are counted from where the work begins: a run that only starts up has nothing to lose.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.data_stage.corpora import MODULES, finish, make_sources, tree
from tests.data_stage.test_corpus_kill import prove, run

KILLS = 50
STAGES = ("read", "pairs", "gather", "verify", "resolve", "write", "gate", "tokenizer", "tokens")


def begun(path: Path, corpus: Path) -> subprocess.Popen[str]:
    """A run that has just begun its work."""
    process = run(path, corpus)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("corpus: ")
    return process


def killed_at(path: Path, corpus: Path, seconds: float) -> bool:
    """Kill a run so long after its begin; whether it was still at work."""
    process = begun(path, corpus)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def reached(corpus: Path) -> str:
    """The last stage that a killed run, or one before it, has begun."""
    there = {path.name for path in (corpus / "stages").glob("*")}
    if (corpus / "audit").exists() or (corpus / "gate.json").exists():
        there.add("gate")
    return next((stage for stage in reversed(STAGES) if stage in there), "start")


@pytest.mark.timeout(3600)
def test_fifty_kills(tmp_path: Path):
    path = make_sources(tmp_path / "in", MODULES[:2])
    process = begun(path, tmp_path / "calm")
    started = time.monotonic()
    code, _, wrong = finish(process)
    assert code == 0, wrong
    expected, seconds = tree(tmp_path / "calm"), time.monotonic() - started
    print(f"undisturbed: {seconds:.1f} s of work")
    chance = random.Random(50)
    corpus, killed, finished = tmp_path / "killed", 0, 0
    at: Counter[str] = Counter()
    while killed < KILLS:
        if killed_at(path, corpus, chance.uniform(0.0, seconds)):
            killed += 1
            at[reached(corpus)] += 1
            print(f"kill {killed} in or after {reached(corpus)}", flush=True)
        else:
            assert tree(corpus) == expected
            prove(corpus)
            finished += 1
        if (corpus / "corpus.json").exists() or chance.random() < 0.25:
            shutil.rmtree(corpus, ignore_errors=True)
    code, _, wrong = finish(run(path, corpus))
    assert code == 0, wrong
    assert tree(corpus) == expected
    prove(corpus)
    print(f"{killed} kills, {finished} runs ended between them, {len(expected)} files the same")
    print(f"killed in or after: {dict(at)}")
