"""What is measured of answers that one pass gives, as the task measures them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from modelwright.data.shards import open_shard
from modelwright.evaluation.bag_of_words import OneAgainstRest
from modelwright.pipeline import graded, heard, relayed, samples
from modelwright.pipeline.asked import in_words, key_of
from modelwright.pipeline.drawn_labels import hardest
from modelwright.pipeline.fitted import Fitted
from modelwright.pipeline.prepare import Say
from modelwright.runs import Run
from modelwright.serving.predictor import Predictor
from modelwright.tasks.task import Task
from modelwright.types import Codec, Columns, Example, Label, Policy, Turn, rows_in

SHOWN = 12  # example answers kept for the report


class Known:
    """A policy whose answers are known already, to be measured."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self.turns = list(turns)

    def answer(self, given: Sequence[Sequence[Turn]]) -> list[Turn]:  # noqa: ARG002
        """The answers, as they were."""
        return self.turns


def predicted(run: Run, name: str, fitted: Fitted, result: dict[str, Any], say: Say) -> None:
    """The task's measures of the model on the test part, beside answers that need no model."""
    task, examples = fitted.task, stored(run, name, "test", fitted)
    said: dict[str, Policy] = {"ours": Predictor(fitted.model, fitted.codec, fitted.objective)}
    train = stored(run, name, "train", fitted)
    said |= relayed.beside(task, train)
    if run.recipe.evaluate.baselines:
        said |= task.baselines(train)
        said |= _linear(fitted.codec, train)
    say(f"evaluate: {name}: {len(examples):,} answers of test, by {', '.join(said)}")
    turns = said["ours"].answer([example.given for example in examples])
    ours = said["ours"] if task.asks or task.times else Known(turns)
    result["measures"] += together(task, examples, {**said, "ours": ours})
    of_run: dict[str, Any] = {"examples": _shown(examples, said)}
    graded.keep(run, name, task, list(zip(examples, turns, strict=True)), of_run)
    shown = [*of_run["examples"], *of_run.get("worst", ())]
    heard.beside(run, task, examples, shown)
    for part, found in of_run.items():
        result.setdefault(part, []).extend(found)
    boxed = "boxes" in fitted.codec.ragged
    if boxed and (run.path / "data" / name / "validation").exists():
        _hardest(run, name, fitted, said["ours"], say)


def _linear(codec: Codec, train: Sequence[Example]) -> Mapping[str, Policy]:
    """The linear model of words, where any number of labels holds for a text."""
    several = "chosen" in codec.encode(train[0]) if train else False
    return {"linear, bag of words": Several(train)} if several else {}


class Several:
    """A policy that names labels by the words of a text, each label one against the rest."""

    def __init__(self, train: Sequence[Example]) -> None:
        texts, labels = [asked(e) for e in train], [e.answer.labels for e in train]
        self.words = OneAgainstRest().fit_several(texts, labels)

    def answer(self, given: Sequence[Sequence[Turn]]) -> list[Turn]:
        """The labels of each text."""
        found = self.words.predict_several([asked(Example(tuple(turns))) for turns in given])
        return [Turn("assistant", tuple(map(Label, labels))) for labels in found]


def _hardest(run: Run, name: str, fitted: Fitted, policy: Policy, say: Say) -> None:
    """Draw the validation pictures that are answered worst, for the test part chooses nothing."""
    examples = stored(run, name, "validation", fitted)
    answers = policy.answer([example.given for example in examples])
    grades = [fitted.task.grade(e, a) for e, a in zip(examples, answers, strict=True)]
    said = f"{name}: the hardest pictures of validation: what is meant, and beside it what is said"
    record = {"step": fitted.step, "prompt": said, "image": f"hardest-{name}.png"}
    sheet = hardest(examples, answers, grades, cast(Any, fitted.codec).labels)
    path = samples.keep_picture(run, f"evaluate-{name}", record, sheet)
    say(f"evaluate: {name}: {path}: the hardest pictures of validation, meant beside said")


def stored(run: Run, name: str, part: str, fitted: Fitted) -> list[Example]:
    """The examples of a part, as the codec reads them back."""
    return examples_of(fitted.codec, open_shard(run.path / "data" / name / part))


def examples_of(codec: Codec, columns: Columns, rows: Iterable[int] | None = None) -> list[Example]:
    """The examples of some rows of columns, of all of them when ``rows`` is left out."""
    chosen = range(rows_in(columns)) if rows is None else rows
    return [codec.example({k: np.asarray(c[i]) for k, c in columns.items()}) for i in chosen]


def asked(example: Example) -> str:
    """The text of what is asked."""
    return "\n".join(turn.text for turn in example.given)


def together(
    task: Task, examples: Sequence[Example], said: Mapping[str, Policy]
) -> list[dict[str, Any]]:
    """What the task measures of every policy's answers, side by side, "ours" among them."""
    found = {who: task.measures(examples, policy) for who, policy in said.items()}
    return [
        {
            "name": f"test {measured.name}",
            "unit": measured.name,
            "better": measured.better,
            "rows": [{"who": who, "value": of[number].value} for who, of in found.items()],
            "note": f"{len(examples):,} held-out examples"
            + (f"; of ours: {measured.note}" if measured.note else ""),
        }
        for number, measured in enumerate(found["ours"])
    ]


def _shown(examples: Sequence[Example], said: Mapping[str, Policy]) -> list[dict[str, Any]]:
    """Some questions that can be read, with what is said to them."""
    few = [e for e in examples if in_words(e.given).strip()]
    few = few[:: max(1, len(few) // SHOWN)][:SHOWN]
    if not few:
        return []
    answers = {who: policy.answer([e.given for e in few]) for who, policy in said.items()}
    return [
        {
            "key": key_of(example.given),
            "question": in_words(example.given),
            "reference": example.answer.said,
            "answer": answers["ours"][i].said,
            "baselines": {who: of[i].said for who, of in answers.items() if who != "ours"},
            "score": None,
        }
        for i, example in enumerate(few)
    ]
