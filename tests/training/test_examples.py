"""The examples of a step: a pure function of (seed, step) that loses and doubles nothing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.errors import ModelwrightError
from modelwright.training.examples import Shuffled, Windows, once, windows_once
from modelwright.types import Columns, Ragged, ragged_column, rows_in


def ragged(lengths: list[int]) -> Columns:
    rows = [np.full(n, i, dtype=np.int64) for i, n in enumerate(lengths)]
    return {"tokens": Ragged.of(rows), "learn": Ragged.of([r >= 0 for r in rows])}


def stream(count: int) -> Columns:
    tokens = np.arange(count, dtype=np.int64)
    cuts = np.array([0, count // 3, count], dtype=np.int64)
    return {"tokens": Ragged(tokens, cuts), "learn": Ragged(tokens >= 0, cuts)}


def rows_of(parts: list[Columns]) -> list[int]:
    return [int(c["row"][i]) for c in parts for i in range(rows_in(c))]


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 3), st.integers(0, 5))
def test_every_row_comes_once_an_epoch(total: int, batch: int, accumulate: int, seed: int) -> None:
    columns = {"row": np.arange(total)}
    examples = Shuffled(columns, batch, seed=seed, accumulate=accumulate)
    seen: list[int] = []
    step = 0
    while len(seen) < 2 * total:
        seen += rows_of(examples(step))
        step += 1
    assert sorted(seen[:total]) == list(range(total))
    assert sorted(seen[total : 2 * total]) == list(range(total))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(1, 12))
@settings(deadline=None)
def test_cutting_by_length_keeps_the_rows_of_the_step(lengths: list[int], batch: int) -> None:
    columns = {**ragged(lengths), "row": np.arange(len(lengths))}
    plain = Shuffled(columns, batch, seed=3)
    cut = Shuffled(columns, batch, seed=3, by_length="tokens")
    for step in range(5):
        assert sorted(rows_of(cut(step))) == sorted(rows_of(plain(step)))
        longest = [int(ragged_column(c, "tokens").lengths.max()) for c in cut(step)]
        assert longest == sorted(longest)


def test_a_step_depends_on_seed_and_step_alone() -> None:
    columns = {"row": np.arange(50)}
    forward = Shuffled(columns, 7, seed=1)
    wanted = [rows_of(forward(s)) for s in range(20)]
    backward = Shuffled(columns, 7, seed=1)
    assert [rows_of(backward(s)) for s in reversed(range(20))] == wanted[::-1]
    assert rows_of(Shuffled(columns, 7, seed=2)(0)) != wanted[0]


@given(st.integers(12, 200), st.integers(2, 5), st.integers(1, 4), st.integers(0, 9))
@settings(deadline=None)
def test_windows_of_an_epoch_do_not_overlap(count: int, length: int, batch: int, seed: int) -> None:
    examples = Windows(stream(count), batch, length, seed=seed)
    starts = sorted(examples.starts(0).tolist())
    assert len(starts) == examples.total
    assert all(b - a == length for a, b in itertools.pairwise(starts))
    assert starts[0] >= 0
    assert starts[-1] + length < count  # the last target is inside the stream
    (window,) = examples(0)
    tokens = np.asarray(window["tokens"])
    assert tokens.shape == (min(batch, examples.total), length + 1)
    assert (np.diff(tokens, axis=1) == 1).all()


@given(st.integers(2, 100), st.integers(1, 20), st.integers(1, 5))
@settings(deadline=None)
def test_evaluation_predicts_every_token_once(count: int, length: int, batch: int) -> None:
    predicted: list[int] = []
    for columns in windows_once(stream(count), batch, length):
        tokens, learn = np.asarray(columns["tokens"]), np.asarray(columns["learn"])
        predicted += tokens[:, 1:][learn[:, 1:]].tolist()
    assert sorted(predicted) == list(range(1, count))


@given(st.integers(1, 50), st.integers(1, 60))
def test_once_gives_all_rows_in_order(total: int, batch: int) -> None:
    parts = list(once({"row": np.arange(total)}, batch))
    assert rows_of(parts) == list(range(total))


def test_too_little_text_for_a_window_is_said() -> None:
    with pytest.raises(ModelwrightError, match=r"model\.context=64"):
        Windows(stream(30), 1, 64, seed=0)
