"""A run on several processes: the first one decides and writes, the others follow.

Under torchrun the same command runs in every process. The first opens the run, prepares, derives,
logs, samples, evaluates and reports, as a process on its own would; the others are told where the
run lies and with which values to train, and do nothing but their share of the steps.
"""

from __future__ import annotations

import functools
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from modelwright import extensions
from modelwright.errors import MachineError, ModelwrightError
from modelwright.pipeline.patience import Patience
from modelwright.pipeline.watch import StageObserver
from modelwright.runs import Run
from modelwright.training.observe.means import Means
from modelwright.training.parallel import World

THREADS = "OMP_NUM_THREADS"


@functools.cache
def world() -> World:
    """The processes that this one was started with; joined once."""
    return World.join()


def is_main() -> bool:
    """Whether this process speaks, without joining the others."""
    return os.environ.get("RANK", "0") == "0"


class FollowedRun(Run):
    """A run that the first process writes: nothing is written from here."""

    def save_manifest(self) -> None:
        """Leave the manifest to the first process."""

    def write_json(self, name: str, value: Any) -> Path:  # noqa: ARG002
        """Leave the file to the first process."""
        return self.path / name


def silent(line: str) -> None:
    """Say nothing: the first process speaks for all."""
    del line


def opened(make: Callable[[], Run]) -> Run:
    """The run that ``make`` gives in the first process, followed by the others.

    Raises:
        SystemExit: in the others, when the first one could not; it has said why.
    """
    here = world()
    if here.alone:
        return make()
    if here.is_main:
        try:
            run = make()
        except ModelwrightError as error:
            here.told(json.dumps({"code": error.exit_code}))
            raise
        code = extensions.references(run.recipe.model_dump())
        here.told(json.dumps({"path": str(run.path.absolute()), "extensions": code}))
        return run
    said = json.loads(here.told(None))
    if "code" in said:
        sys.exit(said["code"])
    extensions.trust_copies(said["extensions"], Path(said["path"]))
    return followed(Path(said["path"]))


def followed(path: Path) -> FollowedRun:
    """A run as its files say it now, to follow."""
    run = Run.open(path)
    return FollowedRun(run.path, run.recipe, run.manifest)


def connect(run: Run, here: World) -> None:
    """Make the groups that the recipe asks for, unless there is one process only."""
    p = run.recipe.parallel
    if not here.alone:
        here.connect(shard=p.shard, tensor=p.tensor, timeout=p.timeout, context=p.context)


class Follower(StageObserver):
    """The observer of the other processes: takes part in what needs all, and writes nothing."""

    def __enter__(self) -> Self:
        self.log = self.progress = self.profiler = _Nothing()  # type: ignore[assignment]
        self.validated, self.started = "", time.perf_counter()
        zero = dict.fromkeys(("computed", "items", "busy_seconds", "epoch_loss", "epoch_items"), 0)
        self.totals = {**zero, "flops": 0.0, **self.totals}
        self.means, self.cost = Means(self.values.get("log_every", 1), self.totals), (0, 0, 0.0)
        self.saved, self.began = self.first, 0.0
        self.patience = Patience(self.values.get("patience") or 0)
        self.checks = [0.0] * int(self.trainer.world.sum(0)[0])  # as many as the first one has
        return self

    def went_back(self, step: int, to: int) -> None:  # noqa: ARG002
        """What was saved after ``to`` is saved again."""
        self.saved = to

    def _due(self) -> tuple[bool, bool]:
        return False, False

    def _better_steps(self, step: int) -> int:  # noqa: ARG002
        return 0


class _Nothing:
    """In place of what writes or shows."""

    offset = 0.0
    total = 0

    def write(self, *_: object) -> None: ...

    def update(self, *_: object) -> None: ...

    def after_step(self, *_: object) -> None: ...

    def close(self, *_: object) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def launch(launcher: str, arguments: Sequence[str], say: Callable[[str], None]) -> None:
    """Become the launcher's process, which runs this command in many; does not return.

    ``launcher`` is a command line such as "torchrun --nproc-per-node 4"; no shell reads it. What
    is said is the line that runs. torchrun gives every process one thread where OMP_NUM_THREADS
    says nothing; here each gets its share of the processors.

    Raises:
        ModelwrightError: it is not a command line, or no such program is there.
    """
    advice = 'write --launch "torchrun --nproc-per-node 4"'
    try:
        words = shlex.split(launcher)
    except ValueError as error:
        raise ModelwrightError(f"--launch {launcher}: {error}; {advice}") from None
    if not words:
        raise ModelwrightError(f"--launch: is empty; {advice}")
    program, *options = words
    beside = Path(sys.executable).parent  # the torchrun of this very Python, where there is one
    found = shutil.which(program, path=str(beside)) or shutil.which(program)
    if found is None:
        raise MachineError(f"--launch {launcher}: no program {program!r} here; install it")
    line = [found, *options, "-m", "modelwright", *arguments]
    share = {}
    if (processes := _processes(options)) and THREADS not in os.environ:
        share[THREADS] = str(max(1, len(os.sched_getaffinity(0)) // processes))
    os.environ.update(share)
    say(" ".join((*(f"{name}={value}" for name, value in share.items()), shlex.join(line))))
    sys.stdout.flush()
    os.execv(found, line)  # noqa: S606 - no shell is meant; signals reach the launcher itself


def _processes(options: Sequence[str]) -> int:
    """How many processes a launcher's options ask for here; 0 where they give no number."""
    joined = " ".join(options).replace("_", "-").replace("=", " ").split()
    after = (joined[i + 1] for i, word in enumerate(joined[:-1]) if word == "--nproc-per-node")
    return next((int(word) for word in after if word.isdecimal()), 0)
