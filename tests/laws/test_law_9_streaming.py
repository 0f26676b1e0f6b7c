"""Law 9: a measure taken part by part, in any order, is the measure of the whole set."""

from __future__ import annotations

import math
import statistics
from functools import reduce
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.errors import ModelwrightError
from modelwright.evaluation.metrics import Accuracy, Mean
from modelwright.tasks.grading import token_f1

NUMBERS = st.floats(-1e150, 1e150, allow_nan=False)
CUTS = st.lists(st.integers(0, 40), max_size=6)
WORDS = st.lists(st.sampled_from(["a", "path", "Path", "用", "文件", "1"]), max_size=5).map(
    " ".join
)


def parts_of(values, cuts):
    """The values cut at some places; parts may be empty."""
    edges = [0, *sorted(min(c, len(values)) for c in cuts), len(values)]
    return [values[a:b] for a, b in pairwise(edges)]


@given(st.lists(NUMBERS, min_size=1, max_size=40), CUTS, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_a_mean_of_parts_is_the_mean_of_the_whole_bit_for_bit(values, cuts, random):
    whole = Mean(values)
    shuffled = random.sample(values, len(values))
    parts = [Mean(part) for part in parts_of(shuffled, cuts)]
    random.shuffle(parts)
    merged = reduce(Mean.merge, parts)
    assert merged.count == whole.count == len(values)
    assert merged.value == whole.value
    assert merged.spread == whole.spread
    assert merged.interval == whole.interval


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40))
@settings(deadline=None)
def test_the_mean_and_spread_are_those_of_the_textbook(values):
    mean = Mean(values)
    size = max(map(abs, values))
    assert mean.value == pytest.approx(math.fsum(values) / len(values), rel=1e-12, abs=1e-12 * size)
    assert mean.spread == pytest.approx(statistics.stdev(values), rel=1e-12, abs=1e-300)
    low, high = mean.interval
    assert low <= mean.value <= high
    half = 1.96 * mean.spread / math.sqrt(len(values))
    assert high - low == pytest.approx(2 * half, rel=1e-3, abs=1e-9 * size)


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=40), CUTS, st.randoms())
@settings(deadline=None)
def test_graded_answers_in_parts_are_graded_as_a_whole(pairs, cuts, random):
    exact, f1 = Accuracy(), Mean()
    for reference, answer in pairs:
        exact.add(reference, answer)
        f1.add(token_f1(reference, answer))
    parts = parts_of(random.sample(pairs, len(pairs)), cuts)
    random.shuffle(parts)
    some, f1s = [], []
    for part in parts:
        some.append(Accuracy())
        for reference, answer in part:
            some[-1].add(reference, answer)
        f1s.append(Mean(token_f1(r, a) for r, a in part))
    merged = reduce(Accuracy.merge, some)
    assert (merged.correct, merged.count) == (exact.correct, exact.count)
    assert (merged.value, merged.interval) == (exact.value, exact.interval)
    assert exact.correct == sum(r == a for r, a in pairs)
    together = reduce(Mean.merge, f1s)
    assert (together.value, together.spread) == (f1.value, f1.spread)


def test_merging_changes_neither_part():
    left, right = Mean([1.0, 2.0]), Mean([6.0])
    assert left.merge(right).value == 3.0
    assert (left.count, left.value, right.count, right.value) == (2, 1.5, 1, 6.0)
    ones, none = Accuracy(1, 1), Accuracy(0, 3)
    assert ones.merge(none).value == 0.25
    assert (ones.value, none.value) == (1.0, 0.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_would_poison_every_part_is_refused(bad):
    mean = Mean([1.0])
    with pytest.raises(ModelwrightError, match=r"value 2 is"):
        mean.add(bad)
    assert (mean.count, mean.value) == (1, 1.0)  # nothing of it was taken in
