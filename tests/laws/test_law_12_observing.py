"""Law 12: validating, sampling and saving while a model trains do not change its training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from modelwright import api, checkpoint
from modelwright.runs import Run
from modelwright.serving.engine import Engine
from modelwright.serving.sampling import SamplingParams
from modelwright.tasks.task import names
from modelwright.training.noise_scale import measured_noise_scale
from modelwright.training.optimizers import NAMES as OPTIMIZERS
from modelwright.training.train import compute
from tests.programs import outcome, write_corpus
from tests.trainings import Setting, States, raw, skip_without_matrices

NEVER = 1_000_000
EVERY = ("validate_every", "sample_every", "save_every")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("law-12"))


def trained(folder: Path, name: str, often: tuple[str, ...], *more: str) -> Run:
    """A run of a few steps that does what is named in ``often`` after every one of them."""
    overrides = [
        f"{stage}.{key}={1 if key in often else NEVER}"
        for stage in ("train", "tune")
        for key in EVERY
    ]
    overrides += ["train.steps=6", "tune.steps=4", f"data.source={folder / 'corpus.jsonl'}", *more]
    return api.tune(str(folder / "tiny.yaml"), *overrides, out=folder / name)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_that_observes_all_the_time_is_the_run_that_never_does(
    folder: Path, precision: str
) -> None:
    more = [f"{stage}.precision={precision}" for stage in ("train", "tune")]
    quiet = trained(folder, f"quiet-{precision}", (), *more)
    left = losses(quiet)
    for key in (*EVERY, "all"):
        chosen = EVERY if key == "all" else (key,)
        busy = trained(folder, f"{key}-{precision}", chosen, *more)
        assert parameters(busy) == parameters(quiet), key
        assert losses(busy) == left, key
    assert len(samples(busy)) > len(samples(quiet))  # it did sample
    assert validations(busy) > validations(quiet)


def parameters(run: Run) -> dict[str, bytes]:
    return {k: v for k, v in outcome(run.path).items() if isinstance(v, bytes)}


def lines(run: Run) -> list[dict[str, object]]:
    files = sorted(run.path.glob("metrics/*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def losses(run: Run) -> list[str]:
    return [float(str(line["loss"])).hex() for line in lines(run) if "loss" in line]


def validations(run: Run) -> int:
    return sum("validation" in line for line in lines(run))


def samples(run: Run) -> list[str]:
    files = run.path.glob("samples/*.jsonl")
    return [line for file in files for line in file.read_text().splitlines()]


# -- every task ------------------------------------------------------------------------------


def observed(setting: Setting, folder: Path) -> States:
    """Train, and after every step validate, generate where the model can, save and load."""
    trainer = setting.trainer()
    codec, columns = setting.data()
    states: States = []
    for step in range(setting.steps):
        states += setting.go(trainer, step, step + 1)
        trainer.model.eval()
        away = trainer.optimizers.evaluation
        with torch.no_grad(), away(), compute(trainer.precision, trainer.device):
            batch = trainer.objective.collate(columns, torch.Generator().manual_seed(step))
            assert trainer.objective.loss(trainer.model, batch).isfinite()
        trainer.model.train()
        if hasattr(trainer.model, "new_cache") and hasattr(codec, "prompt"):
            encoded = {name: column[0] for name, column in columns.items()}
            params = SamplingParams(max_tokens=3, temperature=1.0, seed=step)
            with away(), compute(trainer.precision, trainer.device):
                Engine(trainer.model, codec).answer([codec.example(encoded).given[:1]], params)
        with away():
            groups = {"model": trainer.model.state_dict(), **trainer.optimizers.saved()}
            checkpoint.load(checkpoint.save(folder, step + 1, groups, {}))
        assert measured_noise_scale(trainer, step) is not None
        assert trainer.model.training
    return states


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", names())
def test_every_task_trains_the_same_when_observed(
    tmp_path: Path, name: str, optimizer: str, precision: str
) -> None:
    setting = replace(Setting(name), steps=3, optimizer=optimizer, precision=precision)
    skip_without_matrices(setting)
    assert observed(setting, tmp_path) == setting.trained(0, setting.steps)


@pytest.mark.parametrize("optimizer", [o for o in OPTIMIZERS if o != "schedule_free"])
def test_an_average_changes_no_training(tmp_path: Path, optimizer: str) -> None:
    plain = replace(Setting("documents"), steps=3, optimizer=optimizer)
    assert observed(replace(plain, ema=0.9), tmp_path) == plain.trained(0, plain.steps)


def test_a_drawn_random_number_would_be_seen() -> None:
    """The comparison is of every bit: one that draws from the global generator is caught."""
    one, other = (torch.nn.Dropout(0.5).train() for _ in range(2))
    torch.manual_seed(0)
    left = raw(one(torch.ones(64)))
    torch.manual_seed(0)
    torch.rand(1)
    assert raw(other(torch.ones(64))) != left
