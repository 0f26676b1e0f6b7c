"""Stage evaluate: the trained model beside trivial answers, on data it never saw.

What is measured follows from how the model answers: see ``Answerer.measure``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch

from modelwright import runtime
from modelwright.errors import ModelwrightError
from modelwright.pipeline.answering import answerer_of
from modelwright.pipeline.fitted import load_fitted, newest_checkpoint
from modelwright.pipeline.prepare import Say
from modelwright.runs import Run, fingerprint
from modelwright.tasks.task import make_task

UNMEASURED = (
    "nothing was measured: the test part is empty; give data.split.test a share or the data more"
    " rows, or measure rows of another file with `modelwright evaluate RUN --on FILE`"
)


def evaluate(run: Run, say: Say, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Measure every trained stage of the run, write evaluation.json and return it.

    Args:
        run: trained.
        say: told of the progress.
        options: of its tasks, in place of those of the recipe while it is measured: nothing is
            trained anew.
    """
    points = {n: newest_checkpoint(run, n) for n in run.recipe.stages if _trained(run, n)}
    if not points:
        newest_checkpoint(run)  # says what to do
    mark = fingerprint([str(p.name) for p in points.values()], run.recipe.evaluate.model_dump())
    mark = fingerprint(mark, [run.stage(n).get("fingerprint") for n in points])
    tasks = {}
    if options:
        mark = fingerprint(mark, options)
        for name in points:  # what is wrong with them is said before anything is done
            stage = run.recipe.stages[name]
            tasks[name] = make_task(stage.task, {**stage.options, **options})
    if run.is_done("evaluate", mark) and (kept := run.read_json("evaluation.json")):
        say("evaluate: nothing changed, kept")
        return cast(dict[str, Any], kept)
    torch.set_num_threads(runtime.cores())
    result: dict[str, Any] = {"measures": [], "examples": []}
    with run.working("evaluate", mark):
        for name, point in points.items():
            fitted = load_fitted(point)
            fitted.task = tasks.get(name, fitted.task)
            if (run.path / "data" / name / "test").exists():
                answerer_of(fitted).measure(run, name, fitted, result, say)
        run.write_json("evaluation.json", result)
    return result


def _trained(run: Run, name: str) -> bool:
    return any((run.path / "checkpoints" / name).glob("step-*/COMPLETE"))


def summary_lines(result: dict[str, Any]) -> list[str]:
    """Every measure on a line: ours first, the trivial answers after it."""
    if not result.get("measures"):
        raise ModelwrightError(f"evaluation: {UNMEASURED}")
    lines = []
    for measure in result["measures"]:
        rows = "   ".join(f"{row['who']} {row['value']:.3f}" for row in measure["rows"])
        lines.append(f"{measure['name']} ({measure['better']} is better):   {rows}")
    return lines
