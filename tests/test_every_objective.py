"""What every objective promises, for every task that trains with it. New ones are found here."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from modelwright.data.codecs import fit_codec
from modelwright.extensions import short
from modelwright.models.model import config_class
from modelwright.objectives import make_objective
from modelwright.objectives import names as objectives
from modelwright.tasks.task import names, task_class
from modelwright.types import Batch, Columns, Objective, stack, take
from tests.own_code import OBJECTIVES, TASKS
from tests.variations import examples_of

every_task = pytest.mark.parametrize("name", [*names(), *TASKS], ids=short)
ROWS = 6


class Setting:
    """A task's objective, a small model off its start, and stored examples of several lengths."""

    def __init__(self, name: str) -> None:
        task, examples = examples_of(name, ROWS)
        codec = fit_codec(task.codec, examples, {})
        self.columns = stack([codec.encode(e) for e in examples], codec.ragged)
        self.objective: Objective = make_objective(task.objective, codec, {})
        cls = config_class(task.model)
        torch.manual_seed(0)
        self.model: nn.Module = cls(**{**cls.specimen, **cls.data_fields(codec)}).build()
        with torch.no_grad():
            for p in self.model.parameters():
                p.add_(torch.randn_like(p), alpha=0.1)

    def batch(self, columns: Columns) -> Batch:
        return self.objective.collate(columns, torch.Generator().manual_seed(0))

    def rows(self, *rows: int) -> Batch:
        return self.batch(take(self.columns, np.array(rows)))

    def loss(self, *rows: int) -> Tensor:
        return self.objective.loss(self.model, self.rows(*rows))

    def gradients(self) -> dict[str, Tensor]:
        found = {n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None}
        self.model.zero_grad(set_to_none=True)
        return found


def test_every_objective_has_a_task() -> None:
    assert {task_class(n).objective for n in names()} == set(objectives())
    assert {task_class(n).objective for n in TASKS} >= set(OBJECTIVES)


@every_task
def test_the_loss_is_a_sum(name: str) -> None:
    setting = Setting(name)
    whole = setting.loss(*range(ROWS))
    parts = setting.loss(0, 1, 2) + setting.loss(3, 4, 5)
    torch.testing.assert_close(whole, parts, rtol=1e-5, atol=1e-5)
    assert whole > 0


@every_task
def test_counts_and_bytes_add_up(name: str) -> None:
    setting = Setting(name)
    whole, one, other = setting.rows(*range(ROWS)), setting.rows(0, 1, 2), setting.rows(3, 4, 5)
    assert whole.count == one.count + other.count > 0
    assert whole.bytes == one.bytes + other.bytes


@every_task
def test_law_2_micro_batches_are_one_batch(name: str) -> None:
    setting = Setting(name)
    count = setting.rows(*range(ROWS)).count
    (setting.loss(*range(ROWS)) / count).backward()
    whole = setting.gradients()
    for rows in ((0, 5), (1, 2, 3), (4,)):
        (setting.loss(*rows) / count).backward()
    parts = setting.gradients()
    assert whole.keys() == parts.keys()
    for key in whole:
        torch.testing.assert_close(whole[key], parts[key], rtol=1e-4, atol=1e-6)


@every_task
def test_law_4_padding_changes_nothing(name: str) -> None:
    """A row costs the same alone and beside the longest row, to which it is padded."""
    setting = Setting(name)
    for row in range(ROWS - 1):
        padded = setting.loss(row, ROWS - 1) - setting.loss(ROWS - 1)
        torch.testing.assert_close(padded, setting.loss(row), rtol=1e-4, atol=1e-4)


@every_task
def test_the_same_columns_make_the_same_batch(name: str) -> None:
    setting = Setting(name)
    one, same = setting.batch(setting.columns), setting.batch(setting.columns)
    assert one.count == same.count
    for left, right in ((one.inputs, same.inputs), (one.targets, same.targets)):
        assert left.keys() == right.keys()
        assert all(torch.equal(left[k], right[k]) for k in left)
    assert torch.equal(setting.loss(0, 1), setting.loss(0, 1))


@every_task
def test_making_a_batch_draws_nothing_from_the_global_generator(name: str) -> None:
    setting = Setting(name)
    before = torch.random.get_rng_state()
    setting.batch(setting.columns)
    assert torch.equal(before, torch.random.get_rng_state())
