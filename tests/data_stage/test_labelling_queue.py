"""The queue: a permutation, the unsure first, copies spread out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.labelling.features import sketches
from modelwright.data.labelling.queue import MEASURES, queue, uncertainty
from modelwright.errors import ModelwrightError

shares = st.integers(2, 5).flatmap(
    lambda k: st.lists(
        st.lists(st.floats(0.001, 1), min_size=k, max_size=k), min_size=1, max_size=60
    ).map(lambda rows: np.array(rows) / np.array(rows).sum(axis=1, keepdims=True))
)


@given(shares, st.sampled_from(MEASURES), st.booleans(), st.integers(1, 7))
@settings(max_examples=100, deadline=None)
def test_a_queue_is_a_permutation_that_starts_with_the_least_sure(p, measure, spread, batch):
    unsure = uncertainty(p, measure)
    assert ((unsure >= 0) & (unsure <= 1)).all()
    features = np.round(p, 1).astype(np.float32) if spread else None
    order = queue(p, measure, features=features, batch=batch)
    assert sorted(order.tolist()) == list(range(len(p)))
    assert unsure[order[0]] == pytest.approx(unsure.max())
    if not spread:
        assert (np.diff(unsure[order]) <= 1e-12).all()


def test_the_measures_on_known_rows():
    p = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    assert uncertainty(p, "margin") == pytest.approx([1, 0, 1])
    assert uncertainty(p, "entropy") == pytest.approx([np.log(2) / np.log(3), 0, 1])
    assert uncertainty(p, "least_confidence") == pytest.approx([0.75, 0, 1])


def test_copies_of_one_hard_row_are_not_asked_about_one_after_the_other():
    texts = ["the same hard question about a film"] * 30
    texts += [f"another {w} text on {w} matters" for w in "abcdefghij"]
    p = np.full((40, 2), 0.5)
    plain = queue(p)[:10]
    apart = queue(p, features=sketches(texts), batch=10)[:10]
    assert (plain < 30).all()
    assert (apart < 30).sum() == 1


def test_what_does_not_fit_is_one_line():
    p = np.full((4, 2), 0.5)
    with pytest.raises(ModelwrightError, match="did you mean 'margin'"):
        queue(p, "margins")
    with pytest.raises(ModelwrightError, match="features of 3 rows"):
        queue(p, features=np.zeros((3, 2), dtype=np.float32))
    assert queue(np.zeros((0, 2))).tolist() == []
    assert queue(np.ones((3, 1))).tolist() == [0, 1, 2]
