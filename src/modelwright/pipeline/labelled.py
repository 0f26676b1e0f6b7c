"""What is measured of labels: accuracy beside the majority and a linear model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from modelwright.data.augment.sizes import averaged
from modelwright.data.shards import open_shard
from modelwright.evaluation import calibration
from modelwright.evaluation.bag_of_words import BagOfWords, in_common
from modelwright.evaluation.baselines import LinearProbe, Majority, bag_of_frames
from modelwright.evaluation.metrics import Accuracy, MacroF1
from modelwright.evaluation.per_class import ClassScore, per_class
from modelwright.pipeline import graded
from modelwright.pipeline.fitted import Fitted
from modelwright.pipeline.predicted import asked, examples_of
from modelwright.pipeline.prepare import Say
from modelwright.pipeline.viewed import mean_of_views
from modelwright.runs import Run
from modelwright.serving.predictor import AT_ONCE, Predictor
from modelwright.training.examples import once
from modelwright.types import Array, Codec, Columns, Label, Ragged, Turn

THUMBNAIL = 32  # pixels a side that the linear model reads of larger pictures


def accuracy(run: Run, name: str, fitted: Fitted, result: dict[str, Any], say: Say) -> None:
    """Accuracy on the test split, beside the majority and a linear model of simple features."""
    say(f"evaluate: {name}: accuracy of test")
    columns = open_shard(run.path / "data" / name / "test")
    reference = names(fitted.codec, columns)
    predictor = Predictor(fitted.model, fitted.codec, fitted.objective)
    answers, weights = weighed(predictor, columns)
    said = {"ours": answers}
    if views := run.recipe.evaluate.views:
        say(f"evaluate: {name}: the same over {views} more views of each")
        mean = mean_of_views(run, name, fitted, predictor, columns)
        labels = cast(Any, fitted.codec).labels
        said[f"ours, mean of {views + 1} views"] = [labels[i] for i in mean.argmax(axis=1)]
    if run.recipe.evaluate.baselines:
        train = open_shard(run.path / "data" / name / "train")
        known = names(fitted.codec, train)
        said["majority class"] = [Majority().fit(known).answer()] * len(reference)
        said |= _linear(fitted.codec, train, known, columns)
    beside(name, fitted, reference, said, result)
    if weights is not None:
        _calibrated(name, reference, answers, weights, result)
    if "tokens" in columns:
        turns = [Turn("assistant", (Label(label),)) for label in answers]
        examples = examples_of(fitted.codec, columns)
        graded.keep(run, name, fitted.task, list(zip(examples, turns, strict=True)), result)


def beside(
    name: str,
    fitted: Fitted,
    reference: Sequence[str],
    said: Mapping[str, Sequence[str]],
    result: dict[str, Any],
) -> None:
    """Accuracy with its interval, F1 by class and confusions, of everybody's answers.

    Args:
        name: of the stage, or of the file that was asked.
        fitted: the model whose answers are "ours".
        reference: the labels that are meant.
        said: the answers, by who gives them.
        result: takes them in.
    """
    found = {who: _counted(reference, guesses) for who, guesses in said.items()}
    rows = [{"who": who, "value": of.value} for who, of in found.items()]
    low, high = found["ours"].interval
    every = per_class(reference, said["ours"])
    result["measures"].append(
        {
            "name": "test accuracy",
            "unit": "share",
            "better": "higher",
            "rows": rows,
            "note": f"{len(reference):,} held-out examples; 95 % interval of ours "
            f"{low:.4f} to {high:.4f}",
        }
    )
    result.setdefault("slices", []).append(_by_class(name, every))
    result.setdefault("confusions", []).append(_confusion(name, fitted, reference, said["ours"]))
    if fitted.task.by_class:
        result["measures"].append(_of_classes(reference, said, every[-1]))


def _of_classes(
    reference: Sequence[str], said: Mapping[str, Sequence[str]], ours: ClassScore
) -> dict[str, Any]:
    """Macro-F1 of everybody's answers."""
    return {
        "name": "test macro-F1",
        "unit": "share",
        "better": "higher",
        "rows": [{"who": w, "value": _macro_f1(reference, g)} for w, g in said.items()],
        "note": "the mean of the classes' F1, in which every class counts alike; 95 % "
        f"interval of ours {ours.low:.4f} to {ours.high:.4f}, by bootstrap",
    }


def _by_class(stage: str, every: Sequence[ClassScore]) -> dict[str, Any]:
    """F1 of every class as slices of an evaluation."""
    rows = [
        {"which": c.name, "count": c.meant, "value": c.f1, "low": c.low, "high": c.high}
        for c in every[:-1]
        if c.meant
    ]
    return {"stage": stage, "by": "class", "unit": "F1", "better": "higher", "rows": rows}


def _confusion(
    stage: str, fitted: Fitted, reference: Sequence[str], answers: Sequence[str]
) -> dict[str, Any]:
    """How often each label was answered where each was meant; cells that are empty left out."""
    counts = Counter(zip(reference, answers, strict=True))
    cells = [[meant, said, count] for (meant, said), count in sorted(counts.items())]
    return {"stage": stage, "labels": list(cast(Any, fitted.codec).labels), "cells": cells}


