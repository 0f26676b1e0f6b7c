"""Every fault of training at its full count, on a small network, as real processes.

    python -m tests.slow.fault_table [--count 50] [--only T1,T6]

Writes benchmarks/results/faults.json and faults.md: the fault, what must hold, held of tried.
A case that does not hold is kept with what was said; nothing is tried twice.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from modelwright import checkpoint, runtime
from tests.faults.injected import loss_of_batch, manifest
from tests.faults.test_signals import CODES, PHASES, signal_in
from tests.programs import Programs, environment, outcome

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
SEED = 7
RECIPE = """\
name: small
seed: 3
data: {source: digits, limit: 400, split: {by: row, validation: 0.1, test: 0.1}}
model: {family: mlp, hidden: [32]}
train: {task: vector_classification, steps: 120, batch: 32, precision: float32, threads: 1,
  optimizer: adamw, learning_rate: 0.003, save_every: 10, validate_every: 10, watchdog: 60}
evaluate: {baselines: false}
"""
TESTS = {  # proved by the suite: the tests that hold them, each a number of cases
    "T3": "tests/laws/test_law_13_checkpoints.py -k 200",
    "T4": "tests/laws/test_law_13_checkpoints.py -k 'not 200'",
    "T5": "tests/laws/test_law_13_crashes.py -k 'disk or space or limit'",
    "T8": "tests/faults/test_signals.py -k 'hung or suspended'",
    "T9": "tests/faults/test_nonfinite.py",
    "T10": "tests/faults/test_spikes.py",
    "T11": "tests/faults/test_memory.py",
    "T13": "tests/training/test_examples.py",
    "T17": "tests/laws/test_law_14_machine.py -k 'second_run or lock'",
    "T18": "tests/faults/test_restarts.py -k 'bad_checkpoint or progress'",
    "T19": "tests/faults/test_restarts.py -k 'difference or change or torch or accepted'",
    "T23": "tests/laws/test_law_13_crashes.py tests/data/test_shards.py"
    " -k 'system_call or seal or flushed'",
}
# Of a classifier, which answers with a label: nothing is sampled.
OF_LABELS = {k: v for k, v in PHASES.items() if k != "sampling"} | {
    "evaluation": ("modelwright.pipeline.labelled", "weighed", 1)
}
WORDS = {
    "T1": "kill -9 at a random moment: a sound checkpoint, the same run bit for bit",
    "T3": "one bit of a checkpoint flipped: found before use, file and tensor named",
    "T4": "checkpoint files cut, emptied, lost, added, swapped: found and named",
    "T5": "no space, no quota, I/O errors at every system call of a save: nothing lost",
    "T6": "a signal in a phase: saved, the right exit code, the same run bit for bit",
    "T7": "a rank of 2 or 4 killed at any step, plain and sharded: named, begun anew, bit for bit",
    "T8": "nothing moves: ended with the stacks of all threads",
    "T9": "NaN or infinity: nothing updated, nothing saved, the rows named",
    "T10": "a spike of the loss: found, gone around, recorded, repeated exactly",
    "T11": "out of memory: the same step in smaller pieces",
    "T13": "stopped in an epoch: the same sequence of examples",
    "T17": "two writers in one run: the second is refused; a dead one's lock is free",
    "T18": "a checkpoint that fails twice is set aside; after three failures it stops",
    "T19": "resumed with changed data, seed, shape, precision or torch: refused by name",
    "T22": "10,000 steps, 500 saves, 500 validations: memory and open files stay flat",
    "T23": "cut between any two system calls of a save: sound",
}


class Table:
    """The processes, the undisturbed run, and what was counted."""

    def __init__(self, count: int) -> None:
        self.count, self.results = count, {}  # type: ignore[var-annotated]
        self.folder = tempfile.TemporaryDirectory(prefix="faults-")
        self.place = Path(self.folder.name)
        (self.place / "small.yaml").write_text(RECIPE)
        self.programs = Programs(self.place)
        began = time.monotonic()
        self.programs.run("run", "small.yaml", "--out", "whole")
        self.seconds = time.monotonic() - began
        self.whole = outcome(self.place / "whole")

    def tally(self, name: str, cases: Iterator[str]) -> None:
        """Count what holds (an empty string) and keep the rest."""
        began = time.monotonic()
        said = list(cases)
        held = sum(not s for s in said)
        self.results[name] = {
            "held": held,
            "tried": len(said),
            "seconds": round(time.monotonic() - began, 1),
            "failed": [s for s in said if s][:20],
        }
        print(f"{name}: {held} of {len(said)}", flush=True)

    def ended(self, out: str) -> str:
        """Go on with a run; what is wrong with what it comes to, or an empty string."""
        folder = self.place / out / "checkpoints" / "train"
        newest = checkpoint.newest(folder)
        if newest is not None and (problems := checkpoint.verify(newest)):
            return f"{out}: {problems}"
        before = int(newest.name[5:]) if newest else 0
        again = self.programs.start("run", "small.yaml", "--out", out)
        if again.wait():
            return f"{out}: {again.said[-300:]}"
        if before and f"continuing after step {before}" not in again.said and before < 120:
            return f"{out}: did not go on from step {before}"
        return "" if outcome(self.place / out) == self.whole else f"{out}: not the same run"


def killed(table: Table) -> Iterator[str]:
    """T1: a third of the kills while a checkpoint is being written, the rest at any time."""
    rng = random.Random(SEED)
    for i in range(table.count):
        out = f"killed-{i}"
        program = table.programs.start("run", "small.yaml", "--out", out)
        folder = table.place / out / "checkpoints" / "train"
        if i % 3 == 2:
            after, give_up = rng.randrange(1, 12) * 10, time.monotonic() + 60
            unsealed = folder / f"step-{after:08d}"
            while not unsealed.is_dir() or (unsealed / "COMPLETE").exists():
                if time.monotonic() > give_up or (unsealed / "COMPLETE").exists():
                    break
                time.sleep(0.0002)
        else:
            time.sleep(rng.uniform(0, table.seconds))
        program.signal(signal.SIGKILL)
        program.wait()
        yield table.ended(out)


def signalled(table: Table) -> Iterator[str]:
    """T6: every phase, the signals in turn."""
    for phase in OF_LABELS:
        for i in range(table.count):
            number = list(CODES)[i % len(CODES)]
            out = f"{phase.replace(' ', '-')}-{i}"
            line = ("run", "small.yaml", "--out", out)
            program = table.programs.start(*line, before=signal_in(phase, number, OF_LABELS))
            code = program.wait()
            if code != CODES[number]:
                yield f"{out}: exit code {code} after {number.name}: {program.said[-300:]}"
            else:
                yield table.ended(out)


def spiked(table: Table) -> Iterator[str]:
    """T10: ten and a hundred times the loss of a random batch after the first window."""
    rng = random.Random(SEED)
    for i in range(table.count):
        at, factor = rng.randrange(40, 110), "100" if i % 2 else "10"
        line = ("train", "small.yaml", "train.on_spike=rollback", "--out", f"spike-{i}")
        program = table.programs.start(*line, before=loss_of_batch(at, factor))
        if program.wait():
            yield f"spike-{i}: {program.said[-300:]}"
            continue
        found = manifest(table.place / f"spike-{i}").get("departures", [])
        yield "" if [e["step"] for e in found] == [at] else f"x{factor} at {at}: found {found}"


SOAK = """
import os, sys
from pathlib import Path
from tests.faults.soak import soak
import json
print(*(json.dumps(x, separators=(',', ':')) for x in soak(Path(sys.argv[1]), 10_000, 20)))
"""


def soaked(table: Table) -> Iterator[str]:
    """T22: resident memory and open files at a tenth of the way, and at its end."""
    done = subprocess.run(
        [sys.executable, "-c", SOAK, str(table.place / "soak")],
        cwd=ROOT, env=environment(PYTHONPATH=f"{ROOT / 'src'}:{ROOT}"),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        yield done.stderr[-300:]
        return
    memory, files, threads = (json.loads(x) for x in done.stdout.split())
    table.results["T22 figures"] = {"memory": memory, "files": files, "threads": threads}
    yield "" if memory[1] <= 1.01 * memory[0] else f"memory {memory}"
    yield "" if files[1] <= files[0] else f"open files {files}"
    yield "" if threads[1] <= threads[0] else f"threads {threads}"


def suite(names: str) -> Callable[[Table], Iterator[str]]:
    """The cases of some tests, from pytest's own count."""
    return lambda _: iter(judged(names)[0])


