"""Several commands of this program at once, each a process of its own with its share of cores."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from modelwright import runtime
from modelwright.errors import (
    EXIT_INTERRUPTED,
    EXIT_MACHINE,
    EXIT_REQUEUE,
    Interrupted,
    ModelwrightError,
)
from modelwright.training import signals

Say = Callable[[str], None]
POLL = 0.1  # seconds between two looks at the processes
SAFE = 0.8  # of the free memory may be used
PACKAGE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Command:
    """``modelwright ARGUMENTS``, called ``name``; what it says goes to ``log``."""

    name: str
    arguments: tuple[str, ...]
    log: Path
    environment: tuple[tuple[str, str], ...] = ()


def run_all(commands: Sequence[Command], at_once: int, threads: int, say: Say) -> None:
    """Run commands to their end, ``at_once`` at a time, each with ``threads`` threads.

    When one fails, those at work are waited for, no other is begun, and the first failure is
    raised with the line that the command said.

    Raises:
        Interrupted: On Ctrl-C or SIGTERM; every process was told once, and has saved and ended.
        ModelwrightError: What a command ended with, with its exit code.
    """
    waiting, working = list(commands), dict[int, tuple[Command, subprocess.Popen[bytes]]]()
    failed: list[tuple[Command, int]] = []
    stopped = 0  # else the exit code
    while working or (waiting and not failed and not stopped):
        try:
            while waiting and len(working) < at_once and not failed and not stopped:
                command = waiting.pop(0)
                say(f"{command.name}: started, see {command.log}")
                process = _start(command, threads)
                working[process.pid] = command, process
            time.sleep(POLL)
        except KeyboardInterrupt as stop:
            stopped = signals.exit_code(stop)
            for _, process in working.values():
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(getattr(stop, "number", signal.SIGINT))
        for pid, (command, process) in list(working.items()):
            if (code := process.poll()) is not None:
                del working[pid]
                say(f"{command.name}: " + ("done" if code == 0 else f"ended with code {code}"))
                failed += [(command, code)] if code else []
    if stopped:
        raise Interrupted("stopped; what was finished is kept", stopped)
    for command, code in failed:
        raise _failure(command, code)


def _start(command: Command, threads: int) -> subprocess.Popen[bytes]:
    """In a session of its own: Ctrl-C in a terminal reaches it once, from here."""
    path = os.pathsep.join(p for p in (str(PACKAGE), os.environ.get("PYTHONPATH")) if p)
    more = {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
    with command.log.open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "modelwright", *command.arguments],
            env={**os.environ, **more, **dict(command.environment)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _failure(command: Command, code: int) -> ModelwrightError:
    lines = command.log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = next((s for s in reversed(lines) if s.startswith("modelwright: ")), "")
    if code < 0:
        name = signal.Signals(-code).name
        said = f"its process was killed ({name}); if memory ran out, take fewer --jobs, and go on"
    error = ModelwrightError(
        f"{command.name}: {said.removeprefix('modelwright: ') or f'failed, see {command.log}'}"
    )
    if code in (EXIT_INTERRUPTED, EXIT_REQUEUE):
        return Interrupted(str(error), code)
    error.exit_code = code if code > 0 else EXIT_MACHINE
    return error


def share_of_cores(jobs: int) -> int:
    """Threads of each of ``jobs`` processes, so that they do not take each other's cores."""
    return max(1, runtime.cores() // jobs)


def fitting(jobs: int, peak_bytes: int) -> int:
    """How many processes of ``peak_bytes`` may work at once, at most ``jobs``, at least one."""
    return max(1, min(jobs, int(SAFE * free_memory_bytes() / max(1, peak_bytes))))


def children_peak_bytes() -> int:
    """The most memory that a finished child process of this one has held."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * scale


def free_memory_bytes() -> int:
    """Memory that new processes may take: on a GPU its own, else of this machine or container."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return min(_limits(), default=int(runtime.memory_gib() * 2**30))


def _limits() -> Iterator[int]:
    info = Path("/proc/meminfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):  # "max" is no limit
        most = int((group / "memory.max").read_text())
        yield max(0, most - int((group / "memory.current").read_text()))
