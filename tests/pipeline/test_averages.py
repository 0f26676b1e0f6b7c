"""Runs whose weights to use are not those in training: what is saved, and what goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from modelwright import api, checkpoint
from modelwright.pipeline.fit import scratch_trainer
from modelwright.runs import Run
from tests.programs import outcome, write_corpus

WAYS = {"ema": "train.ema=0.8", "schedule_free": "train.optimizer=schedule_free"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("averages"))


def trained(folder: Path, name: str, *more: str) -> Run:
    source = f"data.source={folder / 'corpus.jsonl'}"
    steps = ["train.steps=8", "train.save_every=4", "train.validate_every=4"]
    return api.train(str(folder / "tiny.yaml"), *steps, source, *more, out=folder / name)


@pytest.mark.parametrize("way", WAYS)
def test_the_model_is_the_average_and_resuming_is_exact(folder: Path, way: str) -> None:
    run = trained(folder, way, WAYS[way])
    last = checkpoint.load(run.path / "checkpoints" / "train" / "step-00000008")
    model, state = last.tensors["model"], last.tensors["optimizer"]
    for name, value in model.items():
        assert not torch.equal(value, state[f"{name}:training"]), name
        if way == "ema":
            assert torch.equal(value, last.tensors["average"][f"{name}:average"])
    assert ("average" in last.tensors) == (way == "ema")
    whole = outcome(run.path)
    shutil.rmtree(last.path)
    again = trained(folder, way, WAYS[way])
    assert outcome(again.path) == whole


def test_tuning_starts_from_the_average(folder: Path) -> None:
    run = trained(folder, "tuned", WAYS["ema"])
    saved = checkpoint.load(run.path / "checkpoints" / "train" / "step-00000008").tensors
    begun = dict(scratch_trainer(run, "tune", print).model.named_parameters())
    for name, value in begun.items():
        assert torch.equal(value, saved["average"][f"{name}:average"]), name
        assert not torch.equal(value, saved["optimizer"][f"{name}:training"]), name


def losses(run: Run, stage: str) -> list[float]:
    lines = (run.path / "metrics" / f"{stage}.jsonl").read_text().splitlines()
    return [line["loss"] for line in map(json.loads, lines) if "loss" in line]


def test_the_noise_scale_is_logged_when_asked_for(folder: Path) -> None:
    run = trained(folder, "noise", "train.noise_scale=true")
    lines = (run.path / "metrics" / "train.jsonl").read_text().splitlines()
    found = [line["noise_scale"] for line in map(json.loads, lines) if "noise_scale" in line]
    assert len(found) == 2
    assert all(value["noise"] > 0 for value in found)
    quiet = trained(folder, "no-noise")
    assert losses(quiet, "train") == losses(run, "train")
