"""Early stopping on several processes: all end at one step, and the best model is whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelwright import checkpoint
from modelwright.pipeline.patience import chosen
from tests.parallel.jobs import recipe, train
from tests.programs import write_corpus


@pytest.mark.parametrize("shard", ["none", "fsdp"])
def test_two_processes_end_together_and_keep_the_best(tmp_path: Path, shard: str) -> None:
    write_corpus(tmp_path)
    name = recipe(tmp_path, "two", steps=60, shard=shard).name
    # So fast that the loss soon rises.
    wild = ("train.learning_rate=0.3", "train.schedule=constant", "train.validate_every=4")
    said = train(tmp_path, 2, name, *wild, "train.patience=2", "--out", "two")
    run = tmp_path / "two"
    lines = map(json.loads, (run / "metrics" / "train.jsonl").read_text().splitlines())
    losses = {x["step"]: x["validation"]["loss"] for x in lines if "validation" in x}
    best, last = min(losses, key=losses.__getitem__), max(losses)
    assert last == best + 8 < 60
    assert f"ended after step {last}" in said
    folder = run / "checkpoints" / "train"
    kept = chosen(folder)
    assert kept == folder / "best" / f"step-{best:08}"
    assert checkpoint.verify(kept) == []
    newest = checkpoint.newest(folder)
    assert newest is not None and newest.name == f"step-{last:08}"
