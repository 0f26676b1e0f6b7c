"""What answers rest on: asked of trained runs, in the report, and on the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright import api
from modelwright.cli import main
from modelwright.data.codecs.text import Codec as TextCodec
from modelwright.data.pictures import decode, encode_png
from modelwright.data.shards import open_shard
from modelwright.errors import ModelwrightError
from modelwright.pipeline.explained import enlarged, heated, words
from modelwright.runs import Run
from modelwright.types import Example, Text, Turn

STAGE = {"batch": 16, "threads": 1, "compile": False, "precision": "float32"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = {
        "name": "digits",
        "data": {"source": "digits", "limit": 500,
                 "split": {"by": "row", "validation": 0.2, "test": 0.2}},
        "model": {"family": "fast_cnn", "widths": [4, 8]},
        "train": {"task": "image_classification", "steps": 30, "learning_rate": 0.01,
                  "augment": [{"crop": {"padding": 1}}, "mixup"], **STAGE},
        "evaluate": {"views": 2},
    }  # fmt: skip
    return api.run(recipe, out=tmp_path_factory.mktemp("explained") / "run")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Reviews in which one word decides."""
    folder = tmp_path_factory.mktemp("texts")
    rng = np.random.default_rng(0)
    plain = ["the", "film", "was", "seen", "by", "many", "in", "a", "large", "hall"]
    lines = []
    for i in range(240):
        found = rng.choice(plain, 6).tolist()
        found.insert(int(rng.integers(6)), ("awful", "superb")[i % 2])
        lines.append({"text": " ".join(found), "label": ("bad", "good")[i % 2]})
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = {
        "name": "reviews",
        "data": {"source": str(folder / "rows.jsonl"), "split": {"by": "row", "test": 0.1}},
        "codec": {"vocabulary": 300},
        "model": {"family": "encoder", "depth": 1, "width": 16, "heads": 2, "dropout": 0.0},
        "train": {"task": "text_classification", "steps": 120, "learning_rate": 0.01, **STAGE},
    }
    return api.train(recipe, out=folder / "run")


def facts(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.path / "evaluation.json").read_text())
    return found


def test_what_was_taken_for_what_adds_up(pictures: Run) -> None:
    found = facts(pictures)
    (part,) = found["confusions"]
    total = sum(count for *_, count in part["cells"])
    right = sum(count for meant, said, count in part["cells"] if meant == said)
    accuracy = next(m for m in found["measures"] if m["name"] == "test accuracy")
    assert accuracy["rows"][0]["value"] == pytest.approx(right / total)
    assert accuracy["rows"][1]["who"] == "ours, mean of 3 views"
    (calibration,) = found["calibration"]
    assert sum(row["answers"] for row in calibration["rows"]) == total
    error = next(m for m in found["measures"] if m["name"] == "test calibration error")
    assert 0 <= error["rows"][0]["value"] <= 1


def test_views_are_the_same_when_asked_again(pictures: Run) -> None:
    before = facts(pictures)["measures"]
    (pictures.path / "evaluation.json").unlink()
    assert api.evaluate(pictures)["measures"] == before


def test_views_need_an_augmentation(pictures: Run, tmp_path: Path) -> None:
    recipe = pictures.recipe.model_dump(exclude_unset=True)
    recipe["train"] |= {"augment": ["mixup"], "steps": 2}
    with pytest.raises(ModelwrightError, match=r"train\.augment names no transform"):
        api.run(recipe, out=tmp_path / "run")
    assert not list(tmp_path.rglob("step-*"))


def test_views_need_labels(tmp_path: Path) -> None:
    recipe = {
        "name": "views",
        "data": {"source": "digits", "limit": 60},
        "model": {"family": "unet", "width": 8},
        "train": {"task": "image_generation", "steps": 2, "augment": ["flip"]},
        "evaluate": {"views": 2},
    }
    with pytest.raises(
        ModelwrightError, match="evaluate.views: .*image_generation does not choose"
    ):
        api.run(recipe, out=tmp_path / "run")


