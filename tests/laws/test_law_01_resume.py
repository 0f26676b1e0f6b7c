"""Law 1: killed at any moment and resumed is never killed, bit for bit, losses included."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from modelwright import checkpoint, places, recipe
from modelwright.tasks.task import names
from modelwright.training.optimizers import NAMES as OPTIMIZERS
from modelwright.training.train import Trainer
from tests.programs import Program, Programs, environment, outcome, serving, the_line
from tests.trainings import SETTINGS, Setting, States, raw, setting_of, skip_without_matrices

KILLS = 10
SEED = 20


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return serving(tmp_path_factory.mktemp("law-1"))


def arguments(precision: str, out: str) -> list[str]:
    precisions = [f"{stage}.precision={precision}" for stage in ("train", "tune")]
    return ["tune", "tiny.yaml", *precisions, "--out", out]


@pytest.fixture(scope="module")
def undisturbed(programs: Programs) -> dict[str, dict[str, object]]:
    """What a run that nobody kills leaves, by precision."""
    left = {}
    for precision in ("float32", "bfloat16"):
        programs.run(*arguments(precision, f"whole-{precision}"))
        left[precision] = outcome(programs.cwd / f"whole-{precision}")
    assert left["float32"] != left["bfloat16"]
    return left


def in_prepare(run: Path) -> bool:
    return (run / "data" / "train").exists()


def in_save(run: Path) -> bool:
    """Whether a checkpoint is being written: a directory without its seal."""
    steps = run.glob("checkpoints/*/step-*")
    return any(not (step / "COMPLETE").exists() for step in steps)


def steps_done(run: Path) -> int:
    """Lines of metrics so far: how far the run has come."""
    return sum(path.read_bytes().count(b"\n") for path in run.glob("metrics/*.jsonl"))


def killed_when(program: Program, condition: Callable[[], bool], delay: float = 0.0) -> int:
    """Kill ``delay`` seconds after the condition comes to hold; 0 if it ended before."""
    while not condition():
        if not _runs(program):
            return program.wait()
        time.sleep(0.0005)
    time.sleep(delay)
    program.signal(signal.SIGKILL)
    return program.wait()


def _runs(program: Program) -> bool:
    state = Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state != "Z"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_killed_at_10_random_moments(
    programs: Programs, undisturbed: dict[str, dict[str, object]], precision: str
) -> None:
    """Once while preparing, three times inside a save, else anywhere in the two trainings."""
    rng = random.Random(f"{SEED} {precision}")
    out = programs.cwd / f"killed-{precision}"
    moments = sorted(rng.uniform(0, 52) for _ in range(KILLS - 1))
    kills: list[str] = []
    during_saves = 0
    for number, moment in enumerate([-1.0, *moments]):
        saving = number % 3 == 2
        delay = 0.0 if saving else rng.uniform(0, 0.03)

        def reached(moment: float = moment, saving: bool = saving) -> bool:
            if moment < 0:
                return in_prepare(out)
            return steps_done(out) >= moment and (not saving or in_save(out))

        program = programs.start(*arguments(precision, out.name))
        assert killed_when(program, reached, delay) == -signal.SIGKILL, program.said
        during_saves += in_save(out)
        done = [f"{p.parent.name}/{p.name}" for p in sorted(out.glob("checkpoints/*/step-*"))]
        kills.append(f"{'in a save' if saving else 'anywhere'}, {', '.join(done) or 'none saved'}")
    print(f"seed {SEED}, {precision}; kill -9 with:", *kills, sep="\n  ")
    assert during_saves
    programs.run(*arguments(precision, out.name))
    assert outcome(out) == undisturbed[precision]


def test_killed_as_a_command_of_its_own_and_continued_by_its_directory(
    programs: Programs, undisturbed: dict[str, dict[str, object]]
) -> None:
    """No fork: a fresh interpreter, killed after its third save; `run RUN` goes on."""
    out = programs.cwd / "alone"
    line = [sys.executable, "-m", "modelwright", *arguments("float32", out.name)]
    with (programs.cwd / "alone.txt").open("w") as log:
        process = subprocess.Popen(line, cwd=programs.cwd, env=environment(), stderr=log)
    third = out / "checkpoints" / "train" / "step-00000015" / "COMPLETE"
    while not third.exists():
        assert process.poll() is None, (programs.cwd / "alone.txt").read_text()
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    said = programs.run("tune", out.name)
    assert "continuing after step" in said
    assert outcome(out) == undisturbed["float32"]


def test_stopped_politely_is_the_same(
    programs: Programs, undisturbed: dict[str, dict[str, object]]
) -> None:
    out = programs.cwd / "stopped"
    for stage, number, code in (("train", signal.SIGINT, 130), ("tune", signal.SIGTERM, 75)):
        program = programs.start(*arguments("bfloat16", out.name))
        program.until_said(f"{stage}: 1/")
        program.signal(number)
        assert program.wait() == code, program.said
        assert f"continue with `modelwright run {out.name}`" in the_line(program.said)
    programs.run(*arguments("bfloat16", out.name))
    assert outcome(out) == undisturbed["bfloat16"]


# -- every task, optimiser, schedule and shipped recipe, in one process ----------------------


def stopped_and_continued(setting: Setting, folder: Path, at: int) -> tuple[States, States]:
    """The states after every step of an undisturbed training, and of one begun again at ``at``."""
    whole = setting.trained(0, setting.steps)
    first = setting.trainer()
    setting.go(first, 0, at)
    with first.optimizers.evaluation():
        groups = {"model": first.model.state_dict(), **first.optimizers.saved()}
        path = checkpoint.save(folder, at, groups, {})
    torch.manual_seed(999)  # the new process has drawn other numbers before
    found = checkpoint.load(path)
    again = setting.trainer()
    again.model.load_state_dict(found.tensors["model"])
    again.optimizers.restore(found.tensors)
    continued = setting.go(again, at, setting.steps)
    if setting.ema:  # the weights to use, as well as those in training
        undisturbed = setting.trainer()
        setting.go(undisturbed, 0, setting.steps)
        assert evaluated(again) == evaluated(undisturbed)
    return whole[at:], continued


def evaluated(trainer: Trainer) -> dict[str, bytes]:
    """Every bit of the weights to use."""
    with trainer.optimizers.evaluation():
        return {name: raw(value) for name, value in trainer.model.state_dict().items()}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_task_continues_exactly(
    tmp_path: Path, name: str, optimizer: str, precision: str
) -> None:
    setting = replace(Setting(name), optimizer=optimizer, precision=precision)
    skip_without_matrices(setting)
    for at in (1, 4):
        whole, continued = stopped_and_continued(setting, tmp_path / str(at), at)
        assert whole == continued
        assert len({loss for loss, _ in whole}) > 1  # it does train


@pytest.mark.parametrize("optimizer", [o for o in OPTIMIZERS if o != "schedule_free"])
def test_every_average_continues_exactly(tmp_path: Path, optimizer: str) -> None:
    setting = replace(Setting("documents"), optimizer=optimizer, ema=0.9)
    for at in (1, 4):
        whole, continued = stopped_and_continued(setting, tmp_path / str(at), at)
        assert whole == continued


@pytest.mark.parametrize("schedule", SETTINGS["schedule"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_every_schedule_continues_exactly(tmp_path: Path, schedule: str, accumulate: int) -> None:
    setting = replace(Setting("documents"), schedule=schedule, accumulate=accumulate)
    whole, continued = stopped_and_continued(setting, tmp_path, 3)
    assert whole == continued


@pytest.mark.parametrize("name", places.shipped())
def test_every_recipe_continues_exactly(tmp_path: Path, name: str) -> None:
    """With the recipe's own family, objective and settings, on data made from specimens."""
    for stage in recipe.read(name).stages:
        setting = setting_of(recipe.read(name), stage)
        whole, continued = stopped_and_continued(setting, tmp_path / stage, 3)
        assert whole == continued
