"""Packing: every token exactly once, no row longer than its room, few documents cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.packing import pack
from modelwright.errors import ModelwrightError

LENGTHS = st.lists(st.integers(0, 200), max_size=80)


@settings(max_examples=300, deadline=None)
@given(lengths=LENGTHS, length=st.integers(1, 64))
def test_every_token_exactly_once_and_no_row_too_long(lengths, length):
    plan = pack(np.array(lengths, dtype=np.int64), length)
    seen = [np.zeros(n, dtype=int) for n in lengths]
    for number in range(len(plan)):
        row = plan.row(number)
        assert row and sum(size for _, _, size in row) <= length
        for document, start, size in row:
            assert size > 0
            seen[document][start : start + size] += 1
            assert start + size <= lengths[document]
    assert all((of == 1).all() for of in seen)


@settings(max_examples=200, deadline=None)
@given(lengths=LENGTHS, length=st.integers(1, 64))
def test_only_documents_longer_than_a_row_are_cut(lengths, length):
    plan = pack(np.array(lengths, dtype=np.int64), length)
    pieces = np.bincount(plan.documents, minlength=len(lengths))
    assert all(p == -(-n // length) for p, n in zip(pieces.tolist(), lengths, strict=True))
    report = plan.report()
    some = [n for n in lengths if n]
    cut = sum(n > length for n in some) / len(some) if some else 0.0
    assert report["tokens"] == sum(lengths) and report["cut"] == pytest.approx(cut)
    assert report["padding"] * len(plan) * length == pytest.approx(len(plan) * length - sum(some))
    # Best fit leaves no two rows that would fit into one.
    sizes = sorted(sum(s for _, _, s in plan.row(r)) for r in range(len(plan)))
    assert len(sizes) < 2 or sizes[0] + sizes[1] > length


@given(lengths=LENGTHS, length=st.integers(1, 64))
def test_the_same_lengths_give_the_same_plan(lengths, length):
    one, two = (pack(np.array(lengths, dtype=np.int64), length) for _ in range(2))
    assert np.array_equal(one.first, two.first) and np.array_equal(one.documents, two.documents)


def test_real_lengths_are_packed_with_next_to_no_padding():
    lengths = np.random.default_rng(1).lognormal(6, 1, 20_000).astype(np.int64) + 1
    report = pack(lengths, 2048).report()
    assert report["padding"] < 0.005
    assert report["cut"] == pytest.approx((lengths > 2048).mean())


def test_no_room_is_said():
    with pytest.raises(ModelwrightError, match="rows of 0 tokens"):
        pack(np.array([3]), 0)
