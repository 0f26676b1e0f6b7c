"""Rows with pictures to examples, and what is said of those that are none."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from modelwright import api
from modelwright.data.pictures import encode_png
from modelwright.errors import ModelwrightError
from modelwright.evaluation.metrics import MacroF1
from modelwright.tasks.image_classification import ImageClassification
from modelwright.types import Example, Image, ImageFile, Part, Row

STAGE = {"steps": 3, "batch": 8, "threads": 1, "compile": False, "precision": "float32"}


def png(seed: int, side: int = 12) -> bytes:
    return encode_png(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def part(row: Row, **options: str) -> Part:
    (example,) = ImageClassification(**options).examples({"id": "r", "label": "a", **row})
    assert isinstance(example, Example)
    return example.turns[0].parts[0]


def test_where_the_picture_lies() -> None:
    pixels = np.zeros((2, 2), np.uint8)
    found = part({"image": png(0), "pixels": pixels})
    assert isinstance(found, ImageFile)
    assert (found.content, found.name) == (png(0), "r")
    assert isinstance(part({"pixels": pixels, "x": pixels}), Image)
    assert isinstance(part({"x": pixels}), Image)
    table = part({"image": {"bytes": png(1), "path": "a.png"}})
    assert isinstance(table, ImageFile)
    assert table.content == png(1)
    named = part({"photo": png(2)}, image="photo")
    assert isinstance(named, ImageFile)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"image": png(0)[:60]}, "image cannot be decoded"),
        ({"image": b"GIF89a"}, "image cannot be decoded"),
        ({"image": None}, "no image"),
        ({"image": b""}, "no image"),
        ({"image": {"bytes": None, "path": "a.png"}}, "no image"),
        ({"image": png(0), "label": None}, "no label"),
    ],
)
def test_rows_that_leave_with_a_reason(row: Row, why: str) -> None:
    assert ImageClassification().examples({"id": "r", "label": "a", **row}) == why


def test_a_name_of_no_file_is_no_picture() -> None:
    with pytest.raises(ModelwrightError, match=r"^row r: column 'image' holds 'a\.png', neither"):
        ImageClassification().examples({"id": "r", "label": "a", "image": "a.png"})


def test_questions_are_pictures_or_pixels_and_paths_on_this_machine_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(3))
    task = ImageClassification()
    (turn,) = task.question(f" {path} ")
    assert isinstance(turn.parts[0], ImageFile)
    for ask in (task.request, task.question):
        (turn,) = ask("[[0, 255], [3, 4]]")
        assert isinstance(turn.parts[0], Image)
        assert turn.parts[0].pixels.dtype == np.uint8
        (turn,) = ask("data:image/png;base64," + base64.b64encode(png(3)).decode())
        assert isinstance(turn.parts[0], ImageFile)
        assert turn.parts[0].content == png(3)
    for ask, question, why in (
        (
            task.question,
            "no/such.png",
            r"^no/such\.png: cannot be read \(No such file or directory\)",
        ),
        (task.question, str(tmp_path), "cannot be read"),
        (task.request, str(path), "as data:image/jpeg;base64"),
        (task.request, "[[0, 256]]", "whole numbers 0..255"),
        (task.request, "[[0.5, 2]]", "whole numbers 0..255"),
        (task.request, "data:image/png;base64,?", "no base64"),
    ):
        with pytest.raises(ModelwrightError, match=why):
            ask(question)


def test_a_folder_of_pictures_trains_and_bad_files_are_named(tmp_path: Path) -> None:
    """From ImageNet's layout to an answer; a damaged file leaves, and its name is kept."""
    folder = tmp_path / "pictures"
    for i in range(40):
        label = ("dark", "light")[i % 2]
        path = folder / label / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        grain = np.random.default_rng(i).integers(0, 60, (10 + i % 3, 12, 3), dtype=np.uint8)
        path.write_bytes(encode_png(grain + np.uint8(190 * (i % 2))))
    (folder / "dark" / "cut.png").write_bytes(png(0)[:80])
    (folder / "light" / "text.jpg").write_bytes(b"not a picture")
    bright = np.full((9, 9, 3), 230, np.uint8)
    (folder / "light" / "called.jpg").write_bytes(encode_png(bright))  # the content decides
    recipe = {
        "name": "shades",
        "data": {"source": str(folder), "split": {"by": "row", "validation": 0.1, "test": 0.3}},
        "codec": {"size": 10},
        "model": {"family": "fast_cnn", "widths": [4, 6, 8]},
        "train": {
            "task": "image_classification",
            **{**STAGE, "steps": 25},
            "learning_rate": 0.02,
            "augment": ["flip"],
        },
    }
    run = api.run(recipe, out=tmp_path / "run")
    (step,) = [s for s in run.read_json("data/waterfall.json") if "image_class" in s["step"]]
    assert step["examples"] == {"image cannot be decoded": ["dark/cut.png", "light/text.jpg"]}
    measures = {m["name"]: m for m in run.read_json("evaluation.json")["measures"]}
    assert set(measures) == {"test accuracy", "test macro-F1", "test calibration error"}
    rows = {r["who"]: r["value"] for r in measures["test accuracy"]["rows"]}
    assert set(rows) == {"ours", "majority class", "linear model"}
    assert rows["ours"] > rows["majority class"]
    model = api.load(run)
    assert model(str(folder / "light" / "01.png")) == "light"
    assert model(str(folder / "light" / "called.jpg")) == "light"
    with pytest.raises(ModelwrightError, match=r"cut\.png: cannot be decoded"):
        model(str(folder / "dark" / "cut.png"))


def test_mnist_is_read_as_it_is(data: Callable[[str], Path], tmp_path: Path) -> None:
    recipe = {
        "name": "digits",
        "data": {"source": "mnist", "path": str(data("mnist")), "limit": 300},
        "model": {"family": "mlp", "hidden": [16]},
        "train": {"task": "image_classification", **STAGE},
        "evaluate": {"baselines": False},
    }
    run = api.train(recipe, out=tmp_path / "run")
    facts = json.loads((run.path / "data" / "codec" / "images.json").read_text())["settings"]
    assert (facts["height"], facts["width"], len(facts["mean"])) == (28, 28, 1)
    assert 0.1 < facts["mean"][0] < 0.16  # 0.1307 over the whole train split


def test_macro_f1_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    for count in (1, 5, 60):
        meant = rng.integers(0, 5, count).tolist()
        said = rng.integers(0, 6, count).tolist()
        measure, parts = MacroF1(), [MacroF1(), MacroF1()]
        for i, (a, b) in enumerate(zip(meant, said, strict=True)):
            measure.add(a, b)
            parts[i % 2].add(a, b)
        found = metrics.f1_score(meant, said, average="macro", zero_division=0)
        assert measure.value == pytest.approx(found, abs=1e-12)
        assert parts[0].merge(parts[1]).value == measure.value
    with pytest.raises(ModelwrightError, match="nothing to measure"):
        _ = MacroF1().value
