"""What is measured of labels: accuracy beside the majority and a linear model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from modelwright.data.shards import open_shard
from modelwright.evaluation.bag_of_words import BagOfWords
from modelwright.evaluation.baselines import LinearProbe, Majority, bag_of_frames
from modelwright.evaluation.metrics import Accuracy, MacroF1
from modelwright.evaluation.per_class import ClassScore, per_class
from modelwright.pipeline import graded
from modelwright.pipeline.fitted import Fitted
from modelwright.pipeline.predicted import asked, examples_of
from modelwright.pipeline.prepare import Say
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
    said = {"ours": predictions(predictor, columns)}
    if run.recipe.evaluate.baselines:
        train = open_shard(run.path / "data" / name / "train")
        known = names(fitted.codec, train)
        said["majority class"] = [Majority().fit(known).answer()] * len(reference)
        who, guesses = _linear(fitted.codec, train, known, columns)
        said[who] = guesses
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
    if "tokens" in columns:
        answers = [Turn("assistant", (Label(label),)) for label in said["ours"]]
        examples = examples_of(fitted.codec, columns)
        graded.keep(run, name, fitted.task, list(zip(examples, answers, strict=True)), result)
    if fitted.task.by_class:
        rows = [{"who": w, "value": _macro_f1(reference, g)} for w, g in said.items()]
        result["measures"].append(
            {
                "name": "test macro-F1",
                "unit": "share",
                "better": "higher",
                "rows": rows,
                "note": "the mean of the classes' F1, in which every class counts alike; 95 % "
                f"interval of ours {every[-1].low:.4f} to {every[-1].high:.4f}, by bootstrap",
            }
        )


def _by_class(stage: str, every: Sequence[ClassScore]) -> dict[str, Any]:
    """F1 of every class as slices of an evaluation."""
    rows = [
        {"which": c.name, "count": c.meant, "value": c.f1, "low": c.low, "high": c.high}
        for c in every[:-1]
        if c.meant
    ]
    return {"stage": stage, "by": "class", "unit": "F1", "better": "higher", "rows": rows}


def predictions(predictor: Predictor, columns: Columns) -> list[str]:
    """The most probable label of every row."""
    parts = once(columns, AT_ONCE)
    return [turn.label for part in parts for turn in predictor.answer_columns(part)]


def names(codec: Codec, columns: Columns) -> list[str]:
    """The label of every row."""
    labels = cast(Any, codec).labels
    return [labels[int(i)] for i in np.asarray(columns["label"])]


def _linear(
    codec: Codec, train: Columns, known: list[str], columns: Columns
) -> tuple[str, list[str]]:
    """The name and the answers of the linear model that suits what is classified."""
    if "tokens" in columns:
        words = BagOfWords().fit(_texts(codec, train), known)
        return "linear, bag of words", words.predict(_texts(codec, columns))
    train, columns = _viewed(codec, train), _viewed(codec, columns)
    probe = LinearProbe().fit(_features(train), known)
    name = "linear, bag of frames" if "frames" in columns else "linear model"
    if isinstance(pixels := columns.get("features"), np.ndarray) and pixels.ndim > 2:
        height, width = _thumbnail(pixels.shape[1:3])
        if (height, width) != pixels.shape[1:3]:
            name = f"linear, {height} x {width} pixels"
    return name, list(map(str, probe.predict(_features(columns)).tolist()))


def _viewed(codec: Codec, columns: Columns) -> Columns:
    """With the ``frames`` of recordings, where the codec makes some when a batch is made."""
    samples, viewed = columns.get("samples"), getattr(codec, "viewed", None)
    if viewed is None or not isinstance(samples, Ragged):
        return columns
    return {**columns, "frames": viewed(samples)}


def _texts(codec: Codec, columns: Columns) -> list[str]:
    """What the model reads, so a text that the codec cuts is cut here too."""
    return [asked(example) for example in examples_of(codec, columns)]


def _features(columns: Columns) -> Array:
    frames = columns.get("frames")
    if isinstance(frames, Ragged):
        return np.stack([bag_of_frames(np.asarray(frames[i])) for i in range(len(frames))])
    values = np.asarray(columns["features"])
    if values.ndim > 2 and values.shape[1:3] != (small := _thumbnail(values.shape[1:3])):
        values = _shrunk(values, *small)
    return values.astype(np.float32).reshape(len(values), -1)


def _thumbnail(shape: Sequence[int]) -> tuple[int, int]:
    """Height and width of the pictures that the linear model reads: THUMBNAIL at most."""
    height, width = (min(THUMBNAIL, side) for side in shape)
    return height, width


def _shrunk(values: Array, height: int, width: int) -> Array:
    """Pictures (N, H, W, ...) with each pixel the mean of those that it stands for."""
    for axis, side in ((1, height), (2, width)):
        edges = np.arange(side + 1) * values.shape[axis] // side
        total = np.add.reduceat(values, edges[:-1], axis=axis, dtype=np.float32)
        shape = [1] * values.ndim
        shape[axis] = side
        values = total / np.diff(edges).astype(np.float32).reshape(shape)
    return values


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
