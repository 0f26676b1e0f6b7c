"""Stage evaluate: the trained model beside trivial answers, on data it never saw.

What is measured follows from what an example is: documents are measured in bits per byte
beside gzip and a 5-gram model, labels in accuracy beside the majority and a linear model, and
written answers in the task's grade beside the base model and the nearest training answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch

from modelwright import runtime
from modelwright.data.shards import open_shard
from modelwright.errors import ModelwrightError
from modelwright.evaluation.bag_of_words import BagOfWords
from modelwright.evaluation.baselines import (
    LinearProbe,
    Majority,
    NearestAnswer,
    NGram,
    bag_of_frames,
    gzip_bits_per_byte,
)
from modelwright.evaluation.metrics import Accuracy, MacroF1, Mean
from modelwright.pipeline.drawn import drawn
from modelwright.pipeline.fitted import Fitted, load_fitted, mean_loss, newest_checkpoint
from modelwright.pipeline.predicted import predicted, together
from modelwright.pipeline.prepare import Say
from modelwright.pipeline.published import load_base
from modelwright.recipe import Evaluation
from modelwright.runs import Run, fingerprint
from modelwright.serving.engine import Engine
from modelwright.serving.flow import draws
from modelwright.serving.predictor import Predictor, predicts
from modelwright.serving.sampling import SamplingParams
from modelwright.tasks.task import Task
from modelwright.training.examples import once, windows_once
from modelwright.types import Array, Columns, Example, Ragged, Turn, rows_in

BATCH = 16
LABELS_BATCH = 64  # examples classified at once
THUMBNAIL = 32  # pixels a side that the linear model reads of larger pictures
SHOWN = 12  # example answers kept for the report
NGRAM_BYTES = 32 << 20  # the n-gram model reads no more than this of the train split


def evaluate(run: Run, say: Say) -> dict[str, Any]:
    """Measure every trained stage of the run, write evaluation.json and return it."""
    points = {n: newest_checkpoint(run, n) for n in run.recipe.stages if _trained(run, n)}
    if not points:
        newest_checkpoint(run)  # says what to do
    mark = fingerprint([str(p.name) for p in points.values()], run.recipe.evaluate.model_dump())
    mark = fingerprint(mark, [run.stage(n).get("fingerprint") for n in points])
    if run.is_done("evaluate", mark) and (kept := run.read_json("evaluation.json")):
        say("evaluate: nothing changed, kept")
        return cast(dict[str, Any], kept)
    torch.set_num_threads(runtime.cores())
    result: dict[str, Any] = {"measures": [], "examples": []}
    with run.working("evaluate", mark):
        for name, point in points.items():
            fitted = load_fitted(point)
            if (run.path / "data" / name / "test").exists():
                _measure(run, name, fitted, result, say)
        run.write_json("evaluation.json", result)
    return result


def _trained(run: Run, name: str) -> bool:
    return any((run.path / "checkpoints" / name).glob("step-*/COMPLETE"))


def _measure(run: Run, name: str, fitted: Fitted, result: dict[str, Any], say: Say) -> None:
    """Choose the measure by what the examples of the stage are."""
    columns = _columns(run, name, "test")
    if fitted.task.stream:
        _likelihood(run, name, fitted, result, say)
    elif predicts(fitted.codec):
        labels = "label" in columns
        if labels:
            _labels(run, name, fitted, result, say)
        if not labels or type(fitted.task).measures is not Task.measures:
            predicted(run, name, fitted, result, say)
    elif draws(fitted.objective):
        drawn(run, name, fitted, result, say)
    else:
        _answers(run, name, fitted, result, say)


def _columns(run: Run, name: str, part: str) -> Columns:
    return open_shard(run.path / "data" / name / part)


def _example(fitted: Fitted, columns: Columns, row: int) -> Example:
    example: Example = fitted.codec.example({k: np.asarray(c[row]) for k, c in columns.items()})
    return example


# Documents ----------------------------------------------------------------------------------


def _likelihood(run: Run, name: str, fitted: Fitted, result: dict[str, Any], say: Say) -> None:
    """Bits per byte of held-out documents."""
    context = cast(Any, fitted.config).context
    train = _documents(fitted, _columns(run, name, "train"))
    grams = None
    for part in ("validation", "test"):
        if not (run.path / "data" / name / part).exists():
            continue
        say(f"evaluate: {name}: bits per byte of {part}")
        columns = _columns(run, name, part)
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


# Written answers ----------------------------------------------------------------------------


def _answers(run: Run, name: str, fitted: Fitted, result: dict[str, Any], say: Say) -> None:
    """The task's measures of the likeliest answers to held-out questions."""
    settings = run.recipe.evaluate
    task = fitted.task
    columns = _columns(run, name, "test")
    rng = np.random.default_rng(runtime.derived_seed(run.recipe.seed, "questions"))
    order = rng.permutation(rows_in(columns))[: settings.questions]
    examples = [_example(fitted, columns, int(i)) for i in np.sort(order)]
    say(f"evaluate: {name}: answering {len(examples)} held-out questions")
    said = {"ours": _generate(fitted, examples, settings)}
    if settings.baselines:
        if name == "tune":
            say("evaluate: the base model answers them too")
            base = load_base(run, fitted)
            said["base model"] = _generate(base, examples, settings)
        known = _columns(run, name, "train")
        train = [_example(fitted, known, i) for i in range(rows_in(known))]
        nearest = NearestAnswer().fit([_asked(e) for e in train], [e.answer.text for e in train])
        said["nearest training answer"] = [nearest.answer(_asked(e)) for e in examples]
        if type(task).baselines is not Task.baselines:
            for who, policy in task.baselines(train).items():
                said[who] = [turn.text for turn in policy.answer([e.given for e in examples])]
    result["measures"] += _together(task, examples, said)
    grades = {
        who: [task.grade(e, _turn(a)) for e, a in zip(examples, texts, strict=True)]
        for who, texts in said.items()
    }
    kinds = sorted({task.kind(e) for e in examples})
    for kind in ["", *[k for k in kinds if k]]:
        chosen = [i for i, e in enumerate(examples) if not kind or task.kind(e) == kind]
        result["measures"].append(_graded(task, kind, chosen, grades))
    for i in _spread(len(examples), SHOWN):
        result["examples"].append(
            {
                "question": _asked(examples[i]),
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
    asked = f'"{kind} ..."' if kind else "all kinds"
    return {
        "name": f"{task.measure} of answers" + (f": {asked}" if kind else ""),
        "unit": task.measure,
        "better": task.better,
        "rows": rows,
        "note": f"{len(chosen)} held-out questions, {asked}; 95 % intervals: {'; '.join(said)}",
    }


class _Said:
    """A policy whose answers are known already."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts

    def answer(self, given: Sequence[Sequence[Turn]]) -> list[Turn]:  # noqa: ARG002
        return [_turn(text) for text in self.texts]


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
    asked = [e.given for e, fit in zip(examples, fits, strict=True) if fit]
    params = SamplingParams(
        max_tokens=settings.answer_tokens,
        beams=settings.beams,
        length_penalty=settings.length_penalty,
    )
    answers = iter(engine.answer(asked, params))
    return [next(answers).text if fit else "" for fit in fits]


def _asked(example: Example) -> str:
    return "\n".join(turn.text for turn in example.given)


def _turn(text: str) -> Turn:
    from modelwright.types import text_turn  # noqa: PLC0415

    return text_turn("assistant", text)


def _spread(total: int, wanted: int) -> list[int]:
    return list(range(0, total, max(1, total // wanted)))[:wanted]


# Labels -------------------------------------------------------------------------------------


def _labels(run: Run, name: str, fitted: Fitted, result: dict[str, Any], say: Say) -> None:
    """Accuracy on the test split, beside the majority and a linear model of simple features."""
    say(f"evaluate: {name}: accuracy of test")
    columns = _columns(run, name, "test")
    reference = _names(fitted, columns)
    said = {"ours": predictions(fitted, columns)}
    if run.recipe.evaluate.baselines:
        train = _columns(run, name, "train")
        known = _names(fitted, train)
        said["majority class"] = [Majority().fit(known).answer()] * len(reference)
        who, guesses = _linear(fitted, train, known, columns)
        said[who] = guesses
    found = {who: _counted(reference, guesses) for who, guesses in said.items()}
    rows = [{"who": who, "value": accuracy.value} for who, accuracy in found.items()]
    low, high = found["ours"].interval
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
    if fitted.task.by_class:
        rows = [{"who": w, "value": _macro_f1(reference, g)} for w, g in said.items()]
        result["measures"].append(
            {
                "name": "test macro-F1",
                "unit": "share",
                "better": "higher",
                "rows": rows,
                "note": "the mean of the classes' F1, in which every class counts alike",
            }
        )


def predictions(fitted: Fitted, columns: Columns) -> list[str]:
    """The most probable label of every row."""
    predictor = Predictor(fitted.model, fitted.codec, fitted.objective)
    parts = once(columns, LABELS_BATCH)
    return [turn.label for part in parts for turn in predictor.answer_columns(part)]


def _names(fitted: Fitted, columns: Columns) -> list[str]:
    labels = cast(Any, fitted.codec).labels
    return [labels[int(i)] for i in np.asarray(columns["label"])]


def _linear(
    fitted: Fitted, train: Columns, known: list[str], columns: Columns
) -> tuple[str, list[str]]:
    """The name and the answers of the linear model that suits what is classified."""
    if "tokens" in columns:
        words = BagOfWords().fit(_texts(fitted, train), known)
        return "linear, bag of words", words.predict(_texts(fitted, columns))
    probe = LinearProbe().fit(_features(train), known)
    name = "linear, bag of frames" if "frames" in columns else "linear model"
    if isinstance(pixels := columns.get("features"), np.ndarray) and pixels.ndim > 2:
        height, width = _thumbnail(pixels.shape[1:3])
        if (height, width) != pixels.shape[1:3]:
            name = f"linear, {height} x {width} pixels"
    return name, list(map(str, probe.predict(_features(columns)).tolist()))


def _texts(fitted: Fitted, columns: Columns) -> list[str]:
    """What the model reads, so a text that the codec cuts is cut here too."""
    return [_asked(_example(fitted, columns, i)) for i in range(rows_in(columns))]


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


def summary_lines(result: dict[str, Any]) -> list[str]:
    """Every measure on a line: ours first, the trivial answers after it."""
    if not result.get("measures"):
        raise ModelwrightError("evaluation: nothing was measured; the test split is empty")
    lines = []
    for measure in result["measures"]:
        rows = "   ".join(f"{row['who']} {row['value']:.3f}" for row in measure["rows"])
        lines.append(f"{measure['name']} ({measure['better']} is better):   {rows}")
    return lines
