"""Units as Ray tasks: on a cluster that is running, or on this machine.

Only the lines of JSON that say what to do and what was done travel through Ray; rows stay in
files of a folder that every node sees. Ray may run a task twice: each attempt has a folder of its
own and only the driver commits, so the second one is never seen.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from modelwright.data.corpus.attempt import ENVIRONMENT, Outcome, Task, attempt
from modelwright.data.corpus.pool import PACKAGE, TRIES, given_up, retried
from modelwright.errors import MachineError


def _remote(line: str) -> str:
    """``attempt`` over JSON, as Ray calls it."""
    return json.dumps(attempt(json.loads(line)))


def cannot_start(place: Path) -> str:
    """Why Ray, installed at ``place``, cannot start workers here; empty where it can."""
    if any(c.isspace() for c in str(place)):  # it hands its own path to a shell unquoted
        return f"Ray starts no workers from a path with spaces ({place})"
    return ""


class Cluster:
    """Ray's tasks. ``workers`` bounds how many are asked for at once, one processor each."""

    def __init__(self, workers: int) -> None:
        try:
            import ray  # noqa: PLC0415 - an extra, and slow to import
        except ImportError as error:
            raise MachineError(
                "engine 'ray' needs Ray, which is not installed: pip install 'modelwright[ray]'"
            ) from error
        self._ray: Any = ray
        self.workers = workers
        self._ours = not ray.is_initialized()
        if self._ours:
            _start(ray, workers)
        self._call = ray.remote(num_cpus=1, max_retries=0)(_remote)

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Task, Outcome]]:
        """Yield (index of the task, the task as it was attempted, outcome) as they come.

        Raises:
            MachineError: workers or nodes have died of the same task twice; it is named.
        """
        ray = self._ray
        waiting = list(range(len(tasks)))[::-1]
        deaths = [0] * len(tasks)
        at_work: dict[Any, tuple[int, Task]] = {}
        while waiting or at_work:
            while waiting and len(at_work) < self.workers:
                number = waiting.pop()
                task = retried(tasks[number], deaths[number])
                at_work[self._call.remote(json.dumps(task))] = number, task
            for reference in ray.wait(list(at_work), num_returns=1)[0]:
                number, task = at_work.pop(reference)
                try:
                    outcome: Outcome = json.loads(ray.get(reference))
                except (
                    ray.exceptions.WorkerCrashedError,
                    ray.exceptions.OutOfMemoryError,
                    ray.exceptions.NodeDiedError,
                ) as error:
                    deaths[number] += 1
                    if deaths[number] == TRIES:
                        raise given_up(task, type(error).__name__) from None
                    waiting.append(number)
                    continue
                yield number, task, outcome

    def close(self) -> None:
        """Leave the cluster, where we joined it."""
        if self._ours:
            self._ray.shutdown()


def _start(ray: Any, workers: int) -> None:
    """Join the cluster that RAY_ADDRESS names, else begin one on this machine."""
    paths = [str(PACKAGE), os.environ.get("PYTHONPATH", "")]
    environment = ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(p for p in paths if p)}
    address = os.environ.get("RAY_ADDRESS")
    local = {} if address else {"num_cpus": workers, "include_dashboard": False}
    if not address and (why := cannot_start(Path(ray.__file__).parent)):
        raise MachineError(f"engine 'ray': {why}; use --engine pool, or install it elsewhere")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level="error",
            runtime_env={"env_vars": environment},
            **local,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        line = " ".join(str(error).split())
        raise MachineError(
            f"engine 'ray': no cluster ({line[:200]}); check RAY_ADDRESS, or use --engine pool"
        ) from error
