"""T9: NaN and infinity in a loss, a gradient or a parameter never reach the model or the disk."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from modelwright import checkpoint
from modelwright.training.guard import SKIPS, Fault, not_finite
from modelwright.training.ledger import Entry, Ledger
from modelwright.training.train import Trainer
from tests.faults.injected import (
    TRAIN,
    kill_after_going_back,
    lines,
    loss_of_batch,
    loss_of_step,
    manifest,
)
from tests.programs import Programs, outcome, serving, the_line
from tests.trainings import Setting, raw

BAD = [math.nan, math.inf, -math.inf]


def marks(trainer: Trainer) -> str:
    """A hash of all parameters and of the whole optimiser."""
    digest = hashlib.sha256()
    for named in (trainer.model.state_dict(), trainer.optimizers.state()):
        for name, tensor in sorted(named.items()):
            digest.update(name.encode() + raw(tensor))
    return digest.hexdigest()


def in_loss(trainer: Trainer, value: float) -> None:
    real = trainer.objective.loss

    class Poisoned:
        draws, collate = trainer.objective.draws, trainer.objective.collate

        def loss(self, model: nn.Module, batch: object) -> torch.Tensor:
            return real(model, batch) * value  # type: ignore[arg-type]

    trainer.objective = Poisoned()
    trainer.held.objective = trainer.objective


def in_gradient(trainer: Trainer, value: float) -> None:
    parameter = list(trainer.model.parameters())[-1]
    parameter.register_hook(lambda g: g.index_fill(0, torch.tensor([0]), value))


def in_parameter(trainer: Trainer, value: float) -> None:
    with torch.no_grad():
        next(iter(trainer.model.parameters())).view(-1)[0] = value


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("place", [in_loss, in_gradient, in_parameter])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
@pytest.mark.parametrize("task", ["documents", "docstrings", "vector_classification"])
def test_nothing_is_updated(
    task: str, optimizer: str, place: Callable[[Trainer, float], None], value: float
) -> None:
    trainer = replace(Setting(task), optimizer=optimizer).trainer()
    trainer.step(0)
    place(trainer, value)
    if place is in_parameter:  # one that the batch may not use: then the save finds it
        assert not_finite(trainer.model.named_parameters())
        with torch.no_grad():
            for p in trainer.model.parameters():
                p.view(-1)[:] = value
    before = marks(trainer)
    with pytest.raises(Fault) as caught:
        trainer.step(1)
    assert marks(trainer) == before
    assert all(p.grad is None for p in trainer.model.parameters())
    said = str(caught.value)
    assert said.startswith("step 2 (epoch 1): the loss is ")
    assert "nothing was updated" in said
    if place is in_parameter:
        assert "itself is not finite" in said


def test_the_rows_of_the_guilty_micro_batch_are_named() -> None:
    trainer = replace(Setting("vector_classification"), accumulate=2).trainer()
    guilty = trainer.examples.rows(3)[1]
    real, calls = trainer.backward, []

    def backward(*a: object, **k: object) -> torch.Tensor:
        calls.append(1)
        return real(*a, **k) * (math.nan if len(calls) == 2 else 1)  # type: ignore[arg-type]

    trainer.backward = backward  # type: ignore[method-assign]
    with pytest.raises(Fault) as caught:
        trainer.step(3)
    assert caught.value.facts["rows"] == [int(r) for r in guilty]
    assert f"from rows {', '.join(map(str, guilty))} of" in str(caught.value)


@pytest.mark.parametrize("task", ["documents", "docstrings", "vector_classification"])
def test_rows_are_those_of_the_micro_batches(task: str) -> None:
    trainer = Setting(task).trainer()
    _, columns = Setting(task).data()
    for step in range(7):
        parts, rows = trainer.examples(step), trainer.examples.rows(step)
        assert len(parts) == len(rows)
        for part, numbers in zip(parts, rows, strict=True):
            for name, column in part.items():
                if task == "documents":
                    joined = np.concatenate([columns[name][int(n)] for n in numbers])
                    for window in column:
                        width = len(window)
                        spans = [joined[i : i + width] for i in range(len(joined) - width + 1)]
                        assert any(np.array_equal(window, span) for span in spans)
                else:
                    for i, n in enumerate(numbers):
                        np.testing.assert_array_equal(column[i], columns[name][int(n)])


def test_a_batch_is_skipped_and_at_most_five_in_a_row() -> None:
    trainer = Setting("vector_classification", steps=20).trainer()
    trainer.guard.on_nan = "skip"
    real = trainer.backward
    bad = {2, 4, 5, *range(8, 20)}
    trainer.backward = lambda *a, **k: (  # type: ignore[method-assign]
        real(*a, **k) * (math.nan if trainer.at in bad else 1)  # type: ignore[arg-type]
    )
    for step in range(8 + SKIPS):
        before = marks(trainer)
        record = trainer.step(step)
        assert record.skipped == (step in bad)
        assert (marks(trainer) == before) == record.skipped
    with pytest.raises(Fault, match="the 6th batch in a row"):
        trainer.step(8 + SKIPS)
    assert [e.step for e in trainer.ledger.entries] == [2, 4, 5, 8, 9, 10, 11, 12]


def test_the_ledger_says_what_a_step_takes() -> None:
    kept: list[int] = []
    ledger = Ledger(write=lambda entries: kept.append(len(entries)))
    ledger.add(Entry("rollback", 18, "x", to=15, batches=4))
    ledger.add(Entry("rollback", 18, "x", to=15, batches=4))
    ledger.add(Entry("halve", 16, "x"))
    assert kept == [1, 2]
    assert [ledger.data_step(s) for s in (0, 14, 15, 16)] == [0, 14, 19, 20]
    assert [ledger.halvings(s) for s in (15, 16, 40)] == [0, 1, 1]


# -- the whole program -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return serving(tmp_path_factory.mktemp("nan"))


def saved(run: Path) -> list[str]:
    return sorted(p.name for p in (run / "checkpoints" / "train").iterdir())


def test_stop_is_one_line_and_nothing_is_saved(programs: Programs) -> None:
    said = programs.run(*TRAIN, "stop", code=2, before=loss_of_step(12, "nan"))
    assert "step 13 (epoch " in the_line(said)
    run = programs.cwd / "stop"
    assert saved(run) == ["step-00000005", "step-00000010"]
    last = lines(run)[-1]
    assert last["step"] == 13
    assert math.isnan(last["loss"])
    programs.run("train", "stop")  # without the fault it goes on
    programs.run(*TRAIN, "sound")
    assert outcome(run) == outcome(programs.cwd / "sound")


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_what_departs_from_the_plan_is_repeated_after_a_kill(
    programs: Programs, policy: str
) -> None:
    fault = loss_of_batch(12, "nan")
    more = (f"train.on_nan={policy}",)
    programs.run(*TRAIN, f"whole-{policy}", *more, before=fault)
    whole = programs.cwd / f"whole-{policy}"
    (entry,) = manifest(whole)["departures"]
    assert entry["kind"] == policy
    assert entry["step"] == 12
    kill = kill_after_going_back() if policy == "rollback" else kill_at(13)
    killed = programs.start(*TRAIN, f"killed-{policy}", *more, before=fault + kill)
    assert killed.wait() == -9, killed.said
    programs.run(*TRAIN, f"killed-{policy}", *more, before=fault)
    assert ends(whole) == ends(programs.cwd / f"killed-{policy}")
    steps = [line["step"] for line in lines(whole) if "loss" in line and "refused" not in line]
    assert steps == list(range(1, 21))


def ends(run: Path) -> dict[str, object]:
    return {k: v for k, v in outcome(run).items() if isinstance(v, bytes)} | {
        "departures": [{k: e[k] for k in ("kind", "step", "to", "batches")}
                       for e in manifest(run)["departures"]]
    }  # fmt: skip


def kill_at(step: int) -> str:
    return f"""
