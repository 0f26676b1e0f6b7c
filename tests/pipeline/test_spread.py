"""Means over folds with their intervals, against scipy's Student distribution."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.pipeline.spread import spread, student_mass, student_quantile


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 6, 9, 10, 29, 100])
@pytest.mark.parametrize("p", [0.6, 0.9, 0.975, 0.9995])
def test_the_quantiles_are_those_of_scipy(freedom: int, p: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert student_quantile(p, freedom) == pytest.approx(stats.t.ppf(p, freedom), rel=1e-9)


@given(st.floats(0, 50), st.integers(1, 60))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_the_mass_is_that_of_scipy(t: float, freedom: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert student_mass(t, freedom) == pytest.approx(2 * stats.t.cdf(t, freedom) - 1, abs=1e-12)


def test_intervals_by_hand() -> None:
    found = spread([1.0, 2.0, 3.0, 4.0], ratio=1 / 3)
    s = math.sqrt(5 / 3)
    assert found.mean == 2.5
    assert found.deviation == pytest.approx(s)
    assert found.error == pytest.approx(s / 2)
    t = 3.182446305284263  # from the tables, for 3 degrees of freedom
    assert found.interval == pytest.approx((2.5 - t * s / 2, 2.5 + t * s / 2))
    wide = t * s * math.sqrt(1 / 4 + 1 / 3)
    assert found.corrected == pytest.approx((2.5 - wide, 2.5 + wide))


def test_one_fold_has_no_spread() -> None:
    found = spread([0.5], 0.25)
    assert found.mean == 0.5
    assert found.deviation is found.error is found.interval is found.corrected is None
