"""Calibration: bins, and the error over them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.errors import ModelwrightError
from modelwright.evaluation.calibration import BINS, bins, expected_error


def test_known_answers() -> None:
    found = bins(np.array([0.9, 0.9, 0.9, 0.9, 0.1, 1.0]), np.array([1, 1, 0, 0, 0, 1]), 10)
    assert [(b.said, b.right, b.answers) for b in found] == [
        (pytest.approx(0.1), 0.0, 1),
        (pytest.approx((4 * 0.9 + 1.0) / 5), 0.6, 5),
    ]
    assert expected_error(found) == pytest.approx((0.1 + 5 * (0.92 - 0.6)) / 6)


def test_answers_as_sure_as_right_have_no_error() -> None:
    said = np.repeat([0.25, 0.75], 4)
    right = np.array([1, 0, 0, 0, 1, 1, 1, 0])
    assert expected_error(bins(said, right)) == pytest.approx(0)
    assert expected_error(bins(np.ones(8), right)) == pytest.approx(0.5)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_every_answer_is_in_one_bin(pairs: list[tuple[float, bool]]) -> None:
    said, right = np.array([p for p, _ in pairs]), np.array([r for _, r in pairs])
    found = bins(said, right)
    assert sum(b.answers for b in found) == len(pairs)
    assert len(found) <= BINS
    assert sum(b.answers * b.right for b in found) == pytest.approx(right.sum())
    assert [b.said for b in found] == sorted(b.said for b in found)
    gap = abs(said.mean() - right.mean())
    assert gap - 1e-9 <= expected_error(found) <= 1


@pytest.mark.parametrize("said", [[], [1.5], [float("nan")], [0.5, 0.5]])
def test_what_are_no_probabilities(said: list[float]) -> None:
    with pytest.raises(ModelwrightError, match="one probability in 0..1"):
        bins(np.array(said), np.array([True]))