def test_the_surest_mistakes_are_in_the_report(pictures: Run) -> None:
    path = pictures.path / "samples" / "mistakes-train.png"
    assert decode(path.read_bytes())[0].ndim == 3
    page = (pictures.path / "report.html").read_text()
    assert "the surest mistakes on validation; beside each Grad-CAM" in page
    assert "What was taken for what, train" in page
    assert "by how sure they are, train" in page


def test_without_captum_the_sheet_has_no_maps(
    pictures: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pictures.path / "samples" / "mistakes-train.png"
    before = decode(path.read_bytes())[0].shape
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    (pictures.path / "evaluation.json").unlink()
    api.evaluate(pictures)
    assert "drawn without maps: explanations need captum" in capsys.readouterr().err
    assert decode(path.read_bytes())[0].shape[1] < before[1]


def test_a_picture_is_explained(
    pictures: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.asarray(open_shard(pictures.path / "data/train/test")["features"])[0]
    (tmp_path / "digit.png").write_bytes(encode_png(pixels))
    out = tmp_path / "why.png"
    assert (
        main(["explain", str(pictures.path), str(tmp_path / "digit.png"), "--out", str(out)]) == 0
    )
    said = capsys.readouterr().out
    assert "maps: Grad-CAM, integrated gradients" in said
    assert str(out) in said
    sheet = decode(out.read_bytes())[0]
    found = api.load(pictures).explain(str(tmp_path / "digit.png"), label="3")
    assert found.label == "3"
    assert sheet.shape == found.sheet.shape
    assert set(found.maps) == {"Grad-CAM", "integrated gradients"}
    assert all(m.shape == (8, 8) and 0 <= m.min() <= m.max() <= 1 for m in found.maps.values())
    with pytest.raises(ModelwrightError, match="no label 'three'.*known: 0, 1"):
        api.load(pictures).explain(str(tmp_path / "digit.png"), label="three")


def test_the_word_that_decides_weighs_most(texts: Run, capsys: pytest.CaptureFixture[str]) -> None:
    model = api.load(texts)
    for word, label in (("superb", "good"), ("awful", "bad")):
        text = f"the film was {word} in a large hall"
        found = model.explain(text)
        assert found.label == label
        assert max(found.parts, key=lambda part: part[1])[0].strip() == word
        assert "".join(name for name, _ in found.parts).startswith(text)
        against = model.explain(text, label={"good": "bad", "bad": "good"}[label])
        assert min(against.parts, key=lambda part: part[1])[0].strip() == word
    assert main(["explain", str(texts.path), "a superb hall"]) == 0
    assert "for      superb" in capsys.readouterr().out


def test_pieces_are_joined_to_words_and_characters() -> None:
    rows = [Example((Turn("document", (Text("plain words only"),)),))]
    codec = TextCodec.fit(rows, vocabulary=290)
    for text in ("superb, isn't it", "好电影 good 2020"):
        tokens = codec.tokens(text)
        found = words(codec, tokens, [1.0] * len(tokens))
        assert "".join(name for name, _ in found) == text
        assert sum(value for _, value in found) == len(tokens)
        assert all("\ufffd" not in name for name, _ in found)
    assert [name for name, _ in words(codec, codec.tokens("好a"), [0.0] * 4)] == ["好", "a"]


def test_maps_over_pictures() -> None:
    picture = np.full((2, 4), 100, np.uint8)
    hot = np.zeros((2, 4))
    hot[0, 0] = 1.0
    drawn = heated(picture, hot)
    assert drawn.shape == (2, 4, 3)
    assert (drawn[1] == 70).all()
    assert drawn[0, 0, 0] > 200
    assert drawn[0, 0, 2] < 100
    assert enlarged(picture, 8).shape == (4, 8, 3)
    assert max(enlarged(np.zeros((900, 600), np.uint8), 100).shape) == 200
