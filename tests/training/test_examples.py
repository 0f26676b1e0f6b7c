"""The examples of a step: a pure function of (seed, step), every row once an epoch."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.errors import ModelwrightError
from modelwright.training.examples import Shuffled, Windows, once, windows_once
from modelwright.types import Columns, Ragged, rows_in


def rows_of(total: int) -> Columns:
    """Rows that can be told apart, of several lengths."""
    lengths = np.random.default_rng(total).integers(1, 9, size=total)
    tokens = [np.full(n, i, dtype=np.int64) for i, n in enumerate(lengths)]
    learn = [np.ones(n, dtype=np.bool_) for n in lengths]
    return {"tokens": Ragged.of(tokens), "learn": Ragged.of(learn), "id": np.arange(total)}


def stream_of(total: int) -> Columns:
    """One document whose tokens are their own positions."""
    tokens = np.arange(total, dtype=np.int64)
    return {"tokens": Ragged.of([tokens]), "learn": Ragged.of([np.ones(total, dtype=np.bool_)])}


def ids(parts: list[Columns]) -> list[int]:
    return [int(i) for columns in parts for i in np.asarray(columns["id"])]


sizes = st.integers(1, 60)
lengths = st.sampled_from(["", "tokens"])


@given(total=sizes, batch=sizes, cut=st.integers(1, 5), seed=st.integers(0, 99), by=lengths)
@settings(deadline=None)
def test_every_row_once_an_epoch(total: int, batch: int, cut: int, seed: int, by: str) -> None:
    examples = Shuffled(rows_of(total), batch, seed=seed, accumulate=cut, by_length=by)
    assert examples.total == total
    steps = 3 * total  # whole epochs, whatever the batch
    seen: list[int] = []
    for step in range(steps):
        drawn = ids(examples(step))
        assert len(drawn) == examples.per_step
        seen += drawn
    counted = Counter(seen)
    assert set(counted.values()) == {steps * examples.per_step // total}
    assert len(counted) == total


@given(total=sizes, batch=sizes, seed=st.integers(0, 99), step=st.integers(0, 500), by=lengths)
@settings(deadline=None)
def test_a_step_depends_on_seed_and_step_alone(
    total: int, batch: int, seed: int, step: int, by: str
) -> None:
    used = Shuffled(rows_of(total), batch, seed=seed, by_length=by)
    for earlier in range(0, step, 7):
        used(earlier)
    fresh = Shuffled(rows_of(total), batch, seed=seed, by_length=by)
    assert ids(fresh(step)) == ids(used(step))


def test_the_seed_and_the_epoch_decide_the_order() -> None:
    columns = rows_of(40)
    one, other = Shuffled(columns, 40, seed=1), Shuffled(columns, 40, seed=2)
    assert ids(one(0)) != ids(other(0))
    assert ids(one(0)) != ids(one(1))
    assert ids(one(0)) != sorted(ids(one(0)))


@given(total=st.integers(2, 60), batch=st.integers(2, 60), cut=st.integers(1, 6))
@settings(deadline=None)
def test_rows_of_a_micro_batch_are_of_similar_length(total: int, batch: int, cut: int) -> None:
    """Sorted by length: no micro-batch reaches into the lengths of the next."""
    examples = Shuffled(rows_of(total), batch, seed=0, accumulate=cut, by_length="tokens")
    parts = examples(1)
    spans = [np.asarray(part["tokens"].lengths) for part in parts]  # type: ignore[union-attr]
    for one, other in pairwise(spans):
        assert one.max() <= other.min()


@given(
    length=st.integers(1, 20), more=st.integers(0, 300), batch=st.integers(1, 9),
    cut=st.integers(1, 4), seed=st.integers(0, 99),
)  # fmt: skip
@settings(deadline=None)
def test_windows_predict_each_position_at_most_once_an_epoch(
    length: int, more: int, batch: int, cut: int, seed: int
) -> None:
    total = 2 * length + 1 + more
    windows = Windows(stream_of(total), batch, length, seed=seed, accumulate=cut)
    starts = [windows.starts(epoch) for epoch in range(3)]
    for epoch in range(3):
        predicted = (starts[epoch][:, None] + np.arange(1, length + 1)).ravel()
        assert len(set(predicted.tolist())) == len(predicted)
        assert predicted.min() >= 1
        assert predicted.max() <= total - 1
        assert total - 1 - len(predicted) <= 2 * length  # all but the rest at the ends
    drawn = [
        row for step in range(windows.total) for part in windows(step) for row in part["tokens"]
    ]
    firsts = Counter(int(row[0]) for row in drawn)
    expected: Counter[int] = Counter()
    for place in range(windows.total * windows.per_step):
        epoch, index = divmod(place, windows.total)
        expected[int(windows.starts(epoch)[index])] += 1
    assert firsts == expected
    assert all(np.array_equal(np.diff(row), np.ones(length)) for row in drawn)


def test_windows_are_cut_elsewhere_in_every_epoch() -> None:
    windows = Windows(stream_of(1000), 4, 50, seed=0)
    offsets = {int(windows.starts(epoch).min()) % 50 for epoch in range(8)}
    assert len(offsets) > 3


@given(step=st.integers(0, 400), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_windows_of_a_step_depend_on_seed_and_step_alone(step: int, seed: int) -> None:
    used = Windows(stream_of(200), 3, 8, seed=seed, accumulate=2)
    used(0)
    fresh = Windows(stream_of(200), 3, 8, seed=seed, accumulate=2)
    for one, other in zip(used(step), fresh(step), strict=True):
        assert np.array_equal(one["tokens"], other["tokens"])


def test_a_batch_is_never_larger_than_an_epoch() -> None:
    windows = Windows(stream_of(100), 10**9, 8, seed=0)
    assert windows.per_step == windows.total == 11
    assert Shuffled(rows_of(5), 10**9, seed=0).per_step == 5


def test_too_little_text_is_refused() -> None:
    with pytest.raises(ModelwrightError, match=r"9 training tokens are too few for model\.context"):
        Windows(stream_of(9), 1, 8, seed=0)


@given(total=st.integers(2, 300), length=st.integers(1, 40), batch=st.integers(1, 5))
@settings(deadline=None)
def test_windows_once_predict_every_token_exactly_once(total: int, length: int, batch: int) -> None:
    predicted: list[int] = []
    for columns in windows_once(stream_of(total), batch, length):
        tokens, learn = np.asarray(columns["tokens"]), np.asarray(columns["learn"])
        assert tokens.shape == learn.shape
        assert tokens.shape[1] == min(length, total - 1) + 1
        assert len(tokens) <= batch
        predicted += tokens[:, 1:][learn[:, 1:]].tolist()
    assert sorted(predicted) == list(range(1, total))


@given(total=sizes, batch=sizes)
@settings(deadline=None)
def test_once_gives_every_row_in_order(total: int, batch: int) -> None:
    parts = list(once(rows_of(total), batch))
    assert ids(parts) == list(range(total))
    assert all(rows_in(part) <= batch for part in parts)
