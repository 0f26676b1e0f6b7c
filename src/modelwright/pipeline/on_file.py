"""A trained run measured on a file of the user's own: ``modelwright evaluate RUN --on FILE``."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from modelwright.data.sources import read_rows
from modelwright.errors import ModelwrightError
from modelwright.pipeline import graded
from modelwright.pipeline.answering import answerer_of
from modelwright.pipeline.fitted import load_fitted, newest_checkpoint
from modelwright.pipeline.predicted import Known, together
from modelwright.pipeline.prepare import Say, renamed
from modelwright.runs import Run
from modelwright.tasks.task import Task
from modelwright.types import Example, Shortened

MOST = 100_000  # rows of a file


def evaluate_on(run: Run, source: str, say: Say, stage: str | None = None) -> dict[str, Any]:
    """Measure the newest model of a run on the rows of a file, with slices and the worst answers.

    The run's evaluation and its graded answers stay as they are; those of the file are written to
    ``graded/FILE.jsonl`` by its name.

    Args:
        run: trained.
        source: a file of rows as those of the recipe, or a data set.
        say: told what is left out.
        stage: "train" or "tune"; left out: the last that was trained.

    Raises:
        ModelwrightError: no row gives an example, the task grades no single answers, or a row has
            something that training has never seen, such as a class.
    """
    fitted = load_fitted(newest_checkpoint(run, stage))
    task = fitted.task
    if type(task).grade is Task.grade:
        raise ModelwrightError(
            f"{run.path}: its task grades no single answers, so it cannot be measured on a file;"
            " `modelwright evaluate` measures it on its own test part"
        )
    examples, left_out = _examples(run, task, source)
    for reason, count in left_out.items():
        say(f"evaluate: {count:,} rows of {source} left out, {reason}")
    if not examples:
        raise ModelwrightError(
            f"{source}: no row gives an example for the run's task; its columns must be those of"
            " the recipe"
        )
    cut = 0
    for number, example in enumerate(examples, start=1):
        try:
            # A class that train lacks is refused by name.
            cut += isinstance(fitted.codec.encode(example), Shortened)
        except ModelwrightError as error:
            raise ModelwrightError(f"{source}: example {number}: {error}") from error
    if cut:
        say(f"evaluate: {cut:,} of {source} are longer than the codec reads, and were cut")
    say(f"evaluate: {len(examples):,} answers on {source}")
    settings = run.recipe.evaluate
    params = {
        "max_tokens": settings.answer_tokens,
        "beams": settings.beams,
        "length_penalty": settings.length_penalty,
    }
    turns = answerer_of(fitted).answer([example.given for example in examples], **params)
    result: dict[str, Any] = {"on": source, "measures": [], "examples": []}
    for measure in together(task, examples, {"ours": Known(turns)}):
        result["measures"].append({**measure, "name": measure["name"].removeprefix("test ")})
    graded.keep(run, _name(source), task, list(zip(examples, turns, strict=True)), result)
    return result


def _examples(run: Run, task: Task, source: str) -> tuple[list[Example], dict[str, int]]:
    """The examples of a file's rows, and how many rows gave none, by reason."""
    examples: list[Example] = []
    left_out: dict[str, int] = {}
    for row in islice(read_rows(source), MOST):
        found = task.examples(renamed(row, run.recipe.data.columns))
        if isinstance(found, str):
            left_out[found] = left_out.get(found, 0) + 1
        else:
            examples.extend(found)
    return examples, left_out


def _name(source: str) -> str:
    stem = Path(source).name.partition(".")[0]
    return "on-" + "".join(c if c.isalnum() or c in "-_" else "-" for c in stem)[:60]
