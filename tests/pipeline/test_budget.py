"""The dial: derived values have reasons, and more time never makes a smaller model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright import recipe
from modelwright.errors import ModelwrightError
from modelwright.runtime import Machine
from modelwright.training import budget

MACHINE = Machine(
    cpu="test",
    cores=4,
    memory_gib=16.0,
    system="Linux",
    python="3.11",
    device="cpu",
    matmul_gflops={"float32": 250.0, "bfloat16": 800.0},
)


def made(time: str | None, **more: object) -> recipe.Recipe:
    values = {
        "name": "t",
        "budget": time,
        "data": {"source": "python-stdlib"},
        "train": {"task": "documents"},
        **more,
    }
    return recipe.parse(values)


def matrices(seconds: int) -> int:
    from modelwright.models.decoder import Config

    r = made(f"{seconds}s")
    derived = budget.Derived()
    budget.derive_machine(r, MACHINE, derived)
    fields = budget.derive_model(r, MACHINE, derived)
    assert set(derived.reasons) == set(derived.values)
    assert all(derived.reasons.values())
    return Config(vocabulary=4096, **fields).matrix_parameters()


@given(st.integers(20, 40_000), st.integers(1, 20))
def test_more_time_never_makes_a_much_smaller_model(seconds: int, times: int) -> None:
    # Shapes come in steps, so a slightly longer time may round down, never far.
    assert matrices(seconds * times) >= 0.9 * matrices(seconds)


@pytest.mark.parametrize("target", [300_000, 1_000_000, 10_000_000, 124_000_000, 1_000_000_000])
def test_a_named_size_is_met(target: int) -> None:
    from modelwright.models.decoder import Config

    size = Config(vocabulary=1, **Config.of_size(target, {})).matrix_parameters()
    assert target / 1.7 < size < target * 1.7


def test_the_budget_is_shared_between_the_stages() -> None:
    tune = {"task": "docstrings", "share": 0.25}
    r = made("100s", tune=tune)
    assert budget.stage_seconds(r, "train") == 75
    assert budget.stage_seconds(r, "tune") == 25
    assert budget.stage_seconds(made(None), "train") is None


def test_steps_follow_from_the_measured_time() -> None:
    r, derived = made("60s"), budget.Derived()
    assert budget.derive_steps(r, "train", 1000.0, lambda: 0.5, derived) == 120
    assert "500 ms" in derived.reasons["train.steps"]


def test_many_passes_over_little_text_are_capped() -> None:
    derived = budget.Derived()
    assert budget.derive_steps(made("1h"), "train", 10.0, lambda: 0.1, derived) == 40
    assert "teach little" in derived.reasons["train.steps"]


def test_given_steps_and_epochs_win() -> None:
    r = made("1h", train={"task": "documents", "steps": 7})
    assert budget.derive_steps(r, "train", 10.0, lambda: 0.1, budget.Derived()) == 7
    r = made(None, train={"task": "documents", "epochs": 2.5})
    assert budget.derive_steps(r, "train", 10.0, lambda: 0.1, budget.Derived()) == 25


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("3m", 180), ("1h30m", 5400), ("1.5h", 5400), ("3m50s", 230)]
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert recipe.seconds(text) == seconds


@pytest.mark.parametrize("text", ["3", "m3", "3x", "", "0s", "3m!"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ModelwrightError, match="budget"):
        recipe.seconds(text)


@pytest.mark.parametrize(("text", "number"), [("5M", 5_000_000), (12, 12), ("1.2b", 1_200_000_000)])
def test_counts_are_read(text: str | int, number: int) -> None:
    assert recipe.count(text) == number
