"""Rows filled with whole documents, and documents that an epoch has several times."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.errors import ModelwrightError
from modelwright.training.examples import Packed, Shuffled
from modelwright.types import Columns, Ragged, ragged_column, rows_in

ROOM = 16


def documents(lengths: list[int]) -> Columns:
    tokens = [np.full(n, i, dtype=np.int64) for i, n in enumerate(lengths)]
    return {"tokens": Ragged.of(tokens), "id": np.arange(len(lengths))}


def seen(examples: Packed, steps: int) -> list[Columns]:
    return [columns for step in range(steps) for columns in examples(step)]


lengths = st.lists(st.integers(2, ROOM + 1), min_size=1, max_size=40)


@given(lengths=lengths, seed=st.integers(0, 99), batch=st.integers(1, 4))
@settings(deadline=None)
def test_an_epoch_has_every_document_once_and_no_row_is_too_full(
    lengths: list[int], seed: int, batch: int
) -> None:
    packed = Packed(Shuffled(documents(lengths), 1, seed=seed), ROOM, batch, accumulate=1)
    assert packed.per_step == min(batch, packed.total)
    rows = [row for epoch in (0, 1) for row in packed.plan(epoch)]
    assert all(sum(lengths[i] - 1 for i in row) <= ROOM for row in rows)
    assert set(Counter(int(i) for row in rows for i in row).values()) == {2}
    # Best fit decreasing needs at most 11/9 of the fewest rows, and one (Johnson 1973).
    fewest = -(-sum(n - 1 for n in lengths) // ROOM)
    assert packed.total <= max(len(lengths), 1)
    assert packed.total <= 11 / 9 * max(fewest, sum(2 * (n - 1) > ROOM for n in lengths)) + 2
    steps = -(-2 * packed.total // packed.per_step)
    drawn = Counter(int(i) for columns in seen(packed, steps) for i in np.asarray(columns["id"]))
    assert set(drawn) == set(range(len(lengths)))


@given(lengths=lengths, seed=st.integers(0, 99), step=st.integers(0, 99), cut=st.integers(1, 4))
@settings(deadline=None)
def test_a_step_depends_on_seed_and_step_alone(
    lengths: list[int], seed: int, step: int, cut: int
) -> None:
    columns = documents(lengths)
    first = Packed(Shuffled(columns, 1, seed=seed), ROOM, 4, accumulate=cut)
    for warm in range(step % 3):
        first(warm)
    again = Packed(Shuffled(columns, 1, seed=seed), ROOM, 4, accumulate=cut)
    one, other = first(step), again(step)
    assert len(one) == len(other) == min(cut, first.per_step)
    for a, b, numbers in zip(one, other, again.rows(step), strict=True):
        assert (
            ragged_column(a, "tokens").values.tolist() == ragged_column(b, "tokens").values.tolist()
        )
        assert np.asarray(a["id"]).tolist() == numbers.tolist()
    whole = Packed(Shuffled(columns, 1, seed=seed), ROOM, 4)(step)
    assert [int(i) for c in one for i in np.asarray(c["id"])] == [
        int(i) for c in whole for i in np.asarray(c["id"])
    ]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ModelwrightError, match=r"pack: a document of 17 tokens does not fit"):
        Packed(Shuffled(documents([3, 18]), 1, seed=0), ROOM, 1)


@given(seed=st.integers(0, 99), batch=st.integers(1, 9))
@settings(deadline=None)
def test_an_epoch_has_rows_as_often_as_their_weights_say(seed: int, batch: int) -> None:
    times = np.array([2.0] * 4 + [0.5] * 6 + [0.0] * 3 + [1.0] * 5 + [1.25] * 8)
    examples = Shuffled(documents([3] * len(times)), batch, seed=seed, times=times)
    assert examples.total == 8 + 3 + 0 + 5 + 10
    epochs = [np.bincount(examples.order(epoch), minlength=len(times)) for epoch in range(3)]
    for counts in epochs:
        assert counts.sum() == examples.total
        assert (counts[:4] == 2).all()
        assert counts[4:10].sum() == 3
        assert counts[4:10].max() == 1
        assert (counts[10:13] == 0).all()
        assert (counts[13:18] == 1).all()
        assert counts[18:].sum() == 10
    steps = [np.concatenate(examples.rows(step)) for step in range(examples.total)]
    assert sum(map(len, steps)) == examples.total * examples.per_step


def test_other_rows_of_a_weight_come_in_other_epochs() -> None:
    examples = Shuffled(documents([3] * 40), 1, seed=1, times=np.full(40, 0.5))
    assert examples.order(0).tolist() != examples.order(1).tolist()
    assert set(examples.order(0)) != set(examples.order(1))
    assert rows_in(examples(0)[0]) == 1
