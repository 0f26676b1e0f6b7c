"""Law 7 for boxes and for pictures that are made: graphs that answer as the trained models do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from modelwright import api
from modelwright.data.pictures import encode_png
from modelwright.models.detector import suppressed
from modelwright.pipeline.export import export
from modelwright.serving.flow import guided, integrate
from modelwright.types import Example
from tests.exporting.exported import run_as_the_card_says

STAGE = {"steps": 4, "batch": 4, "threads": 1, "compile": False, "precision": "float32"}


def scenes(folder: Path) -> Path:
    """Squares on noise, with their boxes as COCO writes them."""
    images, notes = [], []
    for i in range(16):
        rng = np.random.default_rng(i)
        pixels = rng.integers(0, 80, (40, 56, 3), dtype=np.uint8)
        top, left = (int(n) for n in rng.integers(0, 20, 2))
        pixels[top : top + 16, left : left + 18, i % 2] = 250
        part = ("train", "val")[i % 4 == 3]
        path = folder / part / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(pixels))
        images.append({"id": i, "file_name": f"{part}/{i:02}.png", "width": 56, "height": 40})
        box = [left, top, 18, 16]
        notes.append({"id": i, "image_id": i, "category_id": i % 2, "bbox": box, "iscrowd": 0})
    named = [{"id": n, "name": name} for n, name in enumerate(("red", "green"))]
    document = {"images": images, "annotations": notes, "categories": named}
    (folder / "annotations.json").write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("boxes")
    recipe = {
        "name": "boxes",
        "data": {"source": str(scenes(folder / "scenes")), "split": {"by": "row", "test": 0.3}},
        "codec": {"size": [32, 48]},
        "model": {"family": "detector", "widths": [4, 4, 6, 8], "stem_width": 4, "width": 8,
                  "layers": 1},
        "train": {"task": "object_detection", **STAGE},
    }  # fmt: skip
    return api.train(recipe, out=folder / "run")


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Any:
    recipe = {
        "name": "digits",
        "data": {"source": "digits", "limit": 200, "split": {"by": "row", "test": 0.2}},
        "model": {"family": "unet", "width": 8, "multipliers": [1, 2], "blocks": 1,
                  "attention": [1], "heads": 2},
        "train": {"task": "image_generation", "options": {"steps": 2, "samples": 8}, **STAGE},
    }  # fmt: skip
    return api.train(recipe, out=tmp_path_factory.mktemp("made") / "run")


def test_boxes_are_those_of_the_trained_model(detector: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    proof = export(detector, out, lambda _: None, to="onnx")
    assert proof.samples == 4
    assert 0 < proof.largest <= proof.tolerance
    facts = json.loads((out / "preprocessing.json").read_text())
    rule = facts["boxes"]
    session = onnxruntime.InferenceSession(out / "model.onnx")
    model = api.load(detector)
    objective: Any = model.fitted.objective
    path = next((detector.path.parent / "scenes" / "train").glob("*.png"))
    turns = model.fitted.task.question(str(path))
    for least in (rule["least"], 0.0):
        objective.least = least
        (answer,) = model.answerer.answer([turns])
        encoded = model.fitted.codec.encode(Example(tuple(turns)))
        boxes, scores = (
            torch.from_numpy(a[0])
            for a in session.run(None, {"features": np.asarray(encoded["features"])[None]})
        )
        where, label = (scores >= least).nonzero(as_tuple=True)
        score = scores[where, label]
        kept = suppressed(boxes[where], score, label, overlap=rule["overlap"], most=rule["most"])
        assert len(kept) == len(answer.boxes)
        stretch = torch.tensor([56 / 48, 40 / 32] * 2)
        for number, box in zip(kept.tolist(), answer.boxes, strict=True):
            mine = (boxes[where] * stretch)[number].tolist()
            assert mine == pytest.approx([box.left, box.top, box.right, box.bottom], abs=1e-2)
            assert facts["labels"][int(label[number])] == box.label
    assert len(kept) > 0
    run_as_the_card_says(out)


@pytest.mark.parametrize("form", ["onnx", "torch-export"])
def test_pictures_are_made_by_the_graph_as_by_the_model(
    maker: Any, form: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    proof = export(maker, out, lambda _: None, to=form)
    assert proof.samples == 4
    assert 0 < proof.largest <= proof.tolerance
    if form != "onnx":
        return
    session = onnxruntime.InferenceSession(out / "model.onnx")
    model = api.load(maker)
    drawing: Any = model.answerer
    labels = np.array([3, 7], np.int64)
    start = torch.randn((2, 8, 8), generator=torch.Generator().manual_seed(4))

    def said(x: torch.Tensor, t: float, known: np.ndarray) -> torch.Tensor:
        given = {"noisy": x.numpy(), "times": np.full(2, 1000 * (1 - t), np.float32)}
        return torch.from_numpy(session.run(None, {**given, "labels": known})[0])

    def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
        return guided(said(x, t, np.full(2, -1)), said(x, t, labels), 2.0)

    theirs = integrate(velocity, start, 3)
    objective: Any = drawing.objective

    def ours(x: torch.Tensor, t: float) -> torch.Tensor:
        known = torch.from_numpy(labels)
        with torch.no_grad():
            both = [
                objective.velocity(drawing.model, x, t, n)
                for n in (torch.full_like(known, -1), known)
            ]
        return guided(both[0], both[1], 2.0)

    torch.testing.assert_close(theirs, integrate(ours, start, 3), rtol=1e-3, atol=1e-4)
    run_as_the_card_says(out)
