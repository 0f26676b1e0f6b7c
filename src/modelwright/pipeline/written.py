"""Written answers, graded in the task's measure beside the base model and the nearest answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from modelwright import runtime
from modelwright.data.shards import open_shard
from modelwright.evaluation.baselines import NearestAnswer
from modelwright.evaluation.metrics import Mean
from modelwright.pipeline import graded
from modelwright.pipeline.fitted import BATCH, Fitted, mean_loss
from modelwright.pipeline.predicted import SHOWN, asked, examples_of, together
from modelwright.pipeline.prepare import Say
from modelwright.pipeline.published import load_base
from modelwright.recipe import Evaluation
from modelwright.runs import Run
from modelwright.serving.engine import Engine
from modelwright.serving.sampling import SamplingParams
from modelwright.tasks.task import Task
from modelwright.training.examples import once
from modelwright.types import (
    Array,
    Columns,
    Example,
    Ragged,
    Turn,
    ragged_column,
    rows_in,
    take,
    text_turn,
)


def answers(run: Run, name: str, fitted: Fitted, result: dict[str, Any], say: Say) -> None:
    """The task's measures of the likeliest answers to held-out questions."""
    settings = run.recipe.evaluate
    task = fitted.task
    columns = open_shard(run.path / "data" / name / "test")
    rng = np.random.default_rng(runtime.derived_seed(run.recipe.seed, "questions"))
    order = rng.permutation(_answered(columns))[: settings.questions]
    examples = examples_of(fitted.codec, columns, np.sort(order).tolist())
    say(f"evaluate: {name}: answering {len(examples)} held-out questions")
    said = {"ours": generate(fitted, examples, settings, say)}
    whose = {"ours": fitted}
    if settings.baselines:
        if name == "tune":
            say("evaluate: the base model answers them too")
            base = whose["base model"] = load_base(run, fitted)
            said["base model"] = generate(base, examples, settings, say)
        known = open_shard(run.path / "data" / name / "train")
        train = examples_of(fitted.codec, known, _answered(known).tolist())
        nearest = NearestAnswer().fit([asked(e) for e in train], [e.answer.text for e in train])
        said["nearest training answer"] = [nearest.answer(asked(e)) for e in examples]
        if type(task).baselines is not Task.baselines:
            for who, policy in task.baselines(train).items():
                said[who] = [turn.text for turn in policy.answer([e.given for e in examples])]
    if task.responses:
        result["measures"] += _responses(columns, whose)
    result["measures"] += _together(task, examples, said)
    grades = {
        who: [task.grade(*pair) for pair in zip(examples, _Said(texts).turns, strict=True)]
        for who, texts in said.items()
    }
    graded.keep(
        run, name, task, list(zip(examples, _Said(said["ours"]).turns, strict=True)), result
    )
    kinds = sorted({task.kind(e) for e in examples})
    for kind in ["", *[k for k in kinds if k]]:
        chosen = [i for i, e in enumerate(examples) if not kind or task.kind(e) == kind]
        result["measures"].append(_graded(task, kind, chosen, grades))
    for i in _spread(len(examples), SHOWN):
        result["examples"].append(
            {
                "question": asked(examples[i]),
                "reference": examples[i].answer.text,
                "answer": said["ours"][i],
                "baselines": {who: said[who][i] for who in said if who != "ours"},
                "score": round(grades["ours"][i], 3),
            }
        )
    result["examples_note"] = f"every {max(1, len(examples) // SHOWN)}th of the graded questions"


def _answered(columns: Columns) -> Array:
    """The rows that have an answer to compare with: single bad answers have none."""
    learn = columns.get("learn")
    if not isinstance(learn, Ragged):
        return np.arange(rows_in(columns))
    return np.flatnonzero([np.asarray(learn[row]).any() for row in range(len(learn))])


def _graded(
    task: Task, kind: str, chosen: list[int], grades: dict[str, list[float]]
) -> dict[str, Any]:
    rows, said = [], []
    for who, values in grades.items():
        mean = Mean(values[i] for i in chosen)
        rows.append({"who": who, "value": mean.value})
        if (interval := mean.interval) is not None:
            said.append(f"{who} {interval[0]:.3f} to {interval[1]:.3f}")
    which = f'"{kind} ..."' if kind else "all kinds"
    return {
        "name": f"{task.measure} of answers" + (f": {which}" if kind else ""),
        "unit": task.measure,
        "better": task.better,
        "rows": rows,
        "note": f"{len(chosen)} held-out questions, {which}; 95 % intervals: {'; '.join(said)}",
    }


def _responses(columns: Columns, whose: dict[str, Fitted]) -> list[dict[str, Any]]:
    """What the meant answers cost: nats a learned token, and bits a byte of theirs."""
    lengths = ragged_column(columns, "tokens").lengths
    # Of several models the same answers, those that the smallest context holds.
    context = min(cast(Any, fitted.config).context for fitted in whose.values())
    fits = np.flatnonzero(lengths <= context + 1)
    if len(fits) == 0:
        return []
    chosen = take(columns, fits)
    found = {who: mean_loss(fitted, once(chosen, BATCH)) for who, fitted in whose.items()}
    costs = {
        "response loss": ("nats/token", {who: of[0] / of[1] for who, of in found.items()}),
        "response bits per byte": (
            "bits/byte",
            {who: of[0] / of[2] / math.log(2) for who, of in found.items()},
        ),
    }
    return [
        {
            "name": f"test {measure}",
            "unit": unit,
            "better": "lower",
            "rows": [{"who": who, "value": value} for who, value in values.items()],
            "note": f"{len(fits):,} of {len(lengths):,} held-out conversations, those that fit",
        }
        for measure, (unit, values) in costs.items()
    ]


class _Said:
    """A policy whose answers are known already."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.turns = [text_turn("assistant", text) for text in texts]

    def answer(self, given: Sequence[Sequence[Turn]]) -> list[Turn]:  # noqa: ARG002
        return self.turns


def _together(
    task: Task, examples: Sequence[Example], said: dict[str, list[str]]
) -> list[dict[str, Any]]:
    """The measures that the task takes of all answers together, where it has some of its own."""
    if type(task).measures is Task.measures:
        return []
    return together(task, examples, {who: _Said(texts) for who, texts in said.items()})


def generate(
    fitted: Fitted, examples: Sequence[Example], settings: Evaluation, say: Say
) -> list[str]:
    """The likeliest answers; a question that the context cannot hold has none, and counts so.

    How many are too long is said: the grade is of the model with its context, not of answers.
    """
    engine = Engine(fitted.model, fitted.codec, max_batch=64)
    fits = [engine.room(len(engine.prompt(e.given))) > 0 for e in examples]
    if not all(fits):
        say(
            f"evaluate: {fits.count(False):,} of {len(fits):,} questions are longer than the"
            f" context of {engine.context:,} tokens, and count as empty answers"
        )
    given = [e.given for e, fit in zip(examples, fits, strict=True) if fit]
    params = SamplingParams(
        max_tokens=settings.answer_tokens,
        beams=settings.beams,
        length_penalty=settings.length_penalty,
    )
    answers = iter(engine.answer(given, params))
    return [next(answers).text if fit else "" for fit in fits]


def _spread(total: int, wanted: int) -> list[int]:
    return list(range(0, total, max(1, total // wanted)))[:wanted]
