"""Boxes drawn on pictures, to be looked at: before anything is learned, and where it failed.

What is drawn of the train part is what is trained on: pictures and boxes as they are stored, and as
the stage's augmentation of the first step makes them.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from modelwright import runtime
from modelwright.data.augment.batches import Augment
from modelwright.data.augment.sheet import tiled
from modelwright.data.pictures import encode_png, pillow
from modelwright.data.shards import open_shard
from modelwright.files import replace_file
from modelwright.runs import Run
from modelwright.types import (
    SAID_SCORE,
    Array,
    Box,
    Codec,
    Columns,
    Example,
    Image,
    Turn,
    ragged_column,
    rows_in,
    take,
)

SHOWN, ABREAST = 12, 4
SIDE = 320  # pixels of a drawn picture's longer side, at least


def draw_labels(run: Run, name: str, codec: Codec, say: Callable[[str], None]) -> None:
    """Write data/STAGE/labels.png: pictures of train with their boxes, and views of them."""
    stage = run.recipe.stages[name]
    columns = open_shard(run.path / "data" / name / "train")
    count = min(SHOWN, rows_in(columns))
    some = take(columns, np.arange(count) * rows_in(columns) // count)
    cells = drawn(some, codec)
    if stage.augment:
        seed = runtime.derived_seed(run.recipe.seed, name, "examples")
        cells += drawn(Augment(stage.augment, run.recipe.codec_kind, seed)(some, 0), codec)
    rows = [cells[i : i + ABREAST] for i in range(0, len(cells), ABREAST)]
    rows = [row + [np.full((1, 1, 3), 255, np.uint8)] * (len(rows[0]) - len(row)) for row in rows]
    path = run.path / "data" / name / "labels.png"
    replace_file(path, encode_png(tiled(rows)))
    views = ", then as augmented" if stage.augment else ""
    say(f"prepare: {name}: {path}: {count} pictures with their boxes{views}; look at them")


def hardest(
    examples: Sequence[Example], answers: Sequence[Turn], grades: Sequence[float], labels: list[str]
) -> Array:
    """The examples of the lowest grades drawn: the boxes that are meant, beside what is said."""
    rows = []
    for i in np.argsort(grades, kind="stable")[: SHOWN // 2].tolist():
        image = next(p for t in examples[i].given for p in t.parts if isinstance(p, Image))
        shown = [box for box in answers[i].boxes if box.score >= SAID_SCORE]
        both = (list(examples[i].answer.boxes), shown)
        rows.append([with_boxes(image.pixels, _seen(boxes, image), labels) for boxes in both])
    return tiled(rows)


def _seen(boxes: Sequence[Box], image: Image) -> list[Box]:
    """Boxes in the pixels of a prepared picture."""
    height, width = image.pixels.shape[:2]
    tall, wide = image.original or (height, width)
    x, y = width / wide, height / tall
    return [Box(b.label, b.left * x, b.top * y, b.right * x, b.bottom * y, b.score) for b in boxes]


def drawn(columns: Columns, codec: Codec) -> list[Array]:
    """Every stored picture with its boxes, uint8 (height, width, 3)."""
    labels: list[str] = cast(Any, codec).labels
    boxes, classes = ragged_column(columns, "boxes"), ragged_column(columns, "classes")
    return [
        with_boxes(
            np.asarray(pixels),
            [
                Box(labels[int(number)], *sides)
                for sides, number in zip(boxes[i].tolist(), classes[i], strict=True)
            ],
            labels,
        )
        for i, pixels in enumerate(np.asarray(columns["features"]))
    ]


def with_boxes(pixels: Array, boxes: list[Box], labels: list[str]) -> Array:
    """A picture with boxes and the names of their classes, each class in its colour."""
    from PIL import ImageDraw  # noqa: PLC0415 - of an extra

    image = pillow().fromarray(np.ascontiguousarray(pixels)).convert("RGB")
    scale = max(1, -(-SIDE // max(image.size)))
    image = image.resize((image.width * scale, image.height * scale))
    pen = ImageDraw.Draw(image)
    for box in boxes:
        colour = _colour(labels.index(box.label), len(labels))
        corners = [side * scale for side in (box.left, box.top, box.right, box.bottom)]
        pen.rectangle(corners, outline=colour, width=2)
        pen.text((corners[0] + 3, corners[1] + 1), box.label, fill=colour)
    return np.asarray(image)


def _colour(number: int, of: int) -> tuple[int, ...]:
    return tuple(round(255 * c) for c in colorsys.hsv_to_rgb(number / of, 1.0, 0.9))
