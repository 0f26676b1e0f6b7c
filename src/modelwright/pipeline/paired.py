"""Is one run better than another? Their graded answers to the same questions, compared in pairs."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelwright.errors import ModelwrightError
from modelwright.pipeline import graded, sliced
from modelwright.runs import Run
from modelwright.tasks import resampling
from modelwright.tasks.task import task_class


def compare(one: Run, other: Run) -> list[dict[str, Any]]:
    """For every part that both runs have graded: the difference of the mean grades.

    A part is the test part of a stage, or a file that both were measured on with ``--on``. Only
    questions that both were asked count; the same questions are drawn for both (paired bootstrap,
    Koehn 2004), those of one row together. Parts without such a question are passed over where
    another part has some.

    Returns:
        A mapping a part, stages first: ``stage`` (of a file "on-NAME"), ``measure``, ``better``,
        ``questions``, the means ``first`` and ``second``, ``difference`` with ``low`` and ``high``
        (95 %), and ``chance``, the two-sided p-value.

    Raises:
        ModelwrightError: no part was graded in both, or they share no question in any.
    """
    found, why = [], "no stage has graded answers in both; evaluate both first"
    for part in reversed(_parts(one, other)):
        lines = [graded.read(run, part) for run in (one, other)]
        (measure, better), theirs = (
            _measure(run, part, of) for run, of in zip((one, other), lines, strict=True)
        )
        if (measure, better) != theirs:
            why = (
                f"{part}: one is graded by {measure}, the other by {theirs[0]}; evaluate both anew"
            )
            continue
        sides = [{x["key"]: x["grade"] for x in of} for of in lines]
        shared = [key for key in sides[0] if key in sides[1]]
        if not shared:
            why = (
                f"{part}: no question was asked of both; evaluate both on one file with --on:"
                " modelwright evaluate RUN --on FILE"
            )
            continue
        pairs = np.array([[side[key] for side in sides] for key in shared], dtype=np.float64)
        rows = {x["key"]: x["row"] for x in lines[0] if "row" in x}  # drawn whole, as a game is
        of = np.array([rows[key] for key in shared]) if rows else None
        counts = [np.stack([pairs[:, i], np.ones(len(pairs))], axis=1) for i in range(2)]
        sums = [sliced.summed(count, of) for count in counts]
        difference = resampling.difference(sums[0], sums[1], resampling.ratio)
        first, second = pairs.mean(axis=0).tolist()
        found.append(
            {
                "stage": part,
                "measure": measure,
                "better": better,
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
        raise ModelwrightError(f"{one.path}, {other.path}: {why}")
    return found[::-1]


def _parts(one: Run, other: Run) -> list[str]:
    """What both have graded: the stages in their order, then files by name."""
    files = sorted(path.stem for path in (one.path / graded.FOLDER).glob(f"{graded.ON}*.jsonl"))
    return [
        part
        for part in (*one.recipe.stages, *files)
        if all((run.path / graded.FOLDER / f"{part}.jsonl").is_file() for run in (one, other))
    ]


def _measure(run: Run, part: str, lines: list[dict[str, Any]]) -> tuple[str, str]:
    """The name of the grades, and which are better: as written, or as the task of the stage has it.

    Lines of older runs do not say it; a file is asked of the last stage.
    """
    if lines and "measure" in lines[0]:
        return lines[0]["measure"], lines[0]["better"]
    stages = run.recipe.stages
    task = task_class(stages.get(part, next(reversed(stages.values()))).task)
    return task.measure, task.better


def lines(found: list[dict[str, Any]], one: Run, other: Run) -> list[str]:
    """The same for people: a line a part, which is named."""
    said = []
    for row in found:
        sure = row["low"] > 0 or row["high"] < 0
        ahead = (row["difference"] > 0) == (row["better"] == "higher")
        winner = (other if ahead else one).path.name
        verdict = f"{winner} is better" if sure else "no difference that chance could not make"
        part = row["stage"]
        file = part.removeprefix(graded.ON)
        where = f"file {file} (--on)" if part != file else f"{part}, test part"
        said.append(
            f"{where}: {row['measure']} {row['first']:.4f} and {row['second']:.4f} on"
            f" {row['questions']:,} questions that both answered; difference"
            f" {row['difference']:+.4f}, 95 % interval {row['low']:+.4f} to {row['high']:+.4f},"
            f" p = {row['chance']:.3f}: {verdict}"
        )
    return said
