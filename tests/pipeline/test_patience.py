"""Early stopping: where it ends, what is kept, and that a run which was killed ends there too."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import modelwright as mw
from modelwright import api, checkpoint
from modelwright.errors import EXIT_CORRUPT, CorruptError, Interrupted, ModelwrightError
from modelwright.pipeline.fit import _Job
from modelwright.pipeline.fit import trained as trained_of
from modelwright.pipeline.fitted import newest_checkpoint
from modelwright.pipeline.patience import Patience
from modelwright.pipeline.watch import StageObserver
from modelwright.runs import Run
from modelwright.terminal import check_run
from tests.programs import outcome

# A perceptron far too large for 90 digits, whose held-out loss soon rises again.
FITS_TOO_WELL = (
    "data.limit=120",
    "data.split={by: row, validation: 0.15, test: 0.1}",
    "model.hidden=[128]",
    "train.epochs=null",
    "train.steps=400",
    "train.learning_rate=0.02",
    "train.optimizer=adamw",
    "train.schedule=constant",
    "train.validate_every=10",
    "train.save_every=25",
)


def trained(out: Path, *more: str) -> Run:
    return api.train("mlp-digits", *FITS_TOO_WELL, *more, out=out)


def validations(run: Run) -> dict[int, float]:
    lines = (run.path / "metrics" / "train.jsonl").read_text().splitlines()
    found = [line for line in map(json.loads, lines) if "validation" in line]
    return {line["step"]: line["validation"]["loss"] for line in found}


@pytest.fixture(scope="module")
def early(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("patience") / "early", "train.patience=3")


def test_it_ends_when_nothing_is_gained_and_keeps_the_best(early: Run, tmp_path: Path) -> None:
    losses = validations(early)
    best, last = min(losses, key=losses.__getitem__), max(losses)
    assert last == best + 3 * 10 < 400
    assert early.stage("train")["best_step"] == best
    assert early.stage("train")["resolved"]["steps"] == last
    assert newest_checkpoint(early).name == f"step-{best:08}"
    # What is loaded, and so measured, served and exported, is the model of that step.
    until = trained(tmp_path / "until", f"train.steps={best}")
    kept, wanted = (checkpoint.load(newest_checkpoint(run)).tensors for run in (early, until))
    for name, value in wanted["model"].items():
        assert torch.equal(kept["model"][name], value), name


def test_a_run_that_is_done_stays_done(early: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = outcome(early.path)
    again = trained(early.path, "train.patience=3")
    assert outcome(again.path) == before


@pytest.mark.parametrize("where", ["best", "line", "saved", "ended"])
def test_killed_anywhere_it_ends_as_if_it_were_not(
    early: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """After the best model was kept, after its line, at the last save, after the end was fixed."""
    at = int(early.stage("train")["best_step"])
    end = int(early.stage("train")["resolved"]["steps"])
    of, name, step = {
        "best": (_Job, "_keep_best", at),
        "line": (StageObserver, "validate", at),
        "saved": (StageObserver, "save", end),
        "ended": (_Job, "_end", end),
    }[where]
    plain = getattr(of, name)

    def then_dies(self: Any, *given: Any) -> None:
        plain(self, *given)
        if step in given:
            raise KeyboardInterrupt

    monkeypatch.setattr(of, name, then_dies)
    with pytest.raises(Interrupted):
        trained(tmp_path / "run", "train.patience=3")
    monkeypatch.undo()
    again = trained(tmp_path / "run", "train.patience=3")
    assert validations(again) == validations(early)
    assert again.stage("train")["best_step"] == at
    kept, wanted = (checkpoint.load(newest_checkpoint(run)) for run in (again, early))
    assert kept.step == wanted.step
    for tensor, value in wanted.tensors["model"].items():
        assert torch.equal(kept.tensors["model"][tensor], value), tensor


def test_what_is_loaded_and_tuned_is_the_best(early: Run) -> None:
    assert trained_of(early) == newest_checkpoint(early)
    best = checkpoint.load(newest_checkpoint(early)).tensors["model"]
    loaded = mw.load(early)
    assert loaded.fitted.model is not None
    for name, value in loaded.fitted.model.state_dict().items():
        assert torch.equal(value, best[name]), name


def test_a_damaged_best_is_found(
    early: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(early.path, copy)
    best = newest_checkpoint(Run.open(copy))
    assert check_run(copy) == 0
    assert f"ok  {best}" in capsys.readouterr().out
    file = best / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert check_run(copy) == EXIT_CORRUPT
    assert f"bad {best}" in capsys.readouterr().out
    with pytest.raises(CorruptError, match=best.name):
        mw.load(copy)


def test_without_a_validation_part_it_says_so(tmp_path: Path) -> None:
    split = "data.split={by: row, validation: 0, test: 0.1}"
    with pytest.raises(ModelwrightError, match=r"train.patience: .*data.split.validation"):
        trained(tmp_path / "run", "train.patience=3", split)


@given(st.lists(st.floats(0, 9) | st.just(math.nan), max_size=30), st.integers(1, 4))
def test_it_decides_as_its_definition_says_and_as_its_log_does(
    losses: list[float], allowed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.jsonl"
        patience, lines = Patience(allowed), []
        best, best_at, worse = math.inf, None, 0
        for number, loss in enumerate(losses, start=1):
            better = patience.better(number * 10, loss)
            assert better == (loss < best)
            worse = 0 if better else worse + 1
            if better:
                best, best_at = loss, number * 10
            assert patience.best() == (best_at if best_at else patience.best())
            assert patience.exhausted() == (worse >= allowed)
            lines.append(json.dumps({"step": number * 10, "validation": {"loss": loss}}))
            log.write_text("\n".join(['{"step": 1, "loss": 2}', *lines]) + "\n")
            again = Patience(allowed, log)
            assert again.exhausted() == patience.exhausted() and again.best() == patience.best()
    assert not Patience(0).exhausted()
