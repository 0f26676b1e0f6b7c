"""The pipeline: the stages of a recipe in their order, each skipped when nothing changed."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

from modelwright.errors import Interrupted, MachineError
from modelwright.pipeline import launch
from modelwright.pipeline.fit import fit
from modelwright.pipeline.measure import UNMEASURED, evaluate, summary_lines
from modelwright.pipeline.prepare import Say, prepare
from modelwright.recipe import Recipe
from modelwright.reporting.report import write_report
from modelwright.runs import Run
from modelwright.training import signals
from modelwright.training.parallel import World

__all__ = ["STAGES", "evaluate", "run_stages", "stages_of", "summary_lines"]

STAGES = ("prepare", "train", "tune", "evaluate", "report")


def stages_of(recipe: Recipe) -> list[str]:
    """The stages that a recipe has, in order."""
    return [s for s in STAGES if s not in ("train", "tune") or s in recipe.stages]


def run_stages(run: Run, stages: Sequence[str], say: Say) -> None:
    """Do the stages, the earlier ones they need first; a report closes each training.

    Started by torchrun in several processes, all of them train, and the first does the rest.

    Raises:
        Interrupted: on Ctrl-C, SIGTERM or SIGUSR1; the message says how to go on.
    """
    world = launch.world()
    trainings = [name for name in stages if name in run.recipe.stages]
    if not world.is_main:
        _follow(run, trainings, world)
        return

    def train(name: str) -> None:
        launch.connect(run, world)
        fit(run, name, say, world)
        if name == trainings[-1]:
            world.close()

    work: dict[str, Callable[[], object]] = {
        "prepare": lambda: prepare(run, say),
        "train": lambda: train("train"),
        "tune": lambda: train("tune"),
        "evaluate": lambda: evaluate(run, say),
        "report": lambda: write_report(run.path),
    }
    with run.locked():
        for name in stages:
            again = f"what was finished is kept, continue with `modelwright run {run.path}`"
            try:
                signals.check()
                work[name]()
            except KeyboardInterrupt as stop:
                raise Interrupted(f"{name}: stopped; {again}", signals.exit_code(stop)) from None
            except BrokenPipeError:
                raise
            except OSError as error:
                place = f"{error.filename}: " if error.filename else ""
                why = error.strerror or str(error)
                full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                remedy = "free some space" if full else "mend that"
                raise MachineError(f"{name}: {place}{why}; {remedy}; {again}") from error
    if "evaluate" in stages:
        result = run.read_json("evaluation.json")
        measured = summary_lines(result) if result["measures"] else [UNMEASURED]
        for line in measured:
            say(f"evaluate: {line}")
    if "report" in stages:
        say(f"report: {run.path / 'report.html'}")


def _follow(run: Run, trainings: Sequence[str], world: World) -> None:
    """The share of the other processes: only to train."""
    if not trainings:
        return
    try:
        launch.connect(run, world)
        for name in trainings:
            fit(run, name, launch.silent, world)
    except KeyboardInterrupt as stop:
        raise Interrupted("stopped", signals.exit_code(stop)) from None
    world.close()
