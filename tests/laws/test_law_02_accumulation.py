"""Law 2: N micro-batches are one batch, however the rows are cut, for every task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.tasks.task import names, task_class
from modelwright.training.examples import Shuffled
from modelwright.training.train import Trainer
from modelwright.types import Columns, rows_in, take
from tests.trainings import ROWS, Setting

every_task = pytest.mark.parametrize("name", names())
# One plain step of size 1, so that the parameters move by exactly the gradient.
PLAIN = {"optimizer": "sgd", "learning_rate": 1.0, "momentum": 0.0, "weight_decay": 0.0}
PLAIN |= {"schedule": "constant", "warmup": 0.0, "clip": 0.0}


class Cut:
    """The same rows at every step, in micro-batches of given sizes."""

    def __init__(self, columns: Columns, sizes: Sequence[int]) -> None:
        self.columns, self.sizes = columns, sizes
        self.total = self.per_step = rows_in(columns)

    def __call__(self, step: int) -> list[Columns]:
        ends = np.cumsum(self.sizes)
        parts = np.split(np.arange(self.total), ends[:-1])
        return [take(self.columns, part) for part in parts]


@cache
def columns_of(name: str) -> Columns:
    return Setting(name).data()[1]


def after_a_step(name: str, sizes: Sequence[int]) -> tuple[float, float, int, Trainer]:
    """Loss, gradient norm and count of one step over all rows, cut into ``sizes``."""
    trainer = replace(Setting(name), **PLAIN).trainer()
    with torch.no_grad():  # off the start, where projections of zero hide most gradients
        for p in trainer.model.parameters():
            p.add_(torch.linspace(-0.1, 0.1, p.numel()).view(p.shape))
    trainer.examples = Cut(columns_of(name), sizes)
    record = trainer.step(0)
    return record.loss, record.gradient_norm, record.items, trainer


@st.composite
def cuts(draw: st.DrawFn) -> list[int]:
    """Sizes of at least one row each that add up to all rows."""
    borders = draw(st.sets(st.integers(1, ROWS - 1), max_size=ROWS - 1))
    ends = [0, *sorted(borders), ROWS]
    return [b - a for a, b in pairwise(ends)]


@every_task
@given(sizes=cuts())
@settings(max_examples=12, deadline=None, derandomize=True)
def test_every_task_learns_the_same_from_any_cut(name: str, sizes: list[int]) -> None:
    loss, norm, items, whole = after_a_step(name, [ROWS])
    cut_loss, cut_norm, cut_items, cut = after_a_step(name, sizes)
    assert cut_items == items
    assert cut_loss == pytest.approx(loss, rel=1e-5)
    assert cut_norm == pytest.approx(norm, rel=1e-4)
    assert norm > 1e-3  # there was a gradient to compare
    for (key, a), b in zip(whole.model.named_parameters(), cut.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=key)


@every_task
def test_accumulate_takes_the_same_examples(name: str) -> None:
    """``accumulate`` only cuts: a step's rows, its loss and its gradient stay as they are."""
    batch = 6
    streams = task_class(name).stream
    whole = replace(Setting(name), **PLAIN, batch=batch).trainer()
    # Windows are given by micro-batch, rows by step: what a recipe's `batch` means is the step.
    micro = batch // 3 if streams else batch
    cut = replace(Setting(name), **PLAIN, batch=micro, accumulate=3).trainer()
    assert whole.examples.per_step == cut.examples.per_step == batch
    for step in range(4):
        one, three = whole.examples(step), cut.examples(step)
        assert len(three) >= 3
        assert sorted(rows_of(one)) == sorted(rows_of(three))
    left, right = whole.step(0), cut.step(0)
    assert right.items == left.items
    assert right.loss == pytest.approx(left.loss, rel=1e-5)
    for a, b in zip(whole.model.parameters(), cut.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def rows_of(parts: list[Columns]) -> list[bytes]:
    """Every row of some columns as bytes."""
    return [
        b"|".join(np.asarray(column[i]).tobytes() for column in columns.values())
        for columns in parts
        for i in range(rows_in(columns))
    ]


def test_a_gradient_of_the_wrong_scale_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dividing by a micro-batch's own count, a common mistake, does not pass this file."""
    right = Trainer.backward
    monkeypatch.setattr(Trainer, "backward", lambda t, b, count, **k: right(t, b, b.count))
    loss, *_ = after_a_step("docstrings", [ROWS])
    other, *_ = after_a_step("docstrings", [1, ROWS - 1])
    assert other != pytest.approx(loss, rel=1e-2)


def test_rows_of_unlike_lengths_share_a_step() -> None:
    """Sorting by length cuts padding inside a step; which rows it has stays a random sample."""
    columns = columns_of("docstrings")
    plain = Shuffled(columns, 6, seed=5)
    sorted_ = Shuffled(columns, 6, seed=5, by_length="tokens")
    for step in range(8):
        assert sorted(rows_of(plain(step))) == sorted(rows_of(sorted_(step)))
