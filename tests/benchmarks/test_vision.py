"""The scripts of benchmarks/vision: the same data and work for all, and a method that learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from benchmarks import vision
from benchmarks.training import measure
from benchmarks.vision import ours, pictures, scripts, shapes, throughput, time_to_ninety
from benchmarks.vision.peers import loader_loop, speed_run
from modelwright.errors import MachineError
from modelwright.models import fast_cnn, resnet
from modelwright.recipe import Stage


def some(count: int = 96) -> pictures.Pictures:
    """Pictures whose class is their brightest channel."""
    rng = np.random.default_rng(0)
    y = np.arange(count, dtype=np.int64) % 3
    x = rng.integers(0, 120, (count, 32, 32, 3), dtype=np.uint8)
    x[np.arange(count), :, :, y] += 120
    return pictures.Pictures(x, y, x[:30], y[:30])


def test_ours_and_the_loop_have_the_same_network() -> None:
    config = resnet.Config(
        classes=pictures.CLASSES, image=(32, 32), **resnet.Config.sizes["resnet18"]
    )
    assert (config.depths, config.widths) == (shapes.DEPTHS, shapes.WIDTHS)
    with torch.device("meta"):
        mine, theirs = config.build(), loader_loop.resnet18()
    count = [sum(p.numel() for p in m.parameters()) for m in (mine, theirs)]
    assert count[0] == count[1] == 11_173_962


def test_the_settings_of_ours_are_those_of_a_recipe() -> None:
    settings = yaml.safe_load(ours.SETTINGS.read_text(encoding="utf-8"))
    config = fast_cnn.Config(classes=10, **settings["model"])
    assert config.widths == tuple(settings["model"]["widths"])
    stage = {k: v for k, v in settings["train"].items() if k != "label_smoothing"}
    made = Stage(task="image_classification", **stage)
    assert stage.items() <= made.model_dump().items()
    assert settings["accuracy"] == speed_run.TARGET == 0.90


def test_the_whitened_patches_are_white() -> None:
    x = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    x = x + 2 * x.mean((1, 2, 3), keepdim=True) + x.roll(1, 3)
    model = speed_run.Network()
    model.whitened(x)
    made = torch.nn.functional.conv2d(x, model.whiten.weight[:12]).transpose(0, 1).flatten(1)
    torch.testing.assert_close(made @ made.T / made.shape[1], torch.eye(12), atol=5e-3, rtol=0)
    assert torch.equal(model.whiten.weight[12:], -model.whiten.weight[:12])


def test_views_move_by_two_pixels_and_are_mirrored_together() -> None:
    x = torch.arange(4 * 3 * 32 * 32, dtype=torch.float32).view(4, 3, 32, 32)
    torch.manual_seed(0)
    plain = speed_run.views(x, False)
    torch.manual_seed(0)
    assert torch.equal(speed_run.views(x, True), plain.flip(3))
    offsets = (plain - x)[:, 0, 8:24, 8:24]
    assert all(len(one.unique()) == 1 for one in offsets)
    steps = {round(float(one[0, 0])) for one in offsets}
    assert steps <= {32 * a + b for a in range(-2, 3) for b in range(-2, 3)}


def test_the_method_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed_run, "BATCH", 24)
    monkeypatch.setattr(speed_run, "WIDTHS", (8, 16, 16))
    torch.manual_seed(1)
    found = some()
    x = (torch.from_numpy(found.x).float() / 127.5 - 1).permute(0, 3, 1, 2)
    model = speed_run.Network()
    model.whitened(x)
    speed_run.train(model, x, torch.from_numpy(found.y), 10.0, torch.autocast("cpu", enabled=False))
    model.eval()
    with torch.no_grad():
        right = (model(x).argmax(1).numpy() == found.y).mean()
    assert right > 0.9


def test_the_judge_counts_what_is_right_and_may_look_twice() -> None:
    found = some()
    seen: list[int] = []

    def brightest(x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        logits = torch.zeros(len(x), 10)
        logits[:, :3] = x.mean((1, 2))
        return logits

    assert pictures.accuracy(brightest, found) == 1.0
    assert pictures.accuracy(brightest, found, mirrored=True) == 1.0
    assert len(seen) == 3
    assert pictures.accuracy(lambda x: -brightest(x), found) == 0.0


def test_a_row_holds_only_if_every_run_of_ours_arrived() -> None:
    def run(seconds: float, accuracy: float) -> dict[str, Any]:
        return {"wall_seconds": seconds, "accuracy": accuracy, "reached": accuracy >= 0.9}

    row = time_to_ninety.judged([run(90, 0.91), run(100, 0.92)], [run(120, 0.9), run(130, 0.89)])
    assert row.holds
    assert row.ratio == pytest.approx(95 / 125)
    assert not time_to_ninety.judged([run(90, 0.89)], [run(120, 0.9)]).holds
    assert not time_to_ninety.judged([run(130, 0.95)], [run(120, 0.9)]).holds


def test_every_contender_is_a_script_of_this_package(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(measure, "_run", lambda *a: asked.append(a[0]) or {})
    for module, name in (("throughput", "ours"), ("throughput", "peers.keras_fit")):
        assert module in vision.PARTS
        scripts.script(name, "resnet18")()
    for quick in (True, False):
        for contender in throughput.contenders(quick, 1).values():
            contender()
    folder = Path(vision.__file__).parent
    for name in asked:
        package, _, rest = name.partition("vision.")
        assert package == "benchmarks."
        assert (folder / (rest.replace(".", "/") + ".py")).is_file()


def test_the_pictures_are_shuffled_once_and_held_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pictures.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(pictures, "HELD_OUT", 20)
    folder = tmp_path / "cifar10"
    folder.mkdir()
    monkeypatch.setattr(pictures.data, "folder", lambda _: folder)
    rows = [{"pixels": np.full((32, 32, 3), i, np.uint8), "label": "ab"[i % 2]} for i in range(100)]
    monkeypatch.setattr("modelwright.data.sources.read_rows", lambda *a, **k: iter(rows))
    whole, few = pictures.cifar10(), pictures.cifar10(10)
    assert (len(whole.x), len(whole.held_x)) == (80, 20)
    assert (len(few.x), len(few.held_x)) == (10, 10)
    assert np.array_equal(few.x, whole.x[:10])
    seen = {int(p[0, 0, 0]) for p in whole.x} | {int(p[0, 0, 0]) for p in whole.held_x}
    assert len(seen) == 100
    assert (whole.y == whole.x[:, 0, 0, 0] % 2).all()


def test_data_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MODELWRIGHT_DATA", str(tmp_path))
    for part in (throughput, time_to_ninety):
        with pytest.raises(MachineError, match="no data set cifar10"):
            part.rows(True)
