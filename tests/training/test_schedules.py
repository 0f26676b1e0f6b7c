"""Schedules: between 0 and 1, pure, and shaped as their formulas say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.training.schedules import SCHEDULES, cosine, linear, warmup_stable_decay


@pytest.mark.parametrize("name", SCHEDULES)
@given(data=st.data())
def test_every_schedule_is_a_share_above_zero(name: str, data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, 500))
    step = data.draw(st.integers(0, steps - 1))
    warmup, decay = data.draw(st.floats(0, 1)), data.draw(st.floats(0, 1))
    value = SCHEDULES[name](step, steps, warmup, decay)
    assert 0 <= value <= 1
    if name != "cosine":
        assert value > 0  # no step is wasted


def test_warmup_stable_decay_has_its_three_parts() -> None:
    values = [warmup_stable_decay(s, 100, 0.1, 0.2) for s in range(100)]
    assert values[:10] == pytest.approx([(s + 1) / 10 for s in range(10)])
    assert set(values[10:80]) == {1.0}
    assert values[80:] == pytest.approx([(100 - s) / 20 for s in range(80, 100)])


def test_linear_and_cosine_fall_to_the_end() -> None:
    for schedule in (linear, cosine):
        values = [schedule(s, 50, 0.0, 0.0) for s in range(50)]
        assert values == sorted(values, reverse=True)
        assert values[0] == 1.0
        assert values[-1] < 0.05
