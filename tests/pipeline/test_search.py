"""Search on real digits: pruned, killed, gone on with, shared, and blind to the test part."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelwright import api
from modelwright.errors import ModelwrightError
from modelwright.runs import Run
from tests.programs import Programs, serving, the_line

optuna = pytest.importorskip("optuna")
pytest.importorskip("sklearn")

FAST = ("train.epochs=null", "train.steps=60")
SPACE = {
    "train.learning_rate": {"low": 1e-4, "high": 0.3, "log": True},
    "train.batch": [16, 32],
    "model.hidden": [[32], [16, 16]],
}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    folder = tmp_path_factory.mktemp("search")
    (folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    return serving(folder)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("digits") / "search"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        return folder, api.search("mlp-digits", *FAST, space=SPACE, trials=10, out=folder)


def test_trials_are_runs_and_the_hopeless_end_early(done: tuple[Path, dict[str, Any]]) -> None:
    folder, result = done
    states = [t["state"] for t in result["runs"]]
    assert len(states) == 10
    assert "complete" in states
    assert "pruned" in states
    for trial in result["runs"]:
        run = Run.open(folder / trial["run"])
        assert run.recipe.train.learning_rate == trial["params"]["train.learning_rate"]
        steps = [
            json.loads(line)["step"]
            for line in (run.path / "metrics" / "train.jsonl").read_text().splitlines()
        ]
        reached = max(int(p) for p in trial["intermediate"])
        assert max(steps) == 60 * reached / 100
        assert (trial["state"] == "complete") == (reached == 100)
        if trial["state"] == "complete":
            assert trial["value"] == trial["values"]["loss"]


def test_the_best_is_chosen_by_validation_and_the_test_part_is_not_read(
    done: tuple[Path, dict[str, Any]],
) -> None:
    folder, result = done
    complete = [t for t in result["runs"] if t["state"] == "complete"]
    assert result["best"]["value"] == min(t["value"] for t in complete)
    assert not list(folder.glob("*/evaluation.json"))
    for trial in result["runs"]:
        assert "evaluate" not in Run.open(folder / trial["run"]).manifest["stages"]


def test_the_best_recipe_runs_and_gives_the_same_validation(
    done: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, result = done
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run = api.train(folder / "best.yaml", out=tmp_path / "best")
    assert run.recipe.name == "mlp-digits-best"
    losses = [
        (run.path / "metrics" / "train.jsonl").read_text().splitlines()[-1],
        (folder / result["best"]["run"] / "metrics" / "train.jsonl").read_text().splitlines()[-1],
    ]
    assert json.loads(losses[0])["validation"] == json.loads(losses[1])["validation"]


def test_prepared_data_are_made_once(done: tuple[Path, dict[str, Any]]) -> None:
    folder, result = done
    linked = [
        Run.open(folder / t["run"]).stage("prepare").get("linked_from") for t in result["runs"]
    ]
    assert linked == [None, *["trial-0000"] * 9]


def test_the_page_and_what_mattered(done: tuple[Path, dict[str, Any]]) -> None:
    folder, result = done
    if result["importance"]:
        assert set(result["importance"]) <= set(SPACE)
        assert sum(result["importance"].values()) == pytest.approx(1, abs=0.001)
    page = (folder / "report.html").read_text()
    assert all(re.search(rf">\s*{t['number']}\s*<", page) for t in result["runs"])
    assert "mlp-digits-best" in page
    assert "<script" not in page


def test_the_search_depends_on_the_seed_alone(
    done: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Ten in one go are the same as three, then seven more."""
    folder = tmp_path / "again"
    api.search("mlp-digits", *FAST, space=SPACE, trials=3, out=folder, pruner="none")
    five = api.search(folder, trials=5)
    once = api.search("mlp-digits", *FAST, space=SPACE, trials=5, out=tmp_path / "b", pruner="none")
    pairs = [[(t["params"], t["value"]) for t in r["runs"]] for r in (five, once)]
    assert pairs[0] == pairs[1]


def test_settings_are_kept(done: tuple[Path, dict[str, Any]]) -> None:
    folder = done[0]
    with pytest.raises(ModelwrightError, match="--pruner cannot change them"):
        api.search(folder, pruner="median")
    with pytest.raises(ModelwrightError, match=r"other settings \(metric: 'loss' there"):
        api.search("mlp-digits", *FAST, space=SPACE, out=folder, metric="accuracy")
    with pytest.raises(ModelwrightError, match="--metric los: there is none.*'loss'"):
        api.search("mlp-digits", space=SPACE, metric="los")
    with pytest.raises(ModelwrightError, match="validation is 0"):
        api.search("mlp-digits", "data.split.validation=0", space=SPACE)
    with pytest.raises(ModelwrightError, match="give --space FILE"):
        api.search("mlp-digits")


