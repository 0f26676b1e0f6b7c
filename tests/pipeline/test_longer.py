"""A training that has ended goes on where the user says what may have changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from modelwright import api, checkpoint, pipeline
from modelwright.errors import ModelwrightError
from modelwright.runs import Run
from tests.programs import outcome

DIGITS: dict[str, Any] = {
    "name": "longer",
    "seed": 3,
    "data": {"source": "digits", "limit": 200},
    "model": {"family": "mlp", "hidden": [16]},
    "train": {"task": "vector_classification", "batch": 16, "schedule": "constant", "threads": 1},
}
SUMS: dict[str, Any] = {
    "name": "sums",
    "seed": 1,
    "data": {"source": "arithmetic", "split": {"by": "group"}},
    "codec": {"vocabulary": 260},
    "model": {"family": "decoder", "depth": 1, "width": 16, "heads": 1, "context": 32},
    "train": {"task": "checked_answers", "steps": 2, "batch": 8, "precision": "float32"},
    "tune": {
        "task": "rewarded_answers",
        "options": {"questions": 4, "answers": 2, "max_tokens": 4, "every": 2},
        "batch": 8,
        "optimizer": "adamw",
        "schedule": "constant",
        "precision": "float32",
    },
}


def trained(path: Path, recipe: dict[str, Any], stage: str, steps: int, *accepted: str) -> Run:
    run = api.open_run(recipe, f"{stage}.steps={steps}", out=path, accepted=accepted)
    pipeline.run_stages(run, ["prepare", "train", "tune"][: 2 + (stage == "tune")], print)
    return run


@pytest.mark.parametrize(("recipe", "stage"), [(DIGITS, "train"), (SUMS, "tune")])
def test_a_finished_training_goes_on_for_more_steps(
    recipe: dict[str, Any], stage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path / "a", recipe, stage, 5)
    capsys.readouterr()
    trained(tmp_path / "a", recipe, stage, 9, f"{stage}.steps")
    assert "continuing after step 5" in capsys.readouterr().out
    trained(tmp_path / "b", recipe, stage, 9)
    assert outcome(tmp_path / "a") == outcome(tmp_path / "b")


@pytest.mark.parametrize("accepted", [(), ("train.batch",)])
def test_what_is_not_named_is_refused(accepted: tuple[str, ...], tmp_path: Path) -> None:
    trained(tmp_path / "a", DIGITS, "train", 5)
    with pytest.raises(ModelwrightError, match="train.steps: 5 there, 9 here"):
        trained(tmp_path / "a", DIGITS, "train", 9, *accepted)


def test_with_no_more_steps_other_data_are_learned_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path / "a", DIGITS, "train", 5)
    fewer = {**DIGITS, "data": {"source": "digits", "limit": 150}}
    capsys.readouterr()
    trained(tmp_path / "a", fewer, "train", 5, "data", "data.limit")
    assert "data or recipe have changed, training anew" in capsys.readouterr().out
    trained(tmp_path / "b", fewer, "train", 5)
    newest = [checkpoint.newest(tmp_path / run / "checkpoints/train") for run in "ab"]
    weights = [checkpoint.load(at).tensors["model"] for at in newest if at is not None]
    assert len(weights) == 2
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
