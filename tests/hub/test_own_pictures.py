"""Our own models of pictures, carried from one training to the next in the hub's layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modelwright import api
from modelwright.data.pictures import encode_png
from modelwright.data.sources import read_rows
from modelwright.errors import ModelwrightError
from modelwright.hub import own_pictures
from modelwright.hub.families import writer_of
from modelwright.hub.files import find
from modelwright.hub.loading import load
from modelwright.models import convnext, fast_cnn, resnet, vit
from modelwright.models.model import ModelConfig
from modelwright.pipeline.export import export

STAGE = {"steps": 3, "batch": 8, "threads": 1, "compile": False, "precision": "float32"}
SMALL: dict[str, dict[str, Any]] = {
    "fast_cnn": {"widths": [4, 8]},
    "resnet": {"depths": [1, 1], "widths": [4, 8], "stem_width": 4},
}


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (fast_cnn.Config(3), "own_pictures"),
        (resnet.Config(3, image=(32, 32)), "own_pictures"),
        (resnet.Config(3, stem="large", norm="group"), "own_pictures"),
        (resnet.Config(3, image=(96, 96)), "resnet"),
        (vit.Config(3, pool="mean"), "own_pictures"),
        (vit.Config(3), "vit"),
        (convnext.Config(3), "convnext"),
    ],
)
def test_who_writes_what(config: ModelConfig, name: str) -> None:
    assert writer_of(config).__name__.rsplit(".", 1)[1] == name  # type: ignore[attr-defined]


def test_a_network_for_small_pictures_stays_one() -> None:
    stored = own_pictures.config_to(resnet.Config(3, image=(32, 32)))
    assert stored["model"]["stem"] == "small"
    again = own_pictures.config_from(json.loads(json.dumps(stored)))
    assert again.to_dict() == {**stored["model"], "stem": "small"}


@pytest.mark.parametrize("model", [None, {"family": "mlp"}, {"family": "os"}, "fast_cnn"])
def test_what_is_no_model_of_pictures_is_refused(model: Any) -> None:
    with pytest.raises(ModelwrightError, match=r"model_type modelwright-pictures with a model of"):
        own_pictures.config_from({"model_type": "modelwright-pictures", "model": model})


def shapes(folder: Path) -> Path:
    """Pictures of 20 x 24 in three folders."""
    for i in range(36):
        label = ("bar", "dot", "plain")[i % 3]
        pixels = np.random.default_rng(i).integers(0, 90, (20, 24), dtype=np.uint8)
        if label == "bar":
            pixels[8:12] = 250
        if label == "dot":
            pixels[6:14, 8:16] = 250
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / f"{i:02}.png").write_bytes(encode_png(pixels))
    return folder


@pytest.mark.parametrize("family", SMALL)
def test_from_one_training_to_the_next(family: str, tmp_path: Path) -> None:
    """Trained on digits, written, and tuned on larger pictures of other classes."""
    first = api.train(
        {
            "name": "digits",
            "data": {"source": "digits", "limit": 200, "split": {"by": "row", "test": 0.2}},
            "model": {"family": family, **SMALL[family]},
            "train": {"task": "image_classification", **STAGE},
        },
        out=tmp_path / "digits",
    )
    out = tmp_path / "carried"
    assert export(first, out, lambda _: None, to="hub").samples > 0
    found = find(str(out))
    assert found.config["model_type"] == "modelwright-pictures"
    ours = api.load(first).fitted.model.state_dict()
    theirs = load(found, dtype=torch.float32).model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    values = {
        "name": "shapes",
        "data": {"source": str(shapes(tmp_path / "shapes")), "split": {"by": "row", "test": 0.2}},
        "model": {"from": str(out), "head": "new", "image": [16, 16]},
        "tune": {"task": "image_classification", **STAGE, "learning_rate": 1e-9},
    }
    tuned = api.load(api.tune(values, out=tmp_path / "tuned"))
    assert tuned.fitted.config.to_dict()["image"] == (16, 16)
    assert set(tuned.fitted.codec.labels) == {"bar", "dot", "plain"}  # type: ignore[attr-defined]
    after = tuned.fitted.model.state_dict()
    kept = [n for n in ours if n.endswith("conv.weight")]
    assert kept
    assert all(torch.allclose(after[name], ours[name], atol=1e-6) for name in kept)
    assert after["head.weight"].shape[0] == 3
    settings = json.loads((tuned.fitted.path.parents[2] / "data/codec/images.json").read_text())
    assert (
        settings["settings"]["mean"]
        == json.loads((first.path / "data/codec/images.json").read_text())["settings"]["mean"]
    )


def test_the_flowers(data: Callable[[str], Path]) -> None:
    rows = list(read_rows("flowers12", path=data("flowers12")))
    assert len(rows) == 960
    assert [sum(r["split"] == part for r in rows) for part in ("train", "test")] == [720, 240]
    assert len({r["label"] for r in rows}) == 12
