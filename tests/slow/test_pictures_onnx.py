"""Two hundred real pictures through exported graphs, decoded and resized by Pillow alone.

By hand, `pytest tests/slow/test_pictures_onnx.py -s`; some minutes. Each task is trained for a few
steps, which is enough: what is proved is that whoever has the artefact gets the same answers.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image, ImageOps

from modelwright import api
from modelwright.data.shards import open_shard
from modelwright.data.sources import read_rows
from modelwright.models.detector import suppressed
from modelwright.pipeline.export import export
from modelwright.types import Example, ImageFile, Turn, stack, take

COUNT = 200
STAGE = {"steps": 12, "batch": 16, "compile": False, "precision": "float32"}
TOLERANCE = 1e-4


def by_pillow(content: bytes, settings: dict[str, Any]) -> np.ndarray:
    """A picture's file at the model's size, as ``preprocessing.json`` says and nothing else."""
    with Image.open(io.BytesIO(content)) as opened:
        image: Any = ImageOps.exif_transpose(opened)
        image = image.convert("RGB" if len(settings["mean"]) == 3 else "L")
    height, width = settings["height"], settings["width"]
    method = Image.Resampling[settings["resample"].upper()]
    if settings["shortest"] is None:
        return np.asarray(image.resize((width, height), method))
    short = min(image.size)
    size = tuple(int(settings["shortest"] * side / short) for side in image.size)
    image = image.resize(size, method)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return np.asarray(image.crop((left, top, left + width, top + height)))


def asked(content: bytes) -> tuple[Turn, ...]:
    return (Turn("user", (ImageFile(content, "question"),)),)


def test_classes_of_flowers(data: Callable[[str], Path], tmp_path: Path) -> None:
    recipe = {
        "name": "flowers",
        "data": {"source": "flowers12", "path": str(data("flowers12")), "split": {"by": "given"}},
        "codec": {"size": 48},
        "model": {"family": "fast_cnn", "widths": [16, 32, 64]},
        "train": {"task": "image_classification", **STAGE},
    }
    run = api.train(recipe, out=tmp_path / "run")
    out = tmp_path / "out"
    export(run, out, lambda _: None, to="onnx")
    facts = json.loads((out / "preprocessing.json").read_text())
    session = onnxruntime.InferenceSession(out / "model.onnx")
    model = api.load(run)
    rows = [r for r in read_rows("flowers12", path=data("flowers12")) if r["split"] == "test"]
    worst = 0.0
    for row in rows[:COUNT]:
        pixels = by_pillow(row["image"], facts["pictures"])
        _, shares = session.run(None, {"features": pixels[None]})
        ours = model.probabilities(asked(row["image"]))
        theirs = dict(zip(facts["labels"], shares[0].tolist(), strict=True))
        worst = max(worst, *(abs(theirs[name] - ours[name]) for name in theirs))
    print(f"{COUNT} flowers: probabilities differ by at most {worst:.1e}")
    assert worst <= TOLERANCE


def test_boxes_of_blood_cells(data: Callable[[str], Path], tmp_path: Path) -> None:
    recipe = {
        "name": "cells",
        "data": {"source": "bccd", "path": str(data("bccd")), "split": {"by": "given"}},
        "codec": {"size": [120, 160]},
        "model": {"family": "detector", "widths": [16, 16, 24, 32], "stem_width": 16, "width": 32},
        "train": {"task": "object_detection", **STAGE, "batch": 8, "learning_rate": 0.002},
    }
    run = api.train(recipe, out=tmp_path / "run")
    out = tmp_path / "out"
    export(run, out, lambda _: None, to="onnx")
    facts = json.loads((out / "preprocessing.json").read_text())
    rule, settings = facts["boxes"], facts["pictures"]
    session = onnxruntime.InferenceSession(out / "model.onnx")
    model = api.load(run)
    rows = list(read_rows("bccd", path=data("bccd")))[:COUNT]
    assert len(rows) == COUNT
    boxes_seen, worst = 0, 0.0
    for row in rows:
        with Image.open(io.BytesIO(row["image"])) as image:
            stretch = np.array([image.width / settings["width"], image.height / settings["height"]])
        pixels = by_pillow(row["image"], settings)
        boxes, scores = (
            torch.from_numpy(a[0]) for a in session.run(None, {"features": pixels[None]})
        )
        where, label = (scores >= rule["least"]).nonzero(as_tuple=True)
        kept = suppressed(
            boxes[where], scores[where, label], label, overlap=rule["overlap"], most=rule["most"]
        )
        (answer,) = model.answerer.answer([asked(row["image"])])
        said = answer.boxes
        assert abs(len(kept) - len(said)) <= 1  # a score at the limit may fall on either side
        for number, box in zip(kept.tolist(), said, strict=False):
            mine = boxes[where][number].numpy() * np.tile(stretch, 2)
            worst = max(
                worst, float(np.abs(mine - (box.left, box.top, box.right, box.bottom)).max())
            )
            boxes_seen += 1
    print(f"{COUNT} pictures, {boxes_seen} boxes: sides differ by at most {worst:.1e} pixels")
    assert boxes_seen > COUNT
    assert worst <= 0.1


def test_velocities_of_digits(data: Callable[[str], Path], tmp_path: Path) -> None:
    recipe = {
        "name": "digits",
        "data": {"source": "mnist", "path": str(data("mnist")), "limit": 3000,
                 "split": {"by": "row", "test": 0.2}},
        "model": {"family": "unet", "width": 8, "multipliers": [1, 2, 4], "blocks": 1,
                  "attention": [2]},
        "train": {"task": "image_generation", **STAGE},
    }  # fmt: skip
    run = api.train(recipe, out=tmp_path / "run")
    out = tmp_path / "out"
    export(run, out, lambda _: None, to="onnx")
    session = onnxruntime.InferenceSession(out / "model.onnx")
    fitted = api.load(run).fitted
    part = take(open_shard(run.path / "data" / "train" / "test"), np.arange(COUNT))
    batch = fitted.objective.collate(part, torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = fitted.model(**batch.inputs).numpy()
    (theirs,) = session.run(None, {name: value.numpy() for name, value in batch.inputs.items()})
    worst = float(np.abs(theirs - ours).max() / np.abs(ours).max())
    print(f"{COUNT} digits: velocities differ by at most {worst:.1e} of the largest")
    assert worst <= TOLERANCE


@pytest.mark.parametrize("name", ["flowers12"])
def test_pictures_are_prepared_as_pillow_does(data: Callable[[str], Path], name: str) -> None:
    """The road of ``by_pillow`` is that of the codec, pixel for pixel."""
    from modelwright.data.codecs.images import Codec
    from modelwright.data.picture_settings import ImageSettings

    settings = ImageSettings(48, 48, shortest=48)
    codec = Codec(["a", "b"], settings)
    plain = {"height": 48, "width": 48, "shortest": 48, "resample": "bilinear", "mean": [0, 0, 0]}
    for row in list(read_rows(name, path=data(name)))[:COUNT]:
        encoded = codec.encode(Example(asked(row["image"])))
        stored = stack([encoded], codec.ragged)["features"]
        assert np.array_equal(np.asarray(stored)[0], by_pillow(row["image"], plain))
