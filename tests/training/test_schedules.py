"""Learning-rate schedules: pure functions of the step."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.training.schedules import SCHEDULES, replanned
from tests.trainings import SETTINGS

every_schedule = pytest.mark.parametrize("name", SCHEDULES)
shares = st.floats(0, 1)


def curve(name: str, steps: int, warmup: float, decay: float) -> list[float]:
    return [SCHEDULES[name](step, steps, warmup, decay) for step in range(steps)]


@every_schedule
@given(steps=st.integers(1, 400), warmup=shares, decay=shares)
def test_a_rate_is_a_positive_share(name: str, steps: int, warmup: float, decay: float) -> None:
    rates = curve(name, steps, warmup, decay)
    assert all(0 <= rate <= 1 for rate in rates)
    assert rates[0] > 0  # the first step learns


@every_schedule
@given(steps=st.integers(20, 400), warmup=st.floats(0.1, 0.4), decay=st.floats(0.1, 0.5))
def test_it_rises_and_then_never_rises_again(
    name: str, steps: int, warmup: float, decay: float
) -> None:
    rates = curve(name, steps, warmup, decay)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert top <= warmup * steps + 1
    if name == "one_cycle":
        assert 0.1 < rates[0] < 0.1 + 0.9 / (warmup * steps) * 1.01
    else:
        assert rates[0] < 1 / (warmup * steps) * 1.01  # linear from the first step


@every_schedule
def test_all_but_the_constant_end_low(name: str) -> None:
    last = curve(name, 200, 0.05, 0.5)[-1]
    assert last == (1 if name == "constant" else pytest.approx(last))
    assert (last > 0.9) == (name == "constant")
    assert last < 0.02 or name == "constant"


def test_warmup_stable_decay_is_stable_between() -> None:
    rates = curve("warmup_stable_decay", 100, 0.1, 0.3)
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert set(rates[10:71]) == {1.0}
    assert rates[71:] == pytest.approx([(100 - i) / 30 for i in range(71, 100)])


def test_one_cycle_rises_falls_as_long_and_then_ends() -> None:
    rates = curve("one_cycle", 100, 0.45, 0.1)
    assert rates[:45] == pytest.approx([0.1 + 0.9 * (i + 1) / 45 for i in range(45)])
    assert rates[45:90] == pytest.approx([1 - 0.9 * i / 45 for i in range(45)])
    assert rates[90:] == pytest.approx([0.1 * (10 - i) / 10 for i in range(10)])


def test_cosine_is_half_way_at_half_time() -> None:
    assert curve("cosine", 1000, 0.0, 0.0)[500] == pytest.approx(0.5)


def test_linear_falls_by_the_same_at_every_step() -> None:
    assert curve("linear", 4, 0.0, 0.0) == [1, 0.75, 0.5, 0.25]


def test_recipes_know_the_same_names() -> None:
    assert set(SETTINGS["schedule"]) == set(SCHEDULES)


@given(
    steps=st.integers(10, 400),
    done=st.floats(0.1, 0.95),
    longer=st.floats(0.2, 3.0),
    decay=st.floats(0.05, 1.0),
)
def test_a_new_plan_goes_on_from_the_rate_that_was(
    steps: int, done: float, longer: float, decay: float
) -> None:
    """No jump, no warm-up anew, and it still ends at zero."""
    warmup, step = 0.02, max(1, int(done * steps))
    rate = SCHEDULES["warmup_stable_decay"]
    falls = step >= (1 - decay) * steps
    least = step + 1 if falls else math.ceil((step + 1) / max(1e-6, 1 - decay))
    new = max(least, step + int(longer * (steps - step)))
    up, down = replanned(step, steps, new, warmup, decay)
    now = rate(step, steps, warmup, decay)
    assert rate(step, new, up, down) == pytest.approx(now, rel=1e-6)
    rates = [rate(s, new, up, down) for s in range(step, new + 1)]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(rates)) or not falls
    assert rates[-1] == pytest.approx(0.0, abs=1e-9)
