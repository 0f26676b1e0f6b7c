"""Measures of made pictures against values that are known by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.evaluation import made_images
from modelwright.evaluation.made_images import MeanImages, diversity, frechet_distance, nearest


def test_the_frechet_distance_of_a_set_to_itself_is_zero() -> None:
    features = np.random.default_rng(0).normal(size=(50, 4))
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-9)


def test_it_is_the_formula_where_covariances_commute() -> None:
    """Shifted by d and spread by s in every direction: d^2 + (s - 1)^2 tr C."""
    one = np.random.default_rng(1).normal(size=(400, 3))
    one -= one.mean(axis=0)
    shift = np.array([1.0, -2.0, 0.5])
    spread = np.cov(one, rowvar=False).trace()
    assert frechet_distance(one, 3 * one + shift) == pytest.approx(5.25 + 4 * spread)
    assert frechet_distance(one, one + shift) == pytest.approx(5.25)


@given(st.integers(0, 1000))
def test_it_is_symmetric_and_never_negative(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = rng.normal(size=(9, 5)), rng.normal(size=(7, 5))  # singular: fewer than needed
    there, back = frechet_distance(one, other), frechet_distance(other, one)
    assert there >= 0
    assert there == pytest.approx(back, rel=1e-6)


def test_diversity_is_the_mean_distance_within_a_class() -> None:
    features = np.array([[0.0, 0.0], [3.0, 4.0], [7.0, 7.0], [7.0, 7.0], [1.0, 1.0]])
    assert diversity(features, np.array([0, 0, 1, 1, 2])) == pytest.approx(2.5)
    assert diversity(features[:2], np.array([0, 1])) == 0


def test_the_nearest_is_found_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made_images, "BLOCK", 3)
    rng = np.random.default_rng(2)
    known = rng.integers(0, 256, (20, 4, 4), dtype=np.uint8)
    asked = known[[7, 19, 0]].copy()
    asked[1, 0, 0] ^= 4
    found = nearest(asked, known)
    assert found.rows.tolist() == [7, 19, 0]
    assert found.distances.tolist() == [0.0, 1.0, 0.0]  # 4 levels of one pixel in 16
    every = np.square(asked[:, None].astype(float) - known[None]).mean(axis=(2, 3))
    assert found.rows.tolist() == every.argmin(axis=1).tolist()


def test_the_trivial_maker_draws_the_mean_of_its_class() -> None:
    pictures = np.stack([np.full((5, 5), v, np.uint8) for v in (10, 10, 200, 220)])
    plain = MeanImages.fit(pictures, np.array([0, 0, 1, 1]))
    drawn = plain.draw(np.array([0, 1, 1]))
    assert (drawn[0] == 10).all()
    assert abs(drawn[1:].mean() - 210) < 5
    assert not np.array_equal(drawn[1], drawn[2])
    assert (MeanImages.fit(pictures, np.full(4, -1)).draw(np.array([-1])).shape) == (1, 5, 5)