import os, signal
from modelwright.training import train
step_before_kill = train.Trainer.step
def step_or_kill(self, number):
    if number == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
    return step_before_kill(self, number)
train.Trainer.step = step_or_kill
"""


def test_a_batch_that_stays_bad_is_gone_back_from_three_times(programs: Programs) -> None:
    said = programs.run(
        *TRAIN, "vain", "train.on_nan=rollback", code=2, before=loss_of_step(12, "nan")
    )
    assert "went back to step 10 3 times in vain" in the_line(said)
    assert len(manifest(programs.cwd / "vain")["departures"]) == 3


def test_a_parameter_that_overflows_is_not_saved(programs: Programs) -> None:
    fault = """
import torch
from modelwright.training import optimizers
real = optimizers.Optimizers.step
count = [0]
def step(self):
    real(self)
    count[0] += 1
    if count[0] == 10:
        with torch.no_grad():
            next(iter(self.groups[0]["params"])).view(-1)[0] = float("inf")
optimizers.Optimizers.step = step
"""
    said = programs.run(*TRAIN, "inf", code=2, before=fault)
    assert "step 10: the tensor " in the_line(said)
    assert "is not finite and was not saved" in the_line(said)
    assert saved(programs.cwd / "inf") == ["step-00000005"]
    assert checkpoint.verify(programs.cwd / "inf" / "checkpoints" / "train" / "step-00000005") == []
