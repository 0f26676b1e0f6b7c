"""What is measured of models of text: the likelihood of documents, or graded answers.

Documents are measured in bits per byte beside gzip and a 5-gram model, written answers in the
task's grade beside the base model and the nearest training answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np

from modelwright import runtime
from modelwright.data.shards import open_shard
from modelwright.evaluation.baselines import NearestAnswer, NGram, gzip_bits_per_byte
from modelwright.evaluation.metrics import Mean
from modelwright.pipeline import graded
from modelwright.pipeline.fitted import BATCH, Fitted, mean_loss
from modelwright.pipeline.predicted import SHOWN, asked, examples_of, stored, together
from modelwright.pipeline.prepare import Say
from modelwright.pipeline.published import load_base
from modelwright.recipe import Evaluation
from modelwright.runs import Run
from modelwright.serving.engine import Engine
from modelwright.serving.sampling import SamplingParams
from modelwright.tasks.task import Task
from modelwright.training.examples import windows_once
from modelwright.types import Columns, Example, Turn, rows_in, text_turn

NGRAM_BYTES = 32 << 20  # the n-gram model reads no more than this of the train split


def likelihood(run: Run, name: str, fitted: Fitted, result: dict[str, Any], say: Say) -> None:
    """Bits per byte of held-out documents."""
    context = cast(Any, fitted.config).context
    train = _documents(fitted, open_shard(run.path / "data" / name / "train"))
    grams = None
    for part in ("validation", "test"):
        if not (run.path / "data" / name / part).exists():
            continue
        say(f"evaluate: {name}: bits per byte of {part}")
        columns = open_shard(run.path / "data" / name / part)
        total, _, spelled = mean_loss(fitted, windows_once(columns, BATCH, context))
        rows = [{"who": "ours", "value": total / spelled / math.log(2)}]
        if run.recipe.evaluate.baselines:
            grams = grams or NGram(order=5).fit(_some(train, NGRAM_BYTES))
            documents = list(_documents(fitted, columns))
            rows += [
                {"who": "gzip -9", "value": gzip_bits_per_byte(b"".join(documents))},
                {"who": "5-gram, smoothed", "value": grams.bits_per_byte(documents)},
            ]
        result["measures"].append(
            {
                "name": f"{part} bits per byte",
                "unit": "bits/byte",
                "better": "lower",
                "rows": rows,
                "note": f"{spelled:,} bytes of held-out {fitted.task.__class__.__name__.lower()}; "
                "gzip and the byte 5-gram (interpolated Kneser-Ney, fitted on the same train "
                "split) read the same bytes; ours pays for document ends as well",
            }
        )


def _documents(fitted: Fitted, columns: Columns) -> Iterator[bytes]:
    tokens = columns["tokens"]
    spell = cast(Any, fitted.codec).spell
    return (spell(tokens[i].tolist()) for i in range(rows_in(columns)))


def _some(documents: Iterator[bytes], limit: int) -> Iterator[bytes]:
    for document in documents:
        if limit <= 0:
            return
        yield document
        limit -= len(document)


# Answers ------------------------------------------------------------------------------------


def answers(run: Run, name: str, fitted: Fitted, result: dict[str, Any], say: Say) -> None:
    """The task's measures of the likeliest answers to held-out questions."""
    settings = run.recipe.evaluate
    task = fitted.task
    columns = open_shard(run.path / "data" / name / "test")
    rng = np.random.default_rng(runtime.derived_seed(run.recipe.seed, "questions"))
    order = rng.permutation(rows_in(columns))[: settings.questions]
    examples = examples_of(fitted.codec, columns, np.sort(order).tolist())
    say(f"evaluate: {name}: answering {len(examples)} held-out questions")
    said = {"ours": _generate(fitted, examples, settings)}
    if settings.baselines:
        if name == "tune":
            say("evaluate: the base model answers them too")
            base = load_base(run, fitted)
            said["base model"] = _generate(base, examples, settings)
        train = stored(run, name, "train", fitted)
        nearest = NearestAnswer().fit([asked(e) for e in train], [e.answer.text for e in train])
        said["nearest training answer"] = [nearest.answer(asked(e)) for e in examples]
        if type(task).baselines is not Task.baselines:
            for who, policy in task.baselines(train).items():
                said[who] = [turn.text for turn in policy.answer([e.given for e in examples])]
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


def _generate(fitted: Fitted, examples: Sequence[Example], settings: Evaluation) -> list[str]:
    """The likeliest answers; a question that the context cannot hold has none, and counts so."""
    engine = Engine(fitted.model, fitted.codec, max_batch=64)
    fits = [engine.room(len(engine.prompt(e.given))) > 0 for e in examples]
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
