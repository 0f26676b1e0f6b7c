"""Is one run better than another? Their graded answers to the same questions, compared in pairs."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelwright.errors import ModelwrightError
from modelwright.pipeline import graded
from modelwright.runs import Run
from modelwright.tasks import resampling
from modelwright.tasks.task import task_class


def compare(one: Run, other: Run) -> list[dict[str, Any]]:
    """For every stage that both runs have graded: the difference of the mean grades.

    Only questions that both were asked count; the same questions are drawn for both (paired
    bootstrap, Koehn 2004).

    Returns:
        A mapping a stage: ``stage``, ``measure``, ``better``, ``questions``, the means ``first``
        and ``second``, ``difference`` with ``low`` and ``high`` (95 %), and ``chance``, the
        two-sided p-value.

    Raises:
        ModelwrightError: no stage was graded in both, or they share no question.
    """
    found = []
    for stage, of in one.recipe.stages.items():
        if not all((run.path / graded.FOLDER / f"{stage}.jsonl").is_file() for run in (one, other)):
            continue
        sides = [{x["key"]: x["grade"] for x in graded.read(run, stage)} for run in (one, other)]
        shared = [key for key in sides[0] if key in sides[1]]
        if not shared:
            raise ModelwrightError(
                f"{one.path}, {other.path}: {stage}: no question was asked of both; evaluate both"
                " on one file with --on"
            )
        pairs = np.array([[side[key] for side in sides] for key in shared], dtype=np.float64)
        counts = [np.stack([pairs[:, i], np.ones(len(pairs))], axis=1) for i in range(2)]
        difference = resampling.difference(counts[0], counts[1], resampling.ratio)
        task = task_class(of.task)
        first, second = pairs.mean(axis=0).tolist()
        found.append(
            {
                "stage": stage,
                "measure": task.measure,
                "better": task.better,
                "questions": len(shared),
                "first": first,
                "second": second,
                "difference": difference.value,
                "low": difference.low,
                "high": difference.high,
                "chance": difference.chance,
            }
        )
    if not found:
        raise ModelwrightError(
            f"{one.path}, {other.path}: no stage has graded answers in both; evaluate both first"
        )
    return found


def lines(found: list[dict[str, Any]], one: Run, other: Run) -> list[str]:
    """The same for people: a line a stage."""
    said = []
    for row in found:
        sure = row["low"] > 0 or row["high"] < 0
        ahead = (row["difference"] > 0) == (row["better"] == "higher")
        winner = (other if ahead else one).path.name
        verdict = f"{winner} is better" if sure else "no difference that chance could not make"
        said.append(
            f"{row['stage']}: {row['measure']} {row['first']:.4f} and {row['second']:.4f} on"
            f" {row['questions']:,} questions that both answered; difference"
            f" {row['difference']:+.4f}, 95 % interval {row['low']:+.4f} to {row['high']:+.4f},"
            f" p = {row['chance']:.3f}: {verdict}"
        )
    return said
