"""Laws 1, 2 and 12 of a small model whose step is one compiled function."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from modelwright import api
from modelwright.runs import Run
from modelwright.training.ahead import Ahead
from modelwright.training.compiled import WholeStep, can_compile
from modelwright.training.examples import Shuffled
from tests.programs import outcome
from tests.trainings import Setting

# What the compiler itself warns of (deprecated calls inside PyTorch) is none of our business.
pytestmark = [
    pytest.mark.skipif(not can_compile(torch.device("cpu")), reason="nothing can be compiled here"),
    pytest.mark.filterwarnings("ignore"),
]


def trained(out: Path, *more: str) -> Run:
    steps = [
        "train.epochs=null",
        "train.steps=30",
        "train.save_every=10",
        "train.log_every=7",
        "train.compile=true",
    ]
    return api.train("mlp-digits", *steps, *more, out=out)


def test_resumed_between_two_lines_is_undisturbed(tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    whole = outcome(run.path)
    assert [line[0] for line in whole["train losses"] if len(line) > 2] == [7, 14, 21, 28, 30]
    shutil.rmtree(run.path / "checkpoints" / "train" / "step-00000030")
    assert outcome(trained(tmp_path / "run").path) == whole
    busy = outcome(trained(tmp_path / "busy", "train.validate_every=1").path)
    tensors = [k for k, v in whole.items() if isinstance(v, bytes)]
    assert all(busy[k] == whole[k] for k in tensors)


def test_it_is_the_step_of_the_loop() -> None:
    """Also of one that accumulates: the gradient is that of the mean over the whole batch."""
    setting = Setting("vector_classification", clip=0.5)
    plain, cut, whole = setting.trainer(), setting.trainer(), setting.trainer()
    cut.examples.parts = 2  # type: ignore[attr-defined]
    whole.whole = WholeStep(whole.model, whole.objective, setting.clip, whole.precision)
    for trainer in (plain, cut, whole):
        trainer.model.train()
    found = [trainer.gradients(0) for trainer in (plain, cut, whole)]
    (totals, values), (_, parts), (compiled_totals, compiled) = found
    assert compiled_totals == totals
    torch.testing.assert_close(compiled, values, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(parts[:2].sum(), values[0], rtol=1e-5, atol=1e-6)
    for other in (cut, whole):
        for p, q in zip(plain.model.parameters(), other.model.parameters(), strict=True):
            assert p.grad is not None
            assert q.grad is not None
            torch.testing.assert_close(q.grad, p.grad, rtol=1e-5, atol=1e-6)


def test_batches_made_several_at_a_time_are_those_made_one_by_one() -> None:
    """From whichever step: resumed, or with a batch passed over."""
    setting = Setting("vector_classification")
    trainer = setting.trainer()
    columns = {
        "features": np.random.default_rng(1).normal(size=(100, 16)).astype(np.float32),
        "label": np.arange(100) % 3,
    }
    examples = Shuffled(columns, 16, seed=1)
    ahead = Ahead(examples, trainer.objective)
    for step in (0, 1, 7, 8, 21, 5, 6):
        (alone,) = examples(step)
        wanted = trainer.objective.collate(alone, trainer.drawn)
        found = ahead(step)
        assert found is not None
        assert (found.count, found.bytes, found.computed) == (16, 0, 0)
        for made, one in ((found.inputs, wanted.inputs), (found.targets, wanted.targets)):
            assert made.keys() == one.keys()
            assert all(torch.equal(made[k], one[k]) for k in one)
            assert all(t.data_ptr() % 16 == 0 for t in made.values())
    unlabelled = columns | {"label": np.where(np.arange(100) == 50, -1, columns["label"])}
    uneven = Shuffled(columns, 15, seed=1)
    parts = Shuffled(columns, 16, seed=1, accumulate=2)
    for other in (Shuffled(unlabelled, 16, seed=1), uneven, parts):
        kept = Ahead(other, trainer.objective)
        assert [kept(step) for step in range(12)][-1] is None
