"""The plan: the same recipe elsewhere, as a forecast with its assumptions."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright import recipe
from modelwright.errors import ModelwrightError
from modelwright.pipeline.plan import DEVICES, Plan, duration, lines, parse_target, plan


def planned(on: str, price: float | None = None, **values: Any) -> Plan:
    base = {"name": "t", "data": {"source": "x"}, "train": {"task": "documents"}}
    base |= {"budget": "20Btok", "model": {"parameters": "1B", "context": 1024}}
    return plan(recipe.parse({**base, **values}), on, price)


def test_time_memory_cost_and_loss_are_stated_with_their_assumptions() -> None:
    made = planned("8xH100", 2.5)
    text = "\n".join(lines(made))
    for word in ("forecast", "time", "memory", "cost", "loss", "error", "assumed", "https://"):
        assert word in text
    assert made.cost == pytest.approx(made.seconds / 3600 * 8 * 2.5)
    assert made.tokens == pytest.approx(20e9, rel=0.001)
    assert made.memory.total < made.capacity
    # 6 N D at 30 to 50 % of 8 x 989 TFLOP/s, attention and head beside: 4 to 14 hours.
    assert 4 < made.seconds / 3600 < 14


def test_a_published_training_is_met_within_a_factor_of_two() -> None:
    """Llama 2 7B: 184,320 A100-80GB hours for 2.0T tokens (arXiv:2307.09288, table 2)."""
    shape = {"depth": 32, "width": 4096, "heads": 32, "kv_heads": 32, "feed_forward": "gated"}
    made = planned(
        "256xA100",
        budget="2Ttok",
        codec={"vocabulary": 32_000},
        model={**shape, "hidden": 11_008, "context": 4096},
        train={"task": "documents", "optimizer": "adamw", "batch": 1024},
    )
    hours = made.seconds / 3600 * 256
    assert 184_320 / 2 < hours < 184_320 * 2


@given(st.sampled_from(sorted(DEVICES)), st.integers(0, 10))
@settings(max_examples=30, deadline=None)
def test_more_devices_never_take_longer(kind: str, power: int) -> None:
    small = {"parameters": "100M", "context": 1024}
    train = {"task": "documents", "batch": 4096, "optimizer": "adamw"}
    one = planned(f"{2**power}x{kind}", model=small, train=train)
    two = planned(f"{2 ** (power + 1)}x{kind}", model=small, train=train)
    assert two.seconds <= one.seconds * 1.05 or two.exchange_seconds > two.compute_seconds
    assert 0 < one.utilisation < 0.6


def test_a_budget_of_time_buys_more_on_more_devices() -> None:
    for budget in ("10m", "1d"):
        one = planned("1xA100", budget=budget, model={"context": 256})
        many = planned("64xA100", budget=budget, model={"context": 256})
        assert many.tokens * many.config.matrix_parameters() > (
            one.tokens * one.config.matrix_parameters()
        )
        for made in (one, many):
            assert made.seconds <= {"10m": 600, "1d": 86_400}[budget] * 1.0001


def test_a_model_too_large_for_one_is_cut() -> None:
    shape = {"depth": 32, "width": 4096, "heads": 32, "kv_heads": 32, "context": 2048}
    train = {"task": "documents", "optimizer": "adamw", "batch": 64}
    made = planned("8xH100", model=shape, train=train)
    assert made.work.shards > 1
    assert "FSDP" in "\n".join(lines(made))
    with pytest.raises(ModelwrightError, match="take more or larger devices"):
        planned("1xL4", model=shape, train=train)


@pytest.mark.parametrize(
    ("on", "said"),
    [
        ("8xH10", "did you mean"),
        ("0xH100", "from 1 to"),
        ("99999999xH100", "from 1 to"),
        ("eight", "no figures"),
        ("", "write it like 8xH100"),
    ],
)
def test_devices_that_are_none_are_refused(on: str, said: str) -> None:
    with pytest.raises(ModelwrightError, match=said) as caught:
        parse_target(on)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_forecast_is_refused() -> None:
    with pytest.raises(ModelwrightError, match="depends on the data"):
        planned("H100", budget=None)
    with pytest.raises(ModelwrightError, match="--price"):
        planned("H100", -1.0)
    with pytest.raises(ModelwrightError, match="not for mlp"):
        plan(recipe.read("mlp-digits"), "H100")


def test_data_sheets_hold_together() -> None:
    for name, device in DEVICES.items():
        assert device.bf16 > device.fp32 > 1e12, name
        assert device.bandwidth > device.link > 1e9, name
        assert device.source


def test_durations_are_readable() -> None:
    said = [duration(s) for s in (5, 300, 7200, 864_000)]
    assert said == ["5 s", "5 min", "2 h", "10 days"]


def test_the_command_prints_the_plan() -> None:
    command = [sys.executable, "-m", "modelwright", "plan", "quickstart", "--on", "2xA100"]
    done = subprocess.run([*command, "--price", "1.5"], capture_output=True, text=True, check=True)
    assert "forecast for 2 x A100" in done.stdout
    assert "cost" in done.stdout
