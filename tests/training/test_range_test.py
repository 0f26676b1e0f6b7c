"""The learning-rate range test: where it stops, what it suggests, and that it leaves no trace."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from modelwright.errors import ModelwrightError
from modelwright.training import range_test as module
from modelwright.training.optimizers import NAMES
from modelwright.training.range_test import range_test, smoothed, suggested, table
from modelwright.training.train import Trainer
from tests.trainings import Setting, raw


def everything(trainer: Trainer) -> dict[str, object]:
    """Every bit that a later step depends on."""
    optimizers = trainer.optimizers
    groups = {g: {n: raw(t) for n, t in s.items()} for g, s in optimizers.saved().items()}
    return {
        **groups,
        "model": {n: raw(t) for n, t in trainer.model.state_dict().items()},
        "rates": [(g["base_lr"], g["lr"]) for g in optimizers.groups],
        "settings": (trainer.schedule, trainer.warmup, trainer.guard.state()),
        "mode": trainer.model.training,
        "random": raw(torch.get_rng_state()),
    }


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("name", NAMES)
def test_it_leaves_no_trace(name: str, ema: float) -> None:
    setting = replace(Setting("documents"), optimizer=name, ema=ema, steps=5)
    tried, plain = setting.trainer(), setting.trainer()
    setting.go(tried, 0, 2)  # in the middle of a training, too
    setting.go(plain, 0, 2)
    tried.model.eval()
    before = everything(tried)
    range_test(tried, steps=24)
    assert everything(tried) == before
    assert setting.go(tried, 2, 5) == setting.go(plain, 2, 5)


def test_the_rate_rises_by_the_same_factor_and_the_base_is_not_the_schedules() -> None:
    trainer = Setting("documents").trainer()
    found = range_test(trainer, low=0.01, high=10, steps=31)
    ratios = [b / a for a, b in zip(found.rates, found.rates[1:], strict=False)]
    assert ratios == pytest.approx([10 ** (3 / 30)] * len(ratios))
    assert found.rates[0] == pytest.approx(0.01 * 0.01)
    assert len(found.rates) == len(found.losses) == len(found.smoothed)


def test_it_stops_when_the_loss_runs_away() -> None:
    trainer = replace(Setting("documents"), optimizer="sgd", clip=0.0).trainer()
    found = range_test(trainer, low=1e-3, high=1e7, steps=60)
    assert found.diverged is not None
    assert len(found.losses) < 60
    assert found.suggestion < found.diverged
    assert "diverged" in table(found)


def test_it_puts_things_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Setting("documents").trainer()
    before = everything(trainer)
    step = trainer.step

    def broken(number: int) -> object:
        if number == 5:
            raise RuntimeError("a fault of the machine")
        return step(number)

    monkeypatch.setattr(trainer, "step", broken)
    with pytest.raises(RuntimeError, match="a fault of the machine"):
        range_test(trainer, steps=20)
    assert everything(trainer) == before


def test_the_suggestion_trains() -> None:
    """From a base that is far off to either side, the rate found learns far more than the base."""
    for base in (1e-6, 10.0):
        setting = replace(Setting("documents"), learning_rate=base, steps=30, schedule="constant")
        found = range_test(setting.trainer(), low=1e-6, high=1e6, steps=100)
        assert 1e-4 < found.suggestion < 1
        better = replace(setting, learning_rate=found.suggestion)
        assert better.trained(0, 30)[-1][0] < setting.trained(0, 30)[-1][0] - 0.1


def test_muon_is_told_both_rates() -> None:
    found = range_test(replace(Setting("documents"), optimizer="muon").trainer(), steps=60)
    assert set(found.keys) == {"learning_rate", "matrix_learning_rate"}
    ratio = found.keys["matrix_learning_rate"] / found.keys["learning_rate"]
    assert ratio == pytest.approx(0.02 / 0.01)
    assert found.keys["matrix_learning_rate"] == pytest.approx(found.suggestion)


# -- the curve alone -------------------------------------------------------------------------

RATES = [10 ** (i / 10 - 4) for i in range(41)]


def test_the_steepest_place_is_suggested() -> None:
    losses = [3 - 2 / (1 + math.exp(-3 * (math.log10(r) + 3))) for r in RATES]  # steepest at 1e-3
    assert suggested(RATES, losses) == pytest.approx(1e-3, rel=0.3)


def test_but_not_near_the_minimum() -> None:
    losses = [3.0] * 30 + [2.9, 1.0] + [4.0] * 9  # a cliff just before the lowest loss
    assert suggested(RATES, losses) == pytest.approx(RATES[31] / 3)


@pytest.mark.parametrize("losses", [[1.0] * 41, [1 + i for i in range(41)]])
def test_a_curve_that_never_falls_suggests_nothing(losses: list[float]) -> None:
    with pytest.raises(ModelwrightError, match="the loss falls at no rate"):
        suggested(RATES, losses)


def test_smoothing_does_not_lag() -> None:
    assert smoothed([0, 0, 0, 9, 0, 0, 0], 3) == [0, 0, 3, 3, 3, 0, 0]


def test_the_table_marks_one_line() -> None:
    found = range_test(Setting("documents").trainer(), steps=60)
    lines = table(found).splitlines()
    assert sum("<- use this" in line for line in lines) == 1
    assert len(lines) <= module.LINES + 2


@pytest.mark.parametrize(("low", "high", "steps"), [(1.0, 0.5, 20), (0.0, 1.0, 20), (0.1, 1, 4)])
def test_no_sweep_is_refused(low: float, high: float, steps: int) -> None:
    with pytest.raises(ValueError, match="8 steps or more"):
        range_test(Setting("documents").trainer(), low=low, high=high, steps=steps)
