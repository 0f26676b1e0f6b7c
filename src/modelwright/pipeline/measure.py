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
from modelwright.evaluation.metrics import Accuracy, Mean
from modelwright.pipeline.fitted import Fitted, load_fitted, mean_loss, newest_checkpoint
from modelwright.pipeline.prepare import Say
from modelwright.pipeline.published import load_base
from modelwright.run import Run, fingerprint
from modelwright.serving.classifier import Classifier
from modelwright.serving.engine import Engine
from modelwright.serving.sampling import SamplingParams
from modelwright.tasks.task import Task
from modelwright.training.examples import once, windows_once
from modelwright.types import Array, Columns, Example, Label, Ragged, Turn, rows_in

BATCH = 16
LABELS_BATCH = 64  # examples classified at once
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
    first = _example(fitted, columns, 0)
    if fitted.task.stream:
        _likelihood(run, name, fitted, result, say)
    elif any(isinstance(part, Label) for part in first.answer.parts):
        _labels(run, name, fitted, result, say)
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
    """The task's grade of greedy answers to held-out questions."""
    settings = run.recipe.evaluate
    columns = _columns(run, name, "test")
    rng = np.random.default_rng(runtime.derived_seed(run.recipe.seed, "questions"))
    order = rng.permutation(rows_in(columns))[: settings.questions]
    examples = [_example(fitted, columns, int(i)) for i in np.sort(order)]
    say(f"evaluate: {name}: answering {len(examples)} held-out questions")
    said = {"ours": _generate(fitted, examples, settings.answer_tokens)}
    if settings.baselines:
        if name == "tune":
            say("evaluate: the base model answers them too")
            base = load_base(run, fitted)
            said["base model"] = _generate(base, examples, settings.answer_tokens)
        nearest = _nearest(fitted, _columns(run, name, "train"))
        said["nearest training answer"] = [nearest.answer(_asked(e)) for e in examples]
    task = fitted.task
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


def _generate(fitted: Fitted, examples: Sequence[Example], tokens: int) -> list[str]:
    """Greedy answers; a question that the context cannot hold has none, and is graded so."""
    engine = Engine(fitted.model, fitted.codec, max_batch=64)
    fits = [len(engine.prompt(e.given)) < engine.context for e in examples]
    asked = [e.given for e, fit in zip(examples, fits, strict=True) if fit]
    answers = iter(engine.answer(asked, SamplingParams(max_tokens=tokens)))
    return [next(answers).text if fit else "" for fit in fits]


def _nearest(fitted: Fitted, columns: Columns) -> NearestAnswer:
    examples = [_example(fitted, columns, i) for i in range(rows_in(columns))]
    return NearestAnswer().fit([_asked(e) for e in examples], [e.answer.text for e in examples])


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
    ours = _counted(reference, predictions(fitted, columns))
    rows = [{"who": "ours", "value": ours.value}]
    if run.recipe.evaluate.baselines:
        train = _columns(run, name, "train")
        known = _names(fitted, train)
        majority = Majority().fit(known)
        rows.append(
            {
                "who": "majority class",
                "value": _accuracy(reference, [majority.answer()] * len(reference)),
            }
        )
        who, guesses = _linear(fitted, train, known, columns)
        rows.append({"who": who, "value": _accuracy(reference, guesses)})
    low, high = ours.interval
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


def predictions(fitted: Fitted, columns: Columns) -> list[str]:
    """The most probable label of every row."""
    classifier = Classifier(fitted.model, fitted.codec, fitted.objective)
    parts = once(columns, LABELS_BATCH)
    return [turn.label for part in parts for turn in classifier.answer_columns(part)]


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
    return name, list(map(str, probe.predict(_features(columns)).tolist()))


def _texts(fitted: Fitted, columns: Columns) -> list[str]:
    """What the model reads, so a text that the codec cuts is cut here too."""
    return [_asked(_example(fitted, columns, i)) for i in range(rows_in(columns))]


def _features(columns: Columns) -> Array:
    frames = columns.get("frames")
    if isinstance(frames, Ragged):
        return np.stack([bag_of_frames(np.asarray(frames[i])) for i in range(len(frames))])
    values = np.asarray(columns["features"], dtype=np.float32)
    return values.reshape(len(values), -1)


def _counted(reference: Sequence[str], guesses: Any) -> Accuracy:
    accuracy = Accuracy()
    for right, guess in zip(reference, guesses, strict=True):
        accuracy.add(right, guess)
    return accuracy


def _accuracy(reference: Sequence[str], guesses: Any) -> float:
    return _counted(reference, guesses).value


def summary_lines(result: dict[str, Any]) -> list[str]:
    """Every measure on a line: ours first, the trivial answers after it."""
    if not result.get("measures"):
        raise ModelwrightError("evaluation: nothing was measured; the test split is empty")
    lines = []
    for measure in result["measures"]:
        rows = "   ".join(f"{row['who']} {row['value']:.3f}" for row in measure["rows"])
        lines.append(f"{measure['name']} ({measure['better']} is better):   {rows}")
    return lines