def test_values_that_cannot_be_trained_are_no_end_of_the_search(tmp_path: Path) -> None:
    space = {"train.learning_rate": [0.05, 1e30]}
    result = api.search(
        "mlp-digits", *FAST, "train.batch=16", space=space, trials=4, sampler="random",
        pruner="none", out=tmp_path / "s",
    )  # fmt: skip
    assert len(result["runs"]) == 4
    wild = [t for t in result["runs"] if t["params"]["train.learning_rate"] == 1e30]
    assert all(t["state"] == "pruned" and t["problem"] for t in wild)
    assert result["best"]["params"] == {"train.learning_rate": 0.05}


def test_accuracy_is_a_metric_that_grows(tmp_path: Path) -> None:
    space = {"train.learning_rate": [0.0001, 0.05]}
    result = api.search(
        "mlp-digits", *FAST, space=space, trials=3, metric="accuracy", out=tmp_path / "s"
    )
    assert result["direction"] == "maximize"
    assert result["best"]["value"] == max(t["value"] for t in result["runs"])
    assert 0 < result["best"]["value"] <= 1


def test_killed_stopped_and_gone_on_with(programs: Programs) -> None:
    """kill -9: the trial is failed and retried once, from its checkpoint; Ctrl-C: code 130."""
    recipe = ("mlp-digits", "train.epochs=null", "train.steps=1500", "train.save_every=50")
    asked = ("--space", "space.yaml", "--trials", "2", "--pruner", "none", "--out", "runs/s")
    program = programs.start("search", *recipe, *asked)
    program.until(lambda: list(programs.cwd.glob("runs/s/trial-0000/checkpoints/train/*/COMPLETE")))
    program.signal(signal.SIGKILL)
    assert program.wait() == -signal.SIGKILL
    program = programs.start("search", *recipe, *asked)
    program.until_said("continuing after step")
    program.signal(signal.SIGINT)
    assert program.wait() == 130
    assert the_line(program.said).endswith("continue with `modelwright search runs/s`")
    assert "trial 0: its process is gone; it is marked failed" in program.said
    programs.run("search", "runs/s")
    runs = json.loads((programs.cwd / "runs/s/search.json").read_text())["runs"]
    assert [t["state"] for t in runs] == ["fail", "fail", "complete", "complete"]
    assert [t["run"] for t in runs] == ["trial-0000"] * 3 + ["trial-0003"]
    assert [t["retry_of"] for t in runs] == [None, 0, 1, None]
    assert runs[0]["params"] == runs[1]["params"] == runs[2]["params"]
    assert len(runs[2]["intermediate"]) >= len(runs[1]["intermediate"])


def test_a_trial_that_kills_its_process_twice_is_left(programs: Programs) -> None:
    recipe = ("mlp-digits", "train.epochs=null", "train.steps=4000", "train.save_every=50")
    asked = ("--space", "space.yaml", "--trials", "1", "--pruner", "none", "--out", "runs/k")
    for _ in range(2):
        program = programs.start("search", *recipe, *asked)
        program.until_said("train: mlp")  # then the retry has a run to go on with
        program.signal(signal.SIGKILL)
        program.wait()
    program = programs.start("search", *recipe, *asked)
    program.until_said("train: mlp")
    program.signal(signal.SIGKILL)
    program.wait()
    study = optuna.load_study(
        study_name=None, storage=f"sqlite:///{programs.cwd / 'runs/k/study.db'}"
    )
    tried = [(t.user_attrs.get("retry_of"), t.user_attrs["run"]) for t in study.trials]
    assert tried == [(None, "trial-0000"), (0, "trial-0000"), (None, "trial-0002")]


def test_two_machines_share_a_study(programs: Programs, tmp_path: Path) -> None:
    """Two folders, one database: together as many trials as were asked for, none twice."""
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    asked = ("--space", "space.yaml", "--trials", "6", "--pruner", "none", "--storage", url)
    both = [
        programs.start("search", "mlp-digits", *FAST, *asked, "--out", f"runs/m{i}") for i in (1, 2)
    ]
    assert [program.wait() for program in both] == [0, 0], [program.said for program in both]
    study = optuna.load_study(study_name=None, storage=url)
    assert sum(t.state.name == "COMPLETE" for t in study.trials) == 6
    runs = [p.parent.name for i in (1, 2) for p in programs.cwd.glob(f"runs/m{i}/*/recipe.yaml")]
    assert len(runs) == len(set(runs)) >= 6


def test_workers_share_the_trials(programs: Programs) -> None:
    asked = ("--space", "space.yaml", "--trials", "5", "--jobs", "2", "--out", "runs/j")
    said = programs.run("search", "mlp-digits", *FAST, *asked)
    assert "2 at once" in said
    result = json.loads((programs.cwd / "runs/j/search.json").read_text())
    assert sum(t["state"] in ("complete", "pruned") for t in result["runs"]) == 5
    assert (programs.cwd / "runs/j/worker-1.log").stat().st_size


def test_databases_that_do_not_answer_are_one_line(programs: Programs) -> None:
    asked = ("--space", "space.yaml", "--out", "runs/d", "--storage")
    said = programs.run("search", "mlp-digits", *asked, "postgresql://me:secret@nowhere/x", code=4)
    assert "secret" not in the_line(said)
    assert "postgresql database" in the_line(said)
    shutil.rmtree(programs.cwd / "runs/d")
