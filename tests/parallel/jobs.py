"""Real runs under torchrun: to start, to find a rank of, to kill one and to see what is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.parallel.worlds import environment, torchrun

PARALLEL = """\
name: tiny
seed: 3
data: {source: corpus.jsonl, split: {validation: 0.1, test: 0.1}}
codec: {vocabulary: 320}
model: {family: decoder, depth: 1, width: 32, heads: 2, kv_heads: 2, context: 32}
train: {task: documents, steps: STEPS, batch: 4, precision: float32, threads: 1,
  save_every: 5, validate_every: 10, sample_every: 20, optimizer: adamw}
parallel: {shard: SHARD, context: CONTEXT, timeout: TIMEOUT}
evaluate: {questions: 4, answer_tokens: 8}
"""


def recipe(
    folder: Path,
    name: str,
    *,
    steps: int,
    shard: str = "none",
    context: int = 1,
    timeout: int = 60,
) -> Path:
    """A recipe of so many steps in ``folder``, beside the corpus."""
    text = PARALLEL.replace("STEPS", str(steps)).replace("SHARD", shard)
    text = text.replace("CONTEXT", str(context))
    path = folder / f"{name}.yaml"
    path.write_text(text.replace("TIMEOUT", str(timeout)).replace("name: tiny", f"name: {name}"))
    return path


class Job:
    """``modelwright train`` in several processes; its words go to a file."""

    def __init__(self, folder: Path, processes: int, *arguments: str, restarts: int = 0) -> None:
        self.log = folder / f"log-{time.monotonic_ns()}.txt"
        words = ["modelwright", "train", *arguments]
        line = [sys.executable, "-m", *words]
        if processes > 1:  # as `--launch` does it, which tests/parallel/test_launch.py shows
            line = torchrun(processes, *words, options=("--max-restarts", str(restarts)))
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                line, cwd=folder, env=environment(), stdout=log, stderr=subprocess.STDOUT
            )

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def rank(self, number: int) -> int | None:
        """The process that has a rank now."""
        found = None
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                variables = (folder / "environ").read_bytes().split(b"\0")
            except (OSError, IndexError):
                continue
            if parent == self.process.pid and f"RANK={number}".encode() in variables:
                found = int(folder.name)
        return found

    def until_step(self, run: Path, step: int) -> None:
        """Wait until the metrics have so many lines."""
        give_up = time.monotonic() + 120
        while steps_done(run) < step:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < give_up, self.said
            time.sleep(0.005)

    def strike(self, run: Path, step: int, rank: int, number: signal.Signals) -> int:
        """Send a signal to a rank once ``step`` is reached; its process."""
        self.until_step(run, step)
        pid = self.rank(rank)
        assert pid is not None, self.said
        os.kill(pid, number)
        return pid

    def wait(self, code: int = 0) -> str:
        """Its words, once it has ended with ``code``."""
        ended = self.process.wait(timeout=240)
        assert ended == code, f"exit code {ended}, {code} is meant:\n{self.said}"
        return self.said


def steps_done(run: Path) -> int:
    """Lines of the metrics so far."""
    metrics = run / "metrics" / "train.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def step_losses(run: Path) -> list[float]:
    """The loss of every step, from the file of metrics."""
    lines = map(json.loads, (run / "metrics" / "train.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def damage(checkpoint: Path, name: str) -> None:
    """Turn one bit of a file."""
    content = bytearray((checkpoint / name).read_bytes())
    content[-3] ^= 4
    (checkpoint / name).write_bytes(content)


@contextmanager
def job(folder: Path, processes: int, *arguments: str, restarts: int = 0) -> Iterator[Job]:
    """A job that is gone afterwards, whatever happens."""
    started = Job(folder, processes, *arguments, restarts=restarts)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.terminate()
            started.process.wait(timeout=60)


def train(folder: Path, processes: int, *arguments: str) -> str:
    """Train to the end."""
    with job(folder, processes, *arguments) as started:
        return started.wait()
