"""Running units: what is finished is kept, the rest is done, in one process, many, or on Ray.

The engine decides where a unit runs, never what comes out. Speed knobs (engine, workers) are in no
mark, so a corpus begun by one engine is gone on with by another.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from modelwright.data.corpus import ledger
from modelwright.data.corpus.attempt import Outcome, Task, disk_full, failure, full, task
from modelwright.data.corpus.marks import canonical, content, mark
from modelwright.data.corpus.unit import Commit, Unit
from modelwright.errors import ModelwrightError

Say = Callable[[str], None]
EngineName = Literal["inline", "pool", "ray"]
ENGINES: tuple[EngineName, ...] = ("inline", "pool", "ray")
SAY_EVERY = 10.0  # seconds between two lines of progress


class Engine(Protocol):
    """Where tasks are done; every outcome comes back once, in any order."""

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Task, Outcome]]:
        """Yield (index of the task, the task as it was attempted, outcome) as they come."""
        ...

    def close(self) -> None:
        """Let go of processes."""
        ...


@contextmanager
def opened(name: str, workers: int) -> Iterator[Engine]:
    """An engine by its name, closed at the end.

    Raises:
        ModelwrightError: no such engine, or no number of workers.
        MachineError: Ray is asked for and not there.
    """
    if workers < 1:
        raise ModelwrightError(f"--workers: {workers} is no number of workers; give 1 or more")
    engine: Engine
    if name == "inline":
        from modelwright.data.corpus.inline import Inline  # noqa: PLC0415 - only what is used

        engine = Inline()
    elif name == "pool":
        from modelwright.data.corpus.pool import Pool  # noqa: PLC0415

        engine = Pool(workers)
    elif name == "ray":
        from modelwright.data.corpus.cluster import Cluster  # noqa: PLC0415

        engine = Cluster(workers)
    else:
        raise ModelwrightError(f"--engine: no engine {name!r}; known: {', '.join(ENGINES)}")
    try:
        yield engine
    finally:
        engine.close()


def marks_of(units: Sequence[Unit], folder: Path) -> dict[str, str]:
    """The mark of every unit, by name; all that they read must be committed."""
    upstream: dict[str, str] = {}
    commits: dict[str, Commit] = {}
    for reference in {name for unit in units for name in unit.reads}:
        name, _, file = reference.partition(":")
        commits[name] = commits.get(name) or ledger.committed(folder, name)
        upstream[reference] = commits[name].files[file] if file else content(commits[name])
    return {unit.name: mark(unit, upstream) for unit in units}


def finished(units: Sequence[Unit], folder: Path, marks: dict[str, str]) -> dict[str, Commit]:
    """The commits of those units that need not be done again, by name."""
    found: dict[str, Commit] = {}
    for unit in units:
        commit = ledger.read_commit(folder, unit.stage, unit.name)
        if commit and commit.mark == marks[unit.name] and ledger.whole(folder, unit.stage, commit):
            found[unit.name] = commit
    return found


def run_units(
    units: Sequence[Unit],
    folder: Path,
    engine: str | Engine = "inline",
    *,
    workers: int = 1,
    say: Say = print,
    changing: Callable[[], None] | None = None,
) -> dict[str, Commit]:
    """Do all units of one stage that are not done yet.

    Args:
        units: all units of the stage; what is there beside them is removed.
        folder: the corpus, held by ``ledger.locked``.
        engine: "inline", "pool", "ray", or an opened engine.
        workers: of a pool, or tasks at once on Ray.
        say: where progress goes.
        changing: called once before anything is done, and not when all is done already.

    Returns:
        name -> commit of every unit, in their order.

    Raises:
        ModelwrightError: what a unit raised, with its name; a MachineError when the disk is full,
            memory is short, or workers die of a unit. What is finished is kept.
    """
    names = [unit.name for unit in units]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ModelwrightError(f"{units[0].stage}: two units are called {twice[0]!r}; rename one")
    if isinstance(engine, str):
        with opened(engine, workers) as made:
            return run_units(units, folder, made, say=say, changing=changing)
    folder = folder.resolve()
    marks = marks_of(units, folder)
    done = finished(units, folder, marks)
    left = sorted((u for u in units if u.name not in done), key=lambda u: (-u.bytes, u.name))
    try:
        if left and changing:
            changing()
        for stage in {unit.stage for unit in units}:
            ledger.prune(folder, stage, {u.name for u in units if u.stage == stage})
        if left:
            done |= _do(left, folder, engine, marks=marks, before=len(done), say=say)
        elif units:
            say(f"{units[0].stage}: nothing changed, {len(units):,} units kept")
    except OSError as error:
        if disk_full(error):
            raise full(folder) from error
        raise
    finally:
        ledger.clear_attempts(folder)
    return {name: done[name] for name in names}


def _do(
    units: Sequence[Unit],
    folder: Path,
    engine: Engine,
    *,
    marks: dict[str, str],
    before: int,
    say: Say,
) -> dict[str, Commit]:
    """Run units, commit each as it ends, and say how it goes."""
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    progress = _Progress(units, before, say)
    done: dict[str, Commit] = {}
    tasks = [task(unit, folder, number) for number, unit in enumerate(units)]
    for number, given, outcome in engine.run(tasks):
        if "error" in outcome:
            raise failure(given, outcome)
        unit = units[number]
        facts = json.loads(canonical(outcome["facts"]))  # as they are read again: keys in order
        commit = Commit(unit.name, marks[unit.name], outcome["files"], facts)
        ledger.publish(folder, unit.stage, commit, Path(given["folder"]))
        timing: dict[str, Any] = outcome["timing"] | {"input_bytes": unit.bytes}
        ledger.write_timing(folder, unit.stage, unit.name, timing)
        done[unit.name] = commit
        progress.add(unit)
    return done


class _Progress:
    """Lines such as ``read: 12 of 48 units, 31.2 MB/s, 4 min left``."""

    def __init__(self, units: Sequence[Unit], before: int, say: Say) -> None:
        self.stage, self.say = units[0].stage, say
        self.all, self.before, self.done = len(units) + before, before, 0
        self.bytes, self.all_bytes = 0, sum(unit.bytes for unit in units)
        self.started = self.spoken = time.monotonic()

    def add(self, unit: Unit) -> None:
        """Count a unit, and speak when it is time to or all is done."""
        self.done += 1
        self.bytes += unit.bytes
        now = time.monotonic()
        last = self.done + self.before == self.all
        if not last and now - self.spoken < SAY_EVERY:
            return
        self.spoken = now
        took = max(now - self.started, 1e-9)
        line = f"{self.stage}: {self.done + self.before} of {self.all} units"
        if self.bytes:
            line += f", {self.bytes / took / 1e6:,.1f} MB/s"
        if last:
            self.say(f"{line}, {_span(took)}")
            return
        share = (
            self.bytes / self.all_bytes if self.all_bytes else self.done / (self.all - self.before)
        )
        self.say(f"{line}, {_span(took * (1 - share) / max(share, 1e-9))} left")


def _span(seconds: float) -> str:
    """A duration for people: 8 s, 4 min, 2.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
