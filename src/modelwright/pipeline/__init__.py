"""The pipeline: the stages of a recipe in their order, each skipped when nothing changed."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

from modelwright.errors import Interrupted, MachineError
from modelwright.pipeline.fit import fit
from modelwright.pipeline.measure import evaluate, summary_lines
from modelwright.pipeline.prepare import Say, prepare
from modelwright.recipe import Recipe
from modelwright.reporting.report import write_report
from modelwright.run import Run

__all__ = ["STAGES", "evaluate", "run_stages", "stages_of", "summary_lines"]

STAGES = ("prepare", "train", "tune", "evaluate", "report")


def stages_of(recipe: Recipe) -> list[str]:
    """The stages that a recipe has, in order."""
    return [s for s in STAGES if s != "tune" or recipe.tune is not None]


def run_stages(run: Run, stages: Sequence[str], say: Say) -> None:
    """Do the stages, the earlier ones they need first; a report closes each training.

    Raises:
        Interrupted: on Ctrl-C; the message says how to go on.
    """
    work: dict[str, Callable[[], object]] = {
        "prepare": lambda: prepare(run, say),
        "train": lambda: fit(run, "train", say),
        "tune": lambda: fit(run, "tune", say),
        "evaluate": lambda: evaluate(run, say),
        "report": lambda: write_report(run.path),
    }
    with run.locked():
        for name in stages:
            again = f"what was finished is kept, continue with `modelwright run {run.path}`"
            try:
                work[name]()
            except KeyboardInterrupt:
                raise Interrupted(f"{name}: stopped; {again}") from None
            except BrokenPipeError:
                raise
            except OSError as error:
                place = f"{error.filename}: " if error.filename else ""
                why = error.strerror or str(error)
                full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                remedy = "free some space" if full else "mend that"
                raise MachineError(f"{name}: {place}{why}; {remedy}; {again}") from error
    if "evaluate" in stages:
        for line in summary_lines(run.read_json("evaluation.json")):
            say(f"evaluate: {line}")
    if "report" in stages:
        say(f"report: {run.path / 'report.html'}")