def judged(names: str, *flags: str, **extra: str) -> tuple[list[str], str]:
    """What is wrong with each case of some tests, empty where it holds; and all that they said."""
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *_split(names), *flags]
    done = subprocess.run(
        words, cwd=ROOT, env=environment(**extra), capture_output=True, text=True, check=False
    )
    said = done.stdout.strip() or done.stderr[-200:]
    counts = {w.rstrip(","): int(n) for n, w in _pairs(said.splitlines()[-1])}
    failed = [line for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if done.returncode:
        failed = [*failed, *done.stderr.splitlines()[-3:]] if failed else [said[-300:]]
    return [*[""] * counts.get("passed", 0), *failed], said


def _split(names: str) -> list[str]:
    import shlex

    return shlex.split(names)


def _pairs(line: str) -> list[tuple[str, str]]:
    words = line.split()
    return [
        (a, b) for a, b in pairwise(words) if a.isdigit() and b.startswith(("passed", "failed"))
    ]


CASES: dict[str, Callable[[Table], Iterator[str]]] = {
    "T1": killed, "T6": signalled, "T10 x": spiked, "T22": soaked,
    **{name: suite(tests) for name, tests in TESTS.items()},
}  # fmt: skip


def write(table: Table, command: str) -> None:
    """The figures as JSON and as a table."""
    keep(table.results, command, RESULTS / "faults.json", "Faults of training", WORDS)


def keep(
    found: dict[str, Any], command: str, path: Path, title: str, words: dict[str, str]
) -> None:
    """Put results beside those that a file has, and write them as a table as well."""
    machine = {
        "cpu": runtime.cpu_name(), "cores": runtime.cores(), "system": platform.system(),
        "torch": torch.__version__, "python": platform.python_version(),
    }  # fmt: skip
    kept: dict[str, Any] = json.loads(path.read_text())["results"] if path.exists() else {}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for name, figures in found.items():
        holds = words.get(name, words.get(name.split()[0], ""))
        figures.update(date=now, command=command, holds=holds)
    results = {**kept, **found}
    path.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")
    rows = [
        f"| {name} | {r.get('holds', words.get(name.split()[0], ''))} "
        f"| {r['held']} of {r['tried']} | {r['date']} |"
        for name, r in sorted(results.items(), key=lambda item: int(item[0].split()[0][1:]))
        if "held" in r
    ]
    head = [f"# {title}", "", f"{machine['cpu']}, torch {machine['torch']}.", "",
            "| fault | what must hold | held | measured |", "|---|---|---|---|"]  # fmt: skip
    path.with_suffix(".md").write_text("\n".join([*head, *rows]) + "\n")


def main() -> int:
    """Run the chosen cases; 1 when one does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50, help="of each random fault")
    parser.add_argument("--only", default=",".join(CASES), help="such as T1,T6")
    options = parser.parse_args()
    table = Table(options.count)
    command = f"python -m tests.slow.fault_table {' '.join(sys.argv[1:])}".strip()
    for name in options.only.split(","):
        table.tally(name, CASES[name](table))
        write(table, command)
    return int(any(r.get("failed") for r in table.results.values()))


if __name__ == "__main__":
    sys.exit(main())
