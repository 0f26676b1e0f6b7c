"""The bootstrap: intervals that hold what they say, and pairs that cancel what is common."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.errors import ModelwrightError
from modelwright.tasks.resampling import difference, f1, interval, ratio, resampled


def means(values: np.ndarray) -> np.ndarray:
    return np.stack([values, np.ones(len(values))], axis=1)


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    low, high = interval(means(values), ratio)
    half = 1.96 * values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.05)
    assert high == pytest.approx(values.mean() + half, abs=0.05)


@given(st.integers(1, 50), st.integers(0, 99))
@settings(max_examples=30)
def test_every_draw_has_as_many_examples(number: int, seed: int) -> None:
    drawn = resampled(np.ones((number, 1)), draws=20, seed=seed)
    assert (drawn == number).all()


def test_pairs_see_what_two_intervals_do_not() -> None:
    rng = np.random.default_rng(2)
    hard = rng.uniform(0, 1, 300)  # what is hard is so for both
    one, other = hard, np.clip(hard + 0.02 + rng.normal(0, 0.02, 300), 0, 1.2)
    apart = [interval(means(x), ratio) for x in (one, other)]
    assert apart[0][1] > apart[1][0], "the intervals overlap"
    found = difference(means(one), means(other), ratio)
    assert found.low > 0
    assert found.chance == 0
    assert found.value == pytest.approx(other.mean() - one.mean())


def test_equal_answers_do_not_differ() -> None:
    values = means(np.arange(5.0))
    assert difference(values, values, ratio) == (0.0, 0.0, 0.0, 1.0)


def test_f1_of_nothing_is_one_and_of_all_wrong_zero() -> None:
    sums = np.array([[0, 0, 0], [0, 2, 0], [3, 3, 3], [1, 1, 3.0]])
    assert f1(sums).tolist() == [1, 0, 1, 0.5]


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ModelwrightError, match="nothing to draw from"):
        interval(np.zeros((0, 2)), ratio)
    with pytest.raises(ModelwrightError, match="3 answers beside 2"):
        difference(np.ones((3, 2)), np.ones((2, 2)), ratio)
