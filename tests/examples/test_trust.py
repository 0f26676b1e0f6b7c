"""Whose code runs: what the user's own recipe names, and nothing that came from elsewhere."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import yaml

from modelwright import api, checkpoint, extensions
from modelwright.errors import ModelwrightError
from modelwright.pipeline.fitted import load_fitted
from tests.own_code import FOLDER
from tests.programs import Programs, the_line

FEW = [
    "train.steps=4",
    "train.epochs=null",
    "train.batch=8",
    "train.save_every=2",
    "data.limit=200",
]
QUICK = [*FEW, "train.threads=1", "train.precision=float32"]
# Each leaves a mark beside it, so that a test can tell that it ran.
MARKED = '\nfrom pathlib import Path as _P\n_P("ran").touch()\n'


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """In a folder of its own, for a user who has named no code yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for suffix in ("py", "yaml"):
        shutil.copy(FOLDER / f"tic_tac_toe.{suffix}", tmp_path)
    with (tmp_path / "tic_tac_toe.py").open("a") as file:
        file.write(MARKED)
    return Programs(tmp_path)


def trained(programs: Programs) -> Path:
    programs.run("train", "tic_tac_toe.yaml", *QUICK, "--out", "run")
    (programs.cwd / "ran").unlink()
    return programs.cwd / "run"


def as_another_user(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(programs.cwd / "another"))


def test_ones_own_run_is_used_without_a_question(programs: Programs) -> None:
    run = trained(programs)
    (programs.cwd / "tic_tac_toe.py").unlink()  # the run has what it needs
    assert programs.run("ask", "run", "X...O....").strip()
    kept = list((programs.cwd / "state" / "modelwright" / "extensions").iterdir())
    assert [p.stem for p in kept] == [hashlib.sha256(kept[0].read_bytes()).hexdigest()]
    assert kept[0].parent.stat().st_mode & 0o077 == 0, "others can write what this user runs"
    assert (run / "extensions").is_dir()


