"""A small text run, and the program itself as real processes to start, stop and kill.

``Programs`` fork from one process that has imported what a training imports: each child is a
process of its own that runs the command line, without the seconds that importing takes. How fast
the machine is, they are told: half a second for each of them, and the same for all.
"""

from __future__ import annotations

import ast
import atexit
import inspect
import json
import os
import shlex
import signal
import string
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import modelwright
from modelwright import checkpoint

SOURCE = Path(modelwright.__file__).parents[1]
MODULES: tuple[ModuleType, ...] = (textwrap, shlex, string, ast, inspect)
RECIPE = """\
name: tiny
seed: 3
data: {source: corpus.jsonl, split: {validation: 0.1, test: 0.1}}
codec: {vocabulary: 320}
model: {family: decoder, depth: 1, width: 64, heads: 2, kv_heads: 1, context: 64}
train: {task: documents, steps: 40, batch: 4, precision: float32, threads: 1,
  save_every: 5, validate_every: 10, sample_every: 20}
tune: {task: docstrings, steps: 20, batch: 4, precision: float32, threads: 1,
  save_every: 5, validate_every: 10, sample_every: 20}
evaluate: {questions: 4, answer_tokens: 8}
ask: What does `textwrap.wrap` do?
"""


@cache
def rows() -> list[dict[str, str]]:
    """Every documented function of some modules: its source as text, and what it is."""
    found = []
    for module in MODULES:
        source = inspect.getsource(module)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and (docstring := ast.get_docstring(node)):
                name = f"{module.__name__}.{node.name}"
                text = ast.get_source_segment(source, node) or ""
                found.append(
                    {
                        "id": f"{name}:{node.lineno}",
                        "text": text[:1500],
                        "full_name": name,
                        "signature": f"{node.name}({ast.unparse(node.args)})",
                        "docstring": docstring,
                    }
                )
    return found


def write_corpus(folder: Path) -> Path:
    """The rows as ``corpus.jsonl`` and the recipe as ``tiny.yaml`` in ``folder``."""
    lines = "".join(json.dumps(row) + "\n" for row in rows())
    (folder / "corpus.jsonl").write_text(lines, encoding="utf-8")
    (folder / "tiny.yaml").write_text(RECIPE, encoding="utf-8")
    return folder


def environment(**more: str) -> dict[str, str]:
    """Of a child that finds this package and takes one thread."""
    return os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"} | more


def command(*arguments: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """``python -m modelwright`` from a fresh interpreter, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "modelwright", *arguments],
        cwd=cwd,
        env=environment(**options.pop("env", {})),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **options,
    )


SERVER = """
import contextlib, importlib, json, os, signal, sys
import tensorboardX, torch._dynamo  # which the first optimiser imports
for name in ("optuna", "sqlalchemy", "sklearn.datasets"):
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
from modelwright import api, runtime
from modelwright.cli import main

runtime.matmul_gflops = lambda precision: 40.0

def child(order):
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 70
    try:
        exec(order["before"], {})
        code = main(order["arguments"])
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        answer = os.waitpid(order["wait"], 0)[1]
    elif not (answer := os.fork()):
        child(order)
    print(answer, flush=True)
"""


@dataclass
class Program:
    """One running command; its output goes to ``log``."""

    owner: Programs
    pid: int
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition; fail when it does not come to hold in two minutes."""
        give_up = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < give_up, f"waited in vain; it said:\n{self.said}"
            time.sleep(0.001)

    def until_said(self, words: str) -> None:
        self.until(lambda: words in self.said)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """The exit code, or minus the signal that killed it."""
        return os.waitstatus_to_exitcode(self.owner.ask({"wait": self.pid}))


@cache
def _server() -> subprocess.Popen[str]:
    """The process that forks all others, for as long as this one lives."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    atexit.register(process.communicate)  # no more orders: it ends
    return process


class Programs:
    """Starts commands in ``cwd`` as forks of a process that has imported everything."""

    def __init__(self, cwd: Path) -> None:
        self.cwd, self.count = cwd, 0

    def ask(self, order: dict[str, Any]) -> int:
        process = _server()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        return int(process.stdout.readline())

    def start(self, *arguments: str, cwd: Path | None = None, before: str = "") -> Program:
        """Start ``modelwright`` with these arguments, after the code ``before`` (a fault)."""
        self.count += 1
        log = self.cwd / f"log-{self.count}.txt"
        log.touch()
        place = str(cwd or self.cwd)
        order = {"arguments": arguments, "cwd": place, "log": str(log), "before": before}
        order["environment"] = environment()
        pid = self.ask(order)
        return Program(self, pid, log)

    def run(self, *arguments: str, code: int = 0, cwd: Path | None = None, before: str = "") -> str:
        """Run to the end, which must be ``code``; what it said."""
        program = self.start(*arguments, cwd=cwd, before=before)
        ended = program.wait()
        assert ended == code, f"exit code {ended}, {code} is meant:\n{program.said}"
        return program.said


def serving(folder: Path) -> Programs:
    """For fixtures: programs in a folder with the corpus and the recipe."""
    return Programs(write_corpus(folder))


def the_line(said: str) -> str:
    """The one line that matters: there is exactly one, and no traceback."""
    assert "Traceback" not in said, said
    lines = [line for line in said.splitlines() if line.startswith("modelwright: ")]
    assert len(lines) == 1, f"one line is meant, there are {len(lines)}:\n{said}"
    return lines[0]


def outcome(run: Path) -> dict[str, Any]:
    """All that a training left, bit for bit: tensors of every stage, and its loss sequence."""
    left: dict[str, Any] = {}
    for folder in sorted((run / "checkpoints").iterdir()):
        newest = checkpoint.newest(folder)
        assert newest is not None
        left[folder.name] = newest.name
        for group, named in checkpoint.load(newest).tensors.items():
            for name, tensor in named.items():
                raw = tensor.contiguous().flatten()
                left[f"{folder.name}/{group}/{name}"] = raw.numpy().tobytes()
        lines = (run / "metrics" / f"{folder.name}.jsonl").read_text().splitlines()
        left[f"{folder.name} losses"] = [_bits(json.loads(line)) for line in lines]
    return left


def _bits(record: dict[str, Any]) -> tuple[Any, ...]:
    """Step and losses of a line of metrics, every bit of them; times differ between runs."""
    values = record.get("validation", record)
    kept = ("loss", "bits_per_byte", "learning_rate", "gradient_norm")
    return (record["step"], *(float(values[k]).hex() for k in kept if k in values))
