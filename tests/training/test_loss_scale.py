"""float16: the factor on the loss, the steps that overflow, and that they repeat themselves."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelwright import recipe, runtime
from modelwright.data.codecs.vectors import Codec
from modelwright.errors import ModelwrightError
from modelwright.models import mlp
from modelwright.objectives.classification import Objective
from modelwright.training import budget
from modelwright.training.examples import Shuffled
from modelwright.training.ledger import Entry, Ledger
from modelwright.training.loss_scale import DOUBLED_AFTER, FIRST, LARGEST, loss_scale
from modelwright.training.optimizers import build_optimizers
from modelwright.training.train import Observer, Record, Trainer
from modelwright.types import Batch


def test_its_course_is_the_one_that_is_written_down() -> None:
    assert loss_scale(0, []) == loss_scale(DOUBLED_AFTER - 1, []) == FIRST
    assert loss_scale(DOUBLED_AFTER, []) == 2 * FIRST
    assert loss_scale(10**9, []) == LARGEST
    assert loss_scale(1, [0]) == FIRST / 2
    assert loss_scale(DOUBLED_AFTER, [0]) == FIRST / 2  # counted from the overflow
    assert loss_scale(DOUBLED_AFTER + 1, [0]) == FIRST
    assert loss_scale(100, list(range(100))) == 1


@given(st.sets(st.integers(0, 9000), max_size=30), st.integers(0, 9001))
def test_it_is_what_counting_step_by_step_gives(overflows: set[int], step: int) -> None:
    scale, good = FIRST, 0
    for at in range(step):
        if at in overflows:
            scale, good = max(1.0, scale / 2), 0
            continue
        good += 1
        if good == DOUBLED_AFTER:
            scale, good = min(LARGEST, scale * 2), 0
    assert loss_scale(step, sorted(overflows)) == scale


class Kept(Observer):
    def __init__(self) -> None:
        self.records: list[Record] = []

    def after_step(self, record: Record, *, last: bool) -> None:
        self.records.append(dataclasses.replace(record, seconds=0.0))


class Steep(Objective):
    """The loss times a power of two, which moves where float16 overflows and nothing else."""

    factor = 1.0

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return self.factor * super().loss(model, batch)


def trained(
    precision: torch.dtype, *, steps: int = 12, factor: float = 1.0, ledger: Ledger | None = None
) -> tuple[Trainer, list[Record]]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 64)
    features = (rng.standard_normal((64, 6)) + labels[:, None]).astype(np.float32)
    scale = np.zeros((), np.float32), np.ones((), np.float32)
    codec = Codec(["a", "b", "c"], (6,), *scale, bytes_only=False)
    torch.manual_seed(0)
    model = mlp.Config(features=6, classes=3, hidden=(8,)).build()
    objective = Steep(codec)
    objective.factor = factor
    optimizers = build_optimizers(
        model,
        "sgd",
        learning_rate=0.1 / factor,
        matrix_learning_rate=0.1 / factor,
        momentum=0.9,
        weight_decay=0.0,
        precision=precision,
    )
    columns = {"features": features, "label": labels}
    trainer = Trainer(
        model=model,
        objective=objective,
        examples=Shuffled(columns, 16, seed=0),
        optimizers=optimizers,
        steps=steps,
        seed=0,
        clip=0.0,
        precision=precision,
        ledger=ledger or Ledger(),
    )
    observer = Kept()
    trainer.run(0, observer)
    return trainer, observer.records


def test_it_learns_what_float32_learns() -> None:
    _, narrow = trained(torch.float16)
    _, wide = trained(torch.float32)
    for a, b in zip(narrow, wide, strict=True):
        assert abs(a.loss - b.loss) < 0.01 * b.loss
        assert abs(a.gradient_norm - b.gradient_norm) < 0.02 * b.gradient_norm
    assert narrow[-1].loss < 0.8 * narrow[0].loss


def test_a_step_that_overflows_is_not_taken_and_the_scale_halved() -> None:
    trainer, records = trained(torch.float16, factor=2.0**6)
    skipped = [r.step - 1 for r in records if r.skipped]
    assert skipped and skipped == trainer.ledger.overflows()
    assert skipped == list(range(len(skipped)))  # until it fits, from the first step on
    assert trainer.scale == FIRST / 2 ** len(skipped)
    once = trained(torch.float16, steps=1, factor=2.0**6)[0]
    fresh = mlp.Config(features=6, classes=3, hidden=(8,))
    torch.manual_seed(0)
    for p, q in zip(once.model.parameters(), fresh.build().parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_run_that_is_repeated_with_its_ledger_is_the_same() -> None:
    first, records = trained(torch.float16, factor=2.0**6)
    again, repeated = trained(
        torch.float16, factor=2.0**6, ledger=Ledger(list(first.ledger.entries))
    )
    assert str(records) == str(repeated)  # a norm that is not a number equals nothing
    assert first.ledger.entries == again.ledger.entries
    assert isinstance(first.ledger.entries[0], Entry)
    for p, q in zip(first.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_machine_that_does_not_compute_in_it_says_so() -> None:
    stage = {"task": "documents", "precision": "float16"}
    made = recipe.parse({"name": "x", "data": {"source": "digits"}, "train": stage})
    machine = runtime.Machine("", 1, 1.0, "", "", "cpu", {"float32": 1.0, "bfloat16": 2.0})
    with pytest.raises(ModelwrightError, match=r"train\.precision: .* does not compute in float16"):
        budget.derive_machine(made, machine, budget.Derived())