@pytest.mark.parametrize(
    "command",
    [
        "ask run X...O....",
        "evaluate run",
        "run run",
        "serve run --port 0",
        "export run out --to hub",
        "crossval run --folds 2",
        "show run/recipe.yaml",
    ],
)
def test_a_run_from_elsewhere_is_refused_until_its_code_is_trusted(
    command: str, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(programs)
    as_another_user(programs, monkeypatch)
    line = the_line(programs.run(*command.split(), code=2))
    (copy,) = (run / "extensions").iterdir()
    assert f"extensions/{copy.name}" in line
    assert "modelwright trust FILE" in line
    assert not (programs.cwd / "ran").exists(), "foreign code ran"


def test_trusting_the_copy_is_enough(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(programs)
    as_another_user(programs, monkeypatch)
    (copy,) = (run / "extensions").iterdir()
    programs.run("trust", str(copy))
    assert programs.run("ask", "run", "X...O....").strip()


def test_a_copy_that_was_changed_is_other_code(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(programs)
    as_another_user(programs, monkeypatch)
    (copy,) = (run / "extensions").iterdir()
    copy.write_text(copy.read_text() + "# changed\n")
    programs.run("trust", str(copy))
    the_line(programs.run("ask", "run", "X...O....", code=2))
    assert not (programs.cwd / "ran").exists()


def test_a_kept_file_that_was_changed_is_not_run(programs: Programs) -> None:
    trained(programs)
    (kept,) = (programs.cwd / "state" / "modelwright" / "extensions").iterdir()
    kept.write_text(kept.read_text() + "# changed\n")
    the_line(programs.run("ask", "run", "X...O....", code=2))
    assert not (programs.cwd / "ran").exists()


def test_the_recipe_of_a_run_cannot_name_a_file(programs: Programs) -> None:
    """Where a recipe of the user's own names the path of a file, that of a run runs nothing."""
    run = trained(programs)
    values = yaml.safe_load((run / "recipe.yaml").read_text())
    for path in ("./tic_tac_toe.py", str(programs.cwd / "tic_tac_toe.py")):
        values["train"]["task"] = path
        (run / "recipe.yaml").write_text(yaml.safe_dump(values))
        for command in ("ask run X...O....", "run run", "crossval run --folds 2"):
            assert "no task" in the_line(programs.run(*command.split(), code=2))
    assert not (programs.cwd / "ran").exists()


def test_a_checkpoint_alone_runs_nothing_either(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(programs)
    newest = checkpoint.newest(run / "checkpoints" / "train")
    assert newest is not None
    as_another_user(programs, monkeypatch)
    with pytest.raises(ModelwrightError, match="no recipe of yours has named"):
        load_fitted(newest)


def test_a_changed_file_is_a_named_difference(programs: Programs) -> None:
    trained(programs)
    line = ["train", "tic_tac_toe.yaml", *QUICK, "train.steps=6", "--out", "run"]
    with (programs.cwd / "tic_tac_toe.py").open("a") as file:
        file.write("# changed\n")
    said = the_line(programs.run(*line, code=2))
    assert "train.task: 'tic_tac_toe.py@" in said
    accept = ["data.source", "train.task", "train.steps"]
    flags = [word for key in accept for word in ("--allow-change", key)]
    said = programs.run(*line, *flags)
    assert "going on although train.task has changed" in said or "training anew" in said


def test_an_unfinished_training_goes_on_with_changed_code_only_when_told(
    programs: Programs,
) -> None:
    killed = (
        "import os\nfrom modelwright.pipeline.watch import StageObserver as S\n"
        "after = S.after_step\n"
        "def stop(self, record, *, last):\n"
        "    after(self, record, last=last)\n"
        "    record.step == 3 and os.kill(os.getpid(), 9)\n"
        "S.after_step = stop\n"
    )
    line = ["train", "tic_tac_toe.yaml", *QUICK, "--out", "run"]
    programs.run(*line, code=-9, before=killed)
    with (programs.cwd / "tic_tac_toe.py").open("a") as file:
        file.write("# changed\n")
    assert "train.task" in the_line(programs.run(*line, code=2))
    flags = ["--allow-change", "train.task", "--allow-change", "data.source"]
    assert "going on although train.task has changed" in programs.run(*line, *flags)
    assert len(list((programs.cwd / "run" / "extensions").iterdir())) == 2


def test_python_names_files_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(FOLDER / "tic_tac_toe.py", tmp_path / "game.py")
    monkeypatch.chdir(tmp_path)
    run = api.train(
        {
            "name": "game",
            "data": {"source": "./game.py", "limit": 200, "split": {"by": "group"}},
            "train": {"task": "game.py", "steps": 2, "batch": 4, "threads": 1},
        }
    )
    assert extensions.short(run.recipe.train.task).startswith("game.py@")
    assert api.load(run)("X...O....") in "012345678"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "train.task: ./mine.py: no such file"),
        ("def x(:\n", "mine.py:1: invalid syntax"),
        ("\nimport nothing_of_this_name\n", "mine.py:2: No module named"),
        ("raise KeyError('k')\n", "mine.py:1: 'k' (KeyError)"),
        ("x = 1\n", "defines 0 subclasses of Task"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(
    content: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "mine.py").write_text(content)
    monkeypatch.chdir(tmp_path)
    values = {"name": "x", "data": {"source": "digits"}, "train": {"task": "./mine.py"}}
    with pytest.raises(ModelwrightError) as refused:
        api.train(values)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("section", "key", "needs"),
    [("train", "objective", "Objective"), ("model", "family", "Config"), ("codec", "kind", "Codec"),
     ("data", "source", "rows")],
)  # fmt: skip
def test_a_file_that_lacks_what_its_key_needs_is_refused(
    section: str, key: str, needs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("x = 1\n")
    monkeypatch.chdir(tmp_path)
    values: dict[str, dict[str, str]] = {
        "data": {"source": "digits"},
        "train": {"task": "vector_classification"},
    }
    values.setdefault(section, {})[key] = "./mine.py"
    with pytest.raises(ModelwrightError, match=f"mine.py: defines no {needs}"):
        api.prepare({"name": "x", **values})
