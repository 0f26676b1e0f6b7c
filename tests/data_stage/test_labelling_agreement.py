"""Kappa and alpha beside published examples and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.labelling.agreement import (
    bootstrap,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
)
from modelwright.data.labelling.votes import Votes
from modelwright.errors import ModelwrightError


def votes(rows, labels: int) -> Votes:
    array = np.array(rows, dtype=np.int64)
    return Votes(
        [str(i) for i in range(array.shape[0])],
        [str(i) for i in range(array.shape[1])],
        [str(i) for i in range(labels)],
        array,
    )


# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", section C: four observers,
# twelve units, values 1 to 5; there nominal alpha is 0.743 and ordinal alpha 0.815.
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
    [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
]
# Fleiss (1971) as the common textbook example: 10 subjects, 14 raters, 5 categories; 0.210.
SUBJECTS = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip


def test_krippendorffs_own_example():
    example = votes(np.array(OBSERVERS).T - 1, 5)
    assert krippendorff_alpha(example) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(example, "ordinal") == pytest.approx(0.815, abs=5e-4)


def test_fleiss_textbook_example():
    rows = [[k for k, n in enumerate(counts) for _ in range(n)] for counts in SUBJECTS]
    assert fleiss_kappa(votes(rows, 5)) == pytest.approx(0.210, abs=5e-4)


pairs = st.integers(2, 4).flatmap(
    lambda k: st.tuples(
        st.just(k),
        st.lists(st.tuples(st.integers(0, k - 1), st.integers(0, k - 1)), min_size=2, max_size=60),
    )
)


@given(pairs)
@settings(max_examples=60, deadline=None)
def test_cohens_kappa_is_scikit_learns(drawn):
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    labels, rows = drawn
    ours = cohen_kappa(votes(rows, labels))
    if len({label for pair in rows for label in pair}) == 1:
        assert math.isnan(ours)
        return
    theirs = metrics.cohen_kappa_score([a for a, _ in rows], [b for _, b in rows])
    assert ours == pytest.approx(theirs, abs=1e-9)


@given(pairs)
@settings(max_examples=60, deadline=None)
def test_perfect_agreement_is_one_and_names_of_voters_have_no_say(drawn):
    labels, rows = drawn
    same = votes([(a, a) for a, _ in rows], labels)
    found = [cohen_kappa(same), fleiss_kappa(same), krippendorff_alpha(same, "ordinal")]
    if len({a for a, _ in rows}) > 1:
        assert found == pytest.approx([1.0] * 3)
    else:
        assert all(math.isnan(value) for value in found)
    one, other = votes(rows, labels), votes([(b, a) for a, b in rows], labels)
    for statistic in (cohen_kappa, fleiss_kappa, krippendorff_alpha):
        assert statistic(one) == pytest.approx(statistic(other), nan_ok=True)


def test_missing_votes_are_left_out_and_nothing_is_not_a_number():
    some = votes([[0, 0, -1], [1, -1, 1], [-1, 0, -1], [0, 0, -1], [-1, -1, -1]], 2)
    assert krippendorff_alpha(some) == pytest.approx(1.0)
    assert math.isnan(cohen_kappa(votes([[0, -1], [-1, 1]], 2)))
    assert math.isnan(krippendorff_alpha(votes([[-1, -1]], 2)))
    with pytest.raises(ModelwrightError, match="Krippendorff"):
        fleiss_kappa(some)


def test_the_interval_holds_the_value_and_shrinks_with_more_items():
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 3, 1600)
    given = np.where(generator.random((1600, 3)) < 0.8, truth[:, None],
                     generator.integers(0, 3, (1600, 3)))  # fmt: skip
    few = bootstrap(krippendorff_alpha, votes(given[:50], 3), resamples=200)
    many = bootstrap(krippendorff_alpha, votes(given, 3), resamples=200)
    for found in (few, many):
        assert found.low < found.value < found.high
    assert many.high - many.low < (few.high - few.low) / 2
    assert bootstrap(krippendorff_alpha, votes(given, 3), resamples=200) == many
    empty = bootstrap(krippendorff_alpha, votes(np.zeros((0, 2), dtype=int), 2))
    assert math.isnan(empty.value) and math.isnan(empty.low)
