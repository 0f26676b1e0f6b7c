"""Measures against worked examples and against scikit-learn's numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.errors import ModelwrightError
from modelwright.evaluation.metrics import Accuracy, Mean
from modelwright.tasks.grading import token_f1


@pytest.mark.parametrize(
    ("reference", "answer", "f1"),
    [
        ("", "", 1.0),
        ("...", "!", 1.0),  # no word on either side
        ("a word", "", 0.0),
        ("", "a word", 0.0),
        ("Join two paths.", "join TWO paths", 1.0),
        ("join two paths", "join the paths", 2 / 3),
        ("the the the", "the", 0.5),  # precision 1, recall 1/3
        ("连接两个路径", "连接路径", 0.8),  # a character is a word: precision 1, recall 4/6
        ("join 路径", "路 join", 0.8),
    ],
)
def test_token_f1_of_worked_examples(reference, answer, f1):
    assert token_f1(reference, answer) == pytest.approx(f1, abs=1e-15)


@given(st.text(max_size=30), st.text(max_size=30))
def test_token_f1_is_a_symmetric_share(a, b):
    assert 0 <= token_f1(a, b) == token_f1(b, a) <= 1
    assert token_f1(a, a) == 1


def test_the_spread_survives_cancellation_and_the_ends_of_the_floats():
    assert Mean([1e9 + 1, 1e9 + 2, 1e9 + 3]).spread == 1.0
    assert Mean([0.1] * 7).spread == 0.0
    assert Mean([1e200, 3e200]).spread == pytest.approx(math.sqrt(2) * 1e200, rel=1e-15)
    assert Mean([1e-200, 3e-200]).spread == pytest.approx(math.sqrt(2) * 1e-200, rel=1e-15)


def test_one_value_has_a_mean_and_no_interval():
    one = Mean([0.25])
    assert (one.value, one.spread, one.interval) == (0.25, None, None)


@pytest.mark.parametrize("empty", [Mean(), Accuracy()])
def test_nothing_has_no_measure(empty):
    with pytest.raises(ModelwrightError, match="at least one example"):
        _ = empty.value


def test_the_interval_of_a_share_is_wilsons():
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3: 81 of 263, 0 of 20, 29 of 29.
    for correct, count, low, high in [
        (81, 263, 0.2553, 0.3662),
        (0, 20, 0.0, 0.1611),
        (29, 29, 0.8830, 1.0),
    ]:
        interval = Accuracy(correct, count).interval
        assert interval == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("correct", "count"), [(2, 1), (-1, 3)])
def test_impossible_counts_are_refused(correct, count):
    with pytest.raises(ModelwrightError, match="0 <= correct <= count"):
        Accuracy(correct, count)