def _calibrated(
    stage: str,
    reference: Sequence[str],
    answers: Sequence[str],
    weights: Array,
    result: dict[str, Any],
) -> None:
    """How sure the answers are beside how often they are right."""
    sure = weights.max(axis=1)
    right = [a == b for a, b in zip(reference, answers, strict=True)]
    found = calibration.bins(sure, np.array(right))
    result.setdefault("calibration", []).append(
        {"stage": stage, "rows": [{**b._asdict()} for b in found]}
    )
    result["measures"].append(
        {
            "name": "test calibration error",
            "unit": "share",
            "better": "lower",
            "rows": [
                {"who": "ours", "value": calibration.expected_error(found)},
                {"who": "the same answers, always certain", "value": 1 - sum(right) / len(right)},
            ],
            "note": f"expected, over {calibration.BINS} bins (arXiv:1706.04599): on the mean it is"
            f" {float(sure.mean()):.1%} sure, and right {sum(right) / len(right):.1%} of the time",
        }
    )


def predictions(predictor: Predictor, columns: Columns) -> list[str]:
    """The most probable label of every row."""
    return weighed(predictor, columns)[0]


def weighed(predictor: Predictor, columns: Columns) -> tuple[list[str], Array | None]:
    """The answer to every row, and the probabilities of all labels (N, labels) where known."""
    answers: list[str] = []
    weights: list[Array | None] = []
    for part in once(columns, AT_ONCE):
        turns, found = predictor.weighed(part)
        answers += [turn.label for turn in turns]
        weights.append(found)
    known = [one for one in weights if one is not None]
    return answers, np.concatenate(known) if known else None


def names(codec: Codec, columns: Columns) -> list[str]:
    """The label of every row."""
    labels = cast(Any, codec).labels
    return [labels[int(i)] for i in np.asarray(columns["label"])]


def _linear(
    codec: Codec, train: Columns, known: list[str], columns: Columns
) -> dict[str, list[str]]:
    """The names and the answers of the linear models that suit what is classified."""
    if "tokens" in columns:
        words = BagOfWords().fit(_texts(codec, train), known)
        found = {"linear, bag of words": words.predict(_texts(codec, columns))}
        shared = _in_common(codec, columns)
        if shared is not None and (of_train := _in_common(codec, train)) is not None:
            guesses = LinearProbe().fit(of_train, known).predict(shared)
            found["linear, words in common"] = list(map(str, guesses.tolist()))
        return found
    train, columns = _viewed(codec, train), _viewed(codec, columns)
    probe = LinearProbe().fit(_features(train), known)
    name = "linear, bag of frames" if "frames" in columns else "linear model"
    if isinstance(pixels := columns.get("features"), np.ndarray) and pixels.ndim > 2:
        height, width = _thumbnail(pixels.shape[1:3])
        if (height, width) != pixels.shape[1:3]:
            name = f"linear, {height} x {width} pixels"
    return {name: list(map(str, probe.predict(_features(columns)).tolist()))}


def _viewed(codec: Codec, columns: Columns) -> Columns:
    """With the ``frames`` of recordings, where the codec makes some when a batch is made."""
    samples, viewed = columns.get("samples"), getattr(codec, "viewed", None)
    if viewed is None or not isinstance(samples, Ragged):
        return columns
    return {**columns, "frames": viewed(samples)}


def _texts(codec: Codec, columns: Columns) -> list[str]:
    """What the model reads, so a text that the codec cuts is cut here too."""
    return [asked(example) for example in examples_of(codec, columns)]


def _in_common(codec: Codec, columns: Columns) -> Array | None:
    """What the two texts of every row share, (N, 3); None where one text is read."""
    given = [[turn.text for turn in e.given] for e in examples_of(codec, columns)]
    if any(len(texts) != 2 for texts in given):
        return None
    return np.array([in_common(*texts) for texts in given])


def _features(columns: Columns) -> Array:
    frames = columns.get("frames")
    if isinstance(frames, Ragged):
        return np.stack([bag_of_frames(np.asarray(frames[i])) for i in range(len(frames))])
    values = np.asarray(columns["features"])
    if values.ndim > 2 and values.shape[1:3] != (small := _thumbnail(values.shape[1:3])):
        values = averaged(values.astype(np.float32), small)
    return values.astype(np.float32).reshape(len(values), -1)


def _thumbnail(shape: Sequence[int]) -> tuple[int, int]:
    """Height and width of the pictures that the linear model reads: THUMBNAIL at most."""
    height, width = (min(THUMBNAIL, side) for side in shape)
    return height, width


def _macro_f1(reference: Sequence[str], guesses: Sequence[str]) -> float:
    measure = MacroF1()
    for right, guess in zip(reference, guesses, strict=True):
        measure.add(right, guess)
    return measure.value


def _counted(reference: Sequence[str], guesses: Any) -> Accuracy:
    accuracy = Accuracy()
    for right, guess in zip(reference, guesses, strict=True):
        accuracy.add(right, guess)
    return accuracy
