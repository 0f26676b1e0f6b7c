"""The plan of any family: a traced step under three bounds, and no loss."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from modelwright import api, recipe
from modelwright.errors import ModelwrightError
from modelwright.extensions import short
from modelwright.models.model import config_class, families
from modelwright.pipeline.elsewhere import Estimate, estimate, forecast_lines, lines, utilisation
from modelwright.pipeline.trace import meta
from tests.exporting import tiny_runs

TRAIN = {"task": "vector_classification", "objective": "classification", "steps": 100, "batch": 64}
PERCEPTRON = {"family": "mlp", "features": 784, "classes": 10, "hidden": [4096, 4096]}


def planned(on: str, model: dict[str, Any], price: float | None = None, **train: Any) -> Estimate:
    values = {"name": "t", "data": {"source": "x"}, "model": model, "train": {**TRAIN, **train}}
    return estimate(recipe.parse(values), on, price)


@pytest.mark.parametrize("family", families(), ids=short)
def test_every_family_is_forecast(family: str) -> None:
    # A field of vocos is called size, which in a recipe is the name of a member.
    given = {k: v for k, v in config_class(family).specimen.items() if k != "size"}
    made = planned("8xH100", {"family": family, **given}, 2.0, optimizer="adamw")
    bounds = (made.products, made.launching, made.moving, made.exchange_seconds, made.seconds)
    assert all(0 < x < math.inf for x in bounds), bounds
    assert 0 < made.utilisation <= made.assumed <= 0.5
    assert 0 < made.memory.total < made.capacity
    assert made.cost == pytest.approx(made.seconds / 3600 * 8 * 2.0)
    assert "none forecast" in "\n".join(lines(made))


@pytest.mark.parametrize("family", ["mlp", "encoder", "rnn", "fast_cnn"])
def test_twice_the_devices_take_no_longer_than_the_exchange_says(family: str) -> None:
    given = config_class(family).specimen
    for power in range(5):
        one, two = (
            planned(f"{2**p}xA100", {"family": family, **given}, batch=64, optimizer="adamw")
            for p in (power, power + 1)
        )
        more = (two.exchange_seconds + 1e-12) * two.steps
        assert two.seconds <= one.seconds * 1.05 + more


def test_a_tiny_model_is_bound_by_launches_and_a_large_batch_by_its_bytes() -> None:
    tiny = planned("H100", {**PERCEPTRON, "hidden": [16]})
    assert tiny.compute_seconds == tiny.launching > tiny.products
    pictures = {"family": "fast_cnn", **config_class("fast_cnn").specimen}
    wide = planned("H100", pictures, batch=1 << 19)
    assert wide.compute_seconds == wide.moving > wide.launching


def test_large_products_reach_what_is_assumed() -> None:
    made = planned("H100", PERCEPTRON, batch=65_536)
    assert made.compute_seconds >= made.products
    assert made.launching < made.products
    slower = planned("H100", PERCEPTRON, batch=65_536, precision="float32")
    assert slower.products == pytest.approx(made.products * 989 / 67)


def test_convolutions_and_matrices_have_shares_of_their_own() -> None:
    shares = {
        f: utilisation(meta(config_class(f)(**config_class(f).specimen)))
        for f in ("fast_cnn", "mlp")
    }
    assert shares["fast_cnn"] == 0.2
    assert 0 < shares["mlp"] < 0.1


def test_what_does_not_fit_is_cut_and_then_refused() -> None:
    huge = {**PERCEPTRON, "hidden": [65_536, 65_536]}  # 4.3e9 parameters: 64 GiB of AdamW
    made = planned("8xH100", huge, optimizer="adamw")
    assert made.step.shards > 1
    assert made.memory.total < made.capacity
    with pytest.raises(ModelwrightError, match="take more or larger devices") as caught:
        planned("1xL4", huge, optimizer="adamw")
    assert "\n" not in str(caught.value)


def test_what_the_data_decide_is_asked_for() -> None:
    with pytest.raises(ModelwrightError, match=r"model\.features=\.\.\. model\.classes"):
        planned("H100", {"family": "mlp"})
    with pytest.raises(ModelwrightError, match="depends on the data"):
        planned("H100", PERCEPTRON, steps=None, epochs=3)
    with pytest.raises(ModelwrightError, match="--price"):
        planned("H100", PERCEPTRON, -1.0)


def test_a_run_knows_what_its_data_decide(tmp_path: Path) -> None:
    """Fields and steps are those of the training, and what is asked for beside them holds."""
    made = tiny_runs.RECIPES["mlp"](tmp_path / "data")
    del made["train"]["steps"]
    made["train"] |= {"epochs": 2}
    run = api.train({"name": "tiny", "seed": 1, **made}, out=tmp_path / "run")
    known = run.manifest["stages"]["train"]["resolved"]
    with pytest.raises(ModelwrightError, match=r"or plan a run whose training has begun"):
        estimate(recipe.read(str(run.path / "recipe.yaml"), []), "H100")
    found = estimate(api.planned(run.path), "8xH100")
    assert found.steps == known["steps"] and found.config.classes == known["model"]["classes"]
    larger = estimate(api.planned(run.path, ["train.batch=4096"]), "8xH100")
    assert larger.rows == 4096


def test_a_budget_of_time_is_kept() -> None:
    values = {"name": "t", "data": {"source": "x"}, "model": PERCEPTRON, "budget": "10m"}
    read = recipe.parse({**values, "train": {**TRAIN, "steps": None}})
    made = estimate(read, "2xA100")
    assert 590 < made.seconds <= 600


def test_the_decoder_keeps_its_own_formulas() -> None:
    text = forecast_lines(recipe.read("quickstart"), "2xA100")
    assert any("nats per token" in line for line in text)
