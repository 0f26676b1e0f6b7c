"""T18 and T19: restarts that fail again and again, and restarts that are not the same training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from modelwright import checkpoint
from modelwright.errors import ModelwrightError
from modelwright.pipeline import resume
from modelwright.recipe import Recipe
from modelwright.runs import Run
from tests.faults.injected import TRAIN, loss_of_step
from tests.faults.test_nonfinite import kill_at
from tests.programs import Programs, outcome, serving, the_line


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return serving(tmp_path_factory.mktemp("restarts"))


def test_a_bad_checkpoint_is_set_aside_and_the_third_failure_is_the_last(
    programs: Programs,
) -> None:
    fault = loss_of_step(12, "nan")
    out = programs.cwd / "loop"
    folder = out / "checkpoints" / "train"
    programs.run(*TRAIN, "loop", code=2, before=fault)
    for _ in range(2):
        said = programs.run("train", "loop", code=2, before=fault)
        assert "continuing after step 10" in said
    said = programs.run("train", "loop", code=2, before=fault)
    assert "2 restarts from loop/checkpoints/train/step-00000010 failed" in said
    assert "continuing after step 5" in said
    assert checkpoint.verify(folder / "quarantined-step-00000010") == []
    for _ in range(2):  # no loop: it is not even begun
        line = the_line(programs.run("train", "loop", code=2))
        assert "the last 3 restarts failed, at step 13 for the last time" in line
        assert "delete loop/failures.json to try again" in line
    (out / "failures.json").unlink()
    programs.run("train", "loop")
    programs.run(*TRAIN, "sound")
    assert outcome(out) == outcome(programs.cwd / "sound")


def test_progress_forgets_the_failures_and_kills_do_not_count(programs: Programs) -> None:
    out = programs.cwd / "kills"
    for _ in range(4):  # a machine that goes down is no fault of the checkpoint
        killed = programs.start(*TRAIN, "kills", before=kill_at(12))
        assert killed.wait() == -9, killed.said
    assert not (out / "failures.json").exists()
    programs.run("train", "kills", code=2, before=loss_of_step(12, "nan"))
    assert len(json.loads((out / "failures.json").read_text())["train"]) == 1
    programs.run("train", "kills")
    assert json.loads((out / "failures.json").read_text()) == {}
    assert outcome(out) == outcome(programs.cwd / "sound")


# -- T19 ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(programs: Programs) -> Path:
    """A run that was killed after its checkpoint of step 10."""
    killed = programs.start(*TRAIN, "stopped", before=kill_at(12))
    assert killed.wait() == -9, killed.said
    return programs.cwd / "stopped"


@pytest.fixture
def copy(stopped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = stopped.parent / tmp_path_factory.mktemp("copy").name
    shutil.copytree(stopped, path)
    return path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def data(copy: Path) -> str:
    """Another corpus, where the copy alone sees it."""
    other = copy.with_suffix(".jsonl")
    lines = (copy.parent / "corpus.jsonl").read_text().splitlines(keepends=True)
    other.write_text("".join(lines[:-9]))
    edit(copy / "recipe.yaml", "source: corpus.jsonl", f"source: {other.name}")
    return "data"


def seed(copy: Path) -> str:
    edit(copy / "recipe.yaml", "seed: 3", "seed: 4")
    return "seed"


def shape(copy: Path) -> str:
    edit(copy / "recipe.yaml", "width: 64", "width: 32")
    return "model.width"


def precision(copy: Path) -> str:
    edit(copy / "recipe.yaml", "precision: float32", "precision: bfloat16")
    return "train.precision"


def vocabulary(copy: Path) -> str:
    edit(copy / "recipe.yaml", "vocabulary: 320", "vocabulary: 300")
    return "codec"


def threads(copy: Path) -> str:
    edit(copy / "recipe.yaml", "threads: 1", "threads: 2")
    return "train.threads"


def test_every_difference_is_named(programs: Programs, copy: Path) -> None:
    names = [change(copy) for change in (seed, shape, precision, vocabulary, threads)]
    line = the_line(programs.run("train", copy.name, code=2))
    for name in [*names, "data"]:  # other tokens are other data as well
        assert f" {name} = " in line
    assert "seed = 3 (now 4)" in line
    assert "--allow-change" not in line  # a shape cannot be accepted
    again = the_line(programs.run("train", copy.name, code=2))
    assert again == line  # the second try is refused as well
    assert (copy / "checkpoints" / "train" / "step-00000010").is_dir()


@pytest.mark.parametrize("change", [data, seed, shape, precision, vocabulary, threads])
def test_one_change_is_refused_or_accepted_by_name(
    programs: Programs, copy: Path, change: object
) -> None:
    name = change(copy)  # type: ignore[operator]
    line = the_line(programs.run("train", copy.name, code=2))
    assert f" {name} = " in line
    if " codec = " in line or name == "model.width":  # another tokenizer comes with other data
        assert "accept it" not in line
        programs.run("train", copy.name, "--allow-change", name, code=2)
        return
    assert f"accept it with --allow-change {name}," in line
    said = programs.run("train", copy.name, "--allow-change", name)
    assert f"train: going on although {name} has changed" in said
    assert "continuing after step 10" in said


def test_what_is_accepted_is_no_longer_refused(tmp_path: Path) -> None:
    saved, now = {"data": "a", "torch": "2.1", "train.batch": 4}, {"data": "b", "torch": "2.2"}
    run = Run(tmp_path, Recipe(name="r", data={"source": "x"}, train={"task": "documents"}))
    with pytest.raises(ModelwrightError) as caught:
        resume.check(tmp_path / "c" / "step-1", saved, now, run)
    assert "data = a (now b), torch = 2.1 (now 2.2), train.batch = 4 (now None)" in str(
        caught.value
    )
    run.accepted = frozenset({"data", "torch"})
    with pytest.raises(ModelwrightError, match=r"with train\.batch = 4 \(now None\); accept it"):
        resume.check(tmp_path / "c" / "step-1", saved, now, run)
    run.accepted = frozenset({"data", "torch", "train.batch"})
    assert resume.check(tmp_path, saved, now, run) == ["data", "torch", "train.batch"]


def test_another_torch_is_refused(programs: Programs, copy: Path) -> None:
    other = "import torch; torch.__version__ = '9.9.0'"
    line = the_line(programs.run("train", copy.name, code=2, before=other))
    assert "torch = " in line
    assert "(now 9.9)" in line
    assert "accept it with --allow-change torch" in line
    programs.run("train", copy.name, "--allow-change", "torch", before=other)


def test_a_command_that_differs_names_all_differences(programs: Programs, stopped: Path) -> None:
    changes = ("train.learning_rate=0.5", "train.batch=8", "seed=9", "train.steps=40")
    line = the_line(programs.run("train", "tiny.yaml", *changes, "--out", "stopped", code=2))
    for change in changes:
        assert f"{change.split('=')[0]}: " in line


def test_fewer_cores_than_threads_are_told(programs: Programs, copy: Path) -> None:
    edit(copy / "recipe.yaml", "threads: 1", "threads: 2")
    one = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    programs.run("train", copy.name, "--allow-change", "train.threads", before=kill_at(13), code=-9)
    said = programs.run("train", copy.name, "--allow-change", "train.threads", before=one)
    assert "train: going on with 2 threads, as it began, for the same bits" in said
    assert "with cores for 1 that is many times slower" in said
