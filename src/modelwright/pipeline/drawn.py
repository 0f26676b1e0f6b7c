"""Made pictures: drawn while a model learns, and judged when it has learned.

What judges them is a classifier of our own, trained here on the real pictures of the same train
part; its accuracy on real test pictures is given beside every measure that rests on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from modelwright import runtime
from modelwright.data.shards import open_shard
from modelwright.errors import ModelwrightError
from modelwright.evaluation.made_images import MeanImages, diversity, frechet_distance, nearest
from modelwright.pipeline import samples
from modelwright.pipeline.fitted import Fitted
from modelwright.pipeline.judge import Judge, trained_judge
from modelwright.pipeline.prepare import Say
from modelwright.runs import Run
from modelwright.serving.flow import ImageMaker
from modelwright.types import Array, Columns, rows_in

CLASSES, ABREAST = 12, 8  # of a grid: classes at most, and pictures of each
NEIGHBOURS = 16  # pictures shown with their nearest neighbours
GAP = 2  # pixels between two pictures of a grid
FEW = 2  # pictures that a crowd needs at least


def grid(pictures: Array, abreast: int) -> Array:
    """Pictures uint8 (N, H, W[, 3]) as one, ``abreast`` in a row, on white."""
    count, height, width = pictures.shape[:3]
    rows = -(-count // abreast)
    size = (rows * (height + GAP) + GAP, abreast * (width + GAP) + GAP, *pictures.shape[3:])
    sheet = np.full(size, 255, np.uint8)
    for i, picture in enumerate(pictures):
        row, column = divmod(i, abreast)
        top, left = GAP + row * (height + GAP), GAP + column * (width + GAP)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def grid_numbers(labels: Sequence[str]) -> list[int]:
    """The class numbers of a grid: a row a class, or -1 throughout."""
    classes = range(min(CLASSES, len(labels))) if labels else [-1] * 4
    return [number for number in classes for _ in range(ABREAST)]


def sample(run: Run, stage: str, step: int, maker: ImageMaker) -> None:
    """Draw a grid at a step of a training: samples/STAGE-STEP.png, and a line that names it."""
    labels = list(maker.codec.labels)
    said = f"a row each of {', '.join(labels[:CLASSES])}" if labels else "without a class"
    name = f"{stage}-{step:08d}.png"
    pictures = grid(maker.draw(grid_numbers(labels)), ABREAST)
    samples.keep_picture(run, stage, {"step": step, "prompt": said, "image": name}, pictures)


# Evaluation ---------------------------------------------------------------------------------


def drawn(run: Run, name: str, fitted: Fitted, result: dict[str, Any], say: Say) -> None:
    """Measure made pictures beside real ones of the test part and the classes' noisy means."""
    maker = ImageMaker.of(fitted.model, fitted.codec, fitted.objective, fitted.task)
    maker = maker.seeded(runtime.derived_seed(run.recipe.seed, name, "drawn") % 2**62)
    train, test = (open_shard(run.path / "data" / name / part) for part in ("train", "test"))
    labels = cast(Any, fitted.codec).labels
    count = min(int(getattr(fitted.task, "samples", 1000)), rows_in(test))
    if count < FEW:
        raise ModelwrightError(f"{name}: one picture in the test part; give it more to compare")
    numbers = np.arange(count) % len(labels) if labels else np.full(count, -1)
    say(f"evaluate: {name}: drawing {count:,} pictures in {maker.sampling.steps} steps each")
    real, known = _some(test, count)
    crowds = {"ours": (maker.draw(numbers.tolist()), numbers), "real test images": (real, known)}
    if run.recipe.evaluate.baselines:
        plain = MeanImages.fit(np.asarray(train["features"]), np.asarray(train["label"]))
        crowds["class mean and noise"] = (plain.draw(numbers), numbers)
    if labels:
        say(f"evaluate: {name}: training a classifier on the real train images, to judge them")
        judge = trained_judge(fitted.codec, train, run.recipe.seed)
        result["measures"] += _judged(judge, crowds, train, test, _how(maker, fitted))
    result["measures"] += _copies(run, fitted, crowds, train)


def _how(maker: ImageMaker, fitted: Fitted) -> str:
    s = maker.sampling
    return (
        f"{s.steps} steps of {s.sampler}, the model asked {s.evaluations} times a picture, "
        f"guidance {s.guidance:g}, weights of step {fitted.step}"
    )


def _some(columns: Columns, count: int) -> tuple[Array, Array]:
    """Pictures and class numbers of rows evenly chosen."""
    chosen = np.arange(count) * rows_in(columns) // count
    return np.asarray(columns["features"])[chosen], np.asarray(columns["label"])[chosen]


def _judged(
    judge: Judge,
    crowds: Mapping[str, tuple[Array, Array]],
    train: Columns,
    test: Columns,
    how: str,
) -> list[dict[str, Any]]:
    """What the classifier says of every crowd."""
    said, _ = judge.read(np.asarray(test["features"]))
    accuracy = float(np.mean(said == np.asarray(test["label"])))
    count = len(crowds["ours"][0])
    _, reference = judge.read(_some(train, min(rows_in(train), 10 * count))[0])
    values: dict[str, list[tuple[str, float]]] = {"recognised": [], "frechet": [], "unlike": []}
    for who, (pictures, numbers) in crowds.items():
        found, features = judge.read(pictures)
        values["recognised"].append((who, float(np.mean(found == numbers))))
        values["frechet"].append((who, frechet_distance(features, reference)))
        values["unlike"].append((who, diversity(features, numbers)))
    by = (
        f"by a convolutional network trained here on the real train images, which names "
        f"{accuracy:.2%} of {len(said):,} real test images; {count:,} pictures, {how}"
    )
    within = "in that network's last features; comparable only between runs of this program"
    return [
        _measure("images recognised as their class", "share", "higher", values["recognised"], by),
        _measure(
            "Fréchet distance to train images",
            "distance",
            "lower",
            values["frechet"],
            f"{within} on the same data with as many pictures ({count:,})",
        ),
        _measure(
            "diversity within a class",
            "distance",
            "higher",
            values["unlike"],
            f"mean distance of two pictures of one class, {within}; real images say how much "
            "is right",
        ),
    ]


def _copies(
    run: Run, fitted: Fitted, crowds: Mapping[str, tuple[Array, Array]], train: Columns
) -> list[dict[str, Any]]:
    """How far every crowd is from the train images, and a grid of the nearest ones."""
    known = np.asarray(train["features"])
    found = {who: nearest(pictures, known) for who, (pictures, _) in crowds.items()}
    ours = crowds["ours"][0]
    shown = np.arange(min(NEIGHBOURS, len(ours))) * len(ours) // min(NEIGHBOURS, len(ours))
    pairs = np.concatenate((ours[shown], known[found["ours"].rows[shown]]))
    said = "made images, and below each the train image nearest to it"
    record = {"step": fitted.step, "prompt": said, "image": "nearest.png"}
    samples.keep_picture(run, "evaluate", record, grid(pairs, len(shown)))
    rows = [(who, float(np.median(of.distances))) for who, of in found.items()]
    note = (
        "root mean square of the pixels' differences, levels 0..255, median over the pictures; "
        "far below real test images would mean copies; the pairs are in samples/nearest.png"
    )
    return [_measure("distance to the nearest train image", "levels", "higher", rows, note)]


def _measure(
    name: str, unit: str, better: str, rows: Sequence[tuple[str, float]], note: str
) -> dict[str, Any]:
    said = [{"who": who, "value": value} for who, value in rows]
    return {"name": name, "unit": unit, "better": better, "rows": said, "note": note}
