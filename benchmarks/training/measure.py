"""Run scripts as processes, in turns, and make medians of what they print."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.run import Row
from benchmarks.training.clock import BEGAN
from modelwright.errors import MachineError, ModelwrightError

ROOT = Path(__file__).resolve().parents[2]
QUIET = {  # peers look for files on this machine only, and write nothing beside
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "KERAS_BACKEND": "torch",
    "NANOCHAT_DTYPE": "bfloat16",
}
LONGEST = 3600.0  # seconds of one measurement
FLOP_SIZES = (512, 1024, 2048, 4096)

Result = dict[str, Any]
Script = Callable[[], Result]


def script(
    module: str, *arguments: object, cold: bool = False, package: str = "benchmarks.training"
) -> Script:
    """A measurement: ``python -m PACKAGE.MODULE ARGUMENTS``, what it printed.

    ``cold`` gives the process an empty folder for compiled code, torch's and our own kernels, so
    that its wall time holds all of its compilation; else the user's caches are used.
    """
    return partial(_run, f"{package}.{module}", tuple(map(str, arguments)), cold)


def _run(module: str, arguments: tuple[str, ...], cold: bool) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, **QUIET, BEGAN: repr(time.time())}
        if cold:
            environment |= {"TORCHINDUCTOR_CACHE_DIR": folder, "XDG_CACHE_HOME": folder}
        command = [sys.executable, "-m", module, *arguments]
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=LONGEST,
            )
        except subprocess.TimeoutExpired as error:
            raise MachineError(f"bench: {module} took more than {LONGEST:.0f} s") from error
    return parsed(" ".join((module.removeprefix("benchmarks."), *arguments)), done)


def parsed(name: str, done: subprocess.CompletedProcess[str]) -> Result:
    """The last line of JSON that a script printed; peers print lines of their own before it."""
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        last = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise MachineError(f"bench: {name} failed (exit {done.returncode}), its last line: {last}")
    result: Result = json.loads(lines[-1])
    print(f"  {name}: {lines[-1]}", file=sys.stderr, flush=True)
    return result


def in_turns(contenders: Mapping[str, Script], repeats: int) -> dict[str, list[Result]]:
    """Measure all contenders ``repeats`` times, in turns.

    ``benchmarks.run.alternate`` for more than two: every round has all of them, and the order
    turns around each time, so that a machine that grows warmer slows all alike.
    """
    if repeats < 1:
        raise ModelwrightError(f"in_turns: repeats={repeats} measures nothing, give 1 or more")
    results: dict[str, list[Result]] = {name: [] for name in contenders}
    for turn in range(repeats):
        for name in list(contenders)[:: 1 if turn % 2 == 0 else -1]:
            results[name].append(contenders[name]())
    return results


def rate(results: list[Result]) -> float:
    """Median of the tokens (or samples) a second."""
    return statistics.median(r["tokens"] / r["seconds"] for r in results)


def median(results: list[Result], key: str) -> float:
    """Median of one number of every result."""
    return float(statistics.median(r[key] for r in results))


def spread(values: list[float]) -> str:
    """Mean, and how far the values reach."""
    return f"{statistics.mean(values):.4g} ({min(values):.4g} to {max(values):.4g})"


def at_least(question: str, ours: float, peer: float, bar: float) -> Row:
    """A row that holds when ours is at least ``bar`` times the peer's."""
    return Row(question, ours, peer, ours / peer, f">= {bar:g}", ours >= bar * peer)


def at_most(question: str, ours: float, peer: float, bar: float) -> Row:
    """A row that holds when ours is at most ``bar`` times the peer's."""
    return Row(question, ours, peer, ours / peer, f"<= {bar:g}", ours <= bar * peer)


def product_peak(quick: bool) -> float:
    """The bf16 matrix-product ceiling in FLOP/s: the median over sizes of median speeds."""
    import torch  # noqa: PLC0415 - the parent stays small until it has to multiply

    speeds = []
    for size in FLOP_SIZES[: 2 if quick else None]:
        a, b = (torch.randn(size, size).bfloat16() for _ in range(2))
        torch.mm(a, b)
        times = []
        for _ in range(5 if quick else 15):
            start = time.perf_counter()
            torch.mm(a, b)
            times.append(time.perf_counter() - start)
        speeds.append(2 * size**3 / statistics.median(times))
    return statistics.median(speeds)
