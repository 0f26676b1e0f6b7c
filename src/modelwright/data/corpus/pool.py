"""Units in several processes of this machine, each with one thread."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from modelwright.data.corpus.attempt import ENVIRONMENT, Outcome, Task
from modelwright.errors import MachineError

PACKAGE = Path(__file__).resolve().parents[3]
TRIES = 2  # a worker may die of something that passes; twice is the unit's own doing


def retried(task: Task, deaths: int) -> Task:
    """The task for another attempt, in a folder of its own."""
    return task | {"folder": f"{task['folder']}.{deaths}"}


def given_up(task: Task, how: str) -> MachineError:
    """What is said of a unit whose workers die."""
    return MachineError(
        f"{task['name']}: its worker died {TRIES} times ({how}), most likely for want of memory;"
        " give fewer --workers or more memory, then the same command again"
    )


class _Worker:
    """A process that takes one task at a time."""

    def __init__(self) -> None:
        paths = [str(PACKAGE), os.environ.get("PYTHONPATH", "")]
        path = os.pathsep.join(p for p in paths if p)
        self.process = subprocess.Popen(  # noqa: S603 - this Python, our own program
            [sys.executable, "-m", "modelwright.data.corpus.worker", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=os.environ | ENVIRONMENT | {"PYTHONPATH": path},
        )
        self.number = -1  # of the task it is at
        self.task: Task = {}
        self.said = bytearray()

    def begin(self, number: int, task: Task) -> None:
        """Give it a task; that it has just died is noticed when its output is read."""
        self.number, self.task = number, task
        with contextlib.suppress(BrokenPipeError):
            line = memoryview(json.dumps(task).encode() + b"\n")
            while line and self.process.stdin:
                line = line[self.process.stdin.write(line) or 0 :]

    def fileno(self) -> int:
        """What to wait on."""
        return self.process.stdout.fileno() if self.process.stdout else -1

    def read(self) -> Outcome | None:
        """What it has said, once that is a whole line.

        Raises:
            EOFError: it has died.
        """
        got = os.read(self.fileno(), 1 << 20)
        if not got:
            raise EOFError
        self.said += got
        if not self.said.endswith(b"\n"):
            return None
        outcome: Outcome = json.loads(self.said)
        self.said.clear()
        return outcome

    def end(self) -> str:
        """Kill it if it still lives; returns how it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0.2)  # its output ends a moment before it does
        self.process.kill()
        code = self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


class Pool:
    """Workers that are started when there is work for them and kept for the next stage."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Task, Outcome]]:
        """Yield (index of the task, the task as it was attempted, outcome) as they come.

        A task whose worker dies is given to another one, once.

        Raises:
            MachineError: the second worker has died of the same task; it is named.
        """
        waiting = list(range(len(tasks)))[::-1]
        deaths = [0] * len(tasks)
        with selectors.DefaultSelector() as watched:
            while waiting or self._busy:
                while waiting and len(self._busy) < self.workers:
                    worker = self._idle.pop() if self._idle else _Worker()
                    self._busy.append(worker)
                    watched.register(worker, selectors.EVENT_READ)
                    number = waiting.pop()
                    worker.begin(number, retried(tasks[number], deaths[number]))
                for key, _ in watched.select():
                    worker = next(w for w in self._busy if w is key.fileobj)
                    try:
                        outcome = worker.read()
                    except EOFError:
                        watched.unregister(worker)
                        self._busy.remove(worker)
                        how = worker.end()
                        deaths[worker.number] += 1
                        if deaths[worker.number] == TRIES:
                            raise given_up(worker.task, how) from None
                        waiting.append(worker.number)
                        continue
                    if outcome is not None:
                        watched.unregister(worker)
                        self._busy.remove(worker)
                        self._idle.append(worker)
                        yield worker.number, worker.task, outcome

    def close(self) -> None:
        """End every worker, at work or not."""
        for worker in self._busy:
            worker.process.kill()
        for worker in self._idle:
            worker.process.kill()
        for worker in (*self._busy, *self._idle):
            worker.end()
        self._busy, self._idle = [], []
