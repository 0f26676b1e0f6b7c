"""Image families in whole runs: running statistics are state, and observing leaves them alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelwright import api, checkpoint
from modelwright.runs import Run
from tests.programs import outcome

NEVER = 1_000_000
EVERY = ("validate_every", "sample_every", "save_every")
MODELS: dict[str, dict[str, Any]] = {
    "resnet": {"size": "resnet18", "widths": [4, 4, 8, 8], "stem_width": 4},
    "vit": {"depth": 1, "width": 16, "heads": 2, "patch": 4},
    "fast_cnn": {"widths": [4, 8]},
}


def trained(folder: Path, family: str, name: str, *more: str) -> Run:
    recipe = {
        "name": "images",
        "seed": 2,
        "data": {"source": "digits", "limit": 200, "split": {"by": "row"}},
        "model": {"family": family, **MODELS[family]},
        "train": {
            **{"task": "vector_classification", "steps": 6, "batch": 16, "threads": 1},
            **{"precision": "float32", "compile": False, "noise_scale": True},
        },
    }
    (folder / "images.yaml").write_text(yaml.safe_dump(recipe))
    return api.train(str(folder / "images.yaml"), *more, out=folder / name)


def tensors(run: Run) -> dict[str, bytes]:
    return {k: v for k, v in outcome(run.path).items() if isinstance(v, bytes)}


@pytest.mark.parametrize("family", MODELS)
def test_law_12_observing_all_the_time_changes_nothing(family: str, tmp_path: Path) -> None:
    often = [f"train.{key}=1" for key in EVERY]
    never = [f"train.{key}={NEVER}" for key in EVERY]
    quiet = trained(tmp_path, family, "quiet", *never)
    busy = trained(tmp_path, family, "busy", *often)
    assert tensors(busy) == tensors(quiet)
    fields = json.loads((quiet.path / "resolved.json").read_text())
    assert "features" not in json.dumps(fields["recipe"]["model"])


def test_a_checkpoint_holds_the_running_statistics(tmp_path: Path) -> None:
    run = trained(tmp_path, "fast_cnn", "run")
    newest = checkpoint.newest(run.path / "checkpoints" / "train")
    assert newest is not None
    stored = checkpoint.load(newest).tensors["model"]
    assert stored["stem.norm.running_mean"].abs().max() > 0
    assert stored["stem.norm.num_batches_tracked"].item() == 6  # of every step, and of no other
