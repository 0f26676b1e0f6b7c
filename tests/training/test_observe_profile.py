"""The profiler changes no training (law 12) and says where the time of a step goes."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelwright import api
from modelwright.tasks.task import names
from modelwright.training.observe.profile import PARTS, Cost, Costs, Profiler
from modelwright.training.train import Observer, Record
from tests.programs import outcome, serving, write_corpus
from tests.trainings import Setting, States, raw

TEXT = Setting("documents", steps=12)


def trained(setting: Setting, profiled: int, folder: Path) -> tuple[States, list[str]]:
    """Losses and parameters of every step of a training, and what its profiler said."""
    trainer = replace(setting).trainer()
    said: list[str] = []
    states: States = []
    profiler = Profiler(trainer, profiled, 0, folder, said.append)

    class Watcher(Observer):
        def after_step(self, record: Record, *, last: bool) -> None:
            profiler.after_step(record.seconds)
            state = trainer.model.state_dict()
            states.append((record.loss, {n: raw(t) for n, t in state.items()}))

    trainer.steps = setting.steps
    trainer.run(0, Watcher())
    profiler.close()
    return states, said


@pytest.mark.parametrize("name", names())
def test_a_profiled_training_is_the_training(tmp_path: Path, name: str) -> None:
    setting = replace(Setting(name), steps=7)
    left, quiet = trained(setting, 0, tmp_path / "none")
    right, said = trained(setting, 1, tmp_path / "some")
    assert len(left) == 7
    assert left == right
    assert quiet == []
    assert said
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("steps", "wanted", "counted"), [(12, 4, 4), (4, 4, 4), (2, 9, 2)])
def test_as_many_steps_as_there_are(tmp_path: Path, steps: int, wanted: int, counted: int) -> None:
    _, said = trained(replace(TEXT, steps=steps), wanted, tmp_path)
    assert said[0].startswith(f"profile: {counted} steps of ")
    assert costs_in(tmp_path)["steps"] == counted


def costs_in(folder: Path) -> Any:
    return json.loads((folder / "costs.json").read_text())


def test_the_costs_are_shares_of_the_step(tmp_path: Path) -> None:
    _, said = trained(TEXT, 4, tmp_path)
    costs = costs_in(tmp_path)
    assert [c["name"] for c in costs["parts"]] == list(PARTS)
    for kind in ("parts", "operators", "modules"):
        assert sum(c["share"] for c in costs[kind]) == pytest.approx(1, abs=0.05), kind
    assert all(c["share"] > 0 for c in costs["parts"])
    calls = {c["name"]: c["calls"] for c in costs["operators"]}
    assert calls["Optimizer.step#AdamW.step"] == 1
    modules = {c["name"]: c["calls"] for c in costs["modules"]}
    assert modules["blocks.*.attention"] == 2  # one a block
    assert not any("modelwright" in name or "module:" in name for name in calls)
    assert said[-2].startswith("profile: largest cost: ")
    with gzip.open(tmp_path / "trace.json.gz") as file:
        events = json.load(file)["traceEvents"]
    assert {"modelwright: forward", "aten::mm"} <= {e.get("name") for e in events}


def test_backward_goes_to_the_module_whose_forward_made_it(tmp_path: Path) -> None:
    _, _ = trained(TEXT, 4, tmp_path)
    modules = {c["name"] for c in costs_in(tmp_path)["modules"]}
    parts = {c["name"]: c["share"] for c in costs_in(tmp_path)["parts"]}
    lost = sum(
        c["share"] for c in costs_in(tmp_path)["modules"] if c["name"] == "(no module: backward)"
    )
    assert "blocks.*.feed_forward.up" in modules
    assert lost < 0.5 * parts["backward"]


def test_it_leaves_no_hook_and_no_mark(tmp_path: Path) -> None:
    trainer = TEXT.trainer()
    objective, examples, held = trainer.objective, trainer.examples, trainer.held
    profiler = Profiler(trainer, 2, trainer.steps - 2, tmp_path, lambda line: None)
    assert trainer.objective is not objective
    assert trainer.examples.total == examples.total
    profiler.close()  # a training that was stopped before its first step
    assert trainer.objective is objective
    assert (trainer.examples, trainer.held) == (examples, held)
    hooks = [m._forward_hooks or m._forward_pre_hooks for m in trainer.model.modules()]
    assert not any(hooks)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_ends_the_profile_only(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    left, said = trained(TEXT, 2, tmp_path / "file" / "profile")
    assert any("cannot be written (Not a directory)" in line for line in said)
    assert left == trained(TEXT, 0, tmp_path)[0]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("aten::mm", "matrix products"),
        ("aten::addmm", "matrix products"),
        ("aten::native_dropout", "dropout"),
        ("aten::copy_", "copied"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("(no operator: Python, waiting)", "too small"),
        ("custom::thing", "custom::thing, 90% of a step"),
    ],
)
def test_the_largest_cost_is_named_with_advice(name: str, advice: str) -> None:
    costs = Costs(1, 0.1, 0.0, [], [Cost(name, 0.9, 1.0)], [])
    assert advice in costs.advice()


def test_through_the_command_line(tmp_path: Path) -> None:
    program = serving(tmp_path)
    steps = ("train.steps=6", "tune.steps=6")
    said = program.run("tune", "tiny.yaml", *steps, "--profile", "2", "--out", "a")
    assert said.count("largest cost") == 2  # train and tune
    for stage in ("train", "tune"):
        assert costs_in(tmp_path / "a" / "profile" / stage)["steps"] == 2
    program.run("tune", "tiny.yaml", *steps, "--out", "b")
    assert outcome(tmp_path / "a") == outcome(tmp_path / "b")
    said = program.run("train", "tiny.yaml", "--profile", "0", code=2)
    assert "--profile: 0 is no number of steps" in said


def test_through_the_recipe(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    source = f"data.source={tmp_path / 'corpus.jsonl'}"
    run = api.train(
        str(tmp_path / "tiny.yaml"), source, "train.steps=8", "watch.profile=2", out=tmp_path / "r"
    )
    assert costs_in(run.path / "profile" / "train")["steps"] == 2
