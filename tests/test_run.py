"""The run directory: one writer, one recipe, stages skipped or redone as what they need changes."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from modelwright import api, checkpoint, recipe
from modelwright.errors import CorruptError, MachineError, ModelwrightError
from modelwright.recipe import Recipe
from modelwright.runs import LIBRARIES, Run, fingerprint, flatten, source_hash
from tests.programs import outcome, rows, write_corpus


def made(**values: Any) -> Recipe:
    base = {"name": "r", "data": {"source": "x.txt"}, "train": {"task": "documents"}}
    return recipe.parse({**base, **values})


# -- where it lies ------------------------------------------------------------------------------


def begun(run: Run) -> Run:
    """The run with a stage that has finished."""
    with run.working("prepare", "mark"):
        pass
    return run


def test_the_first_free_name_is_taken(tmp_path: Path) -> None:
    one = begun(Run.create(made(), tmp_path))
    other = begun(Run.create(made(seed=2), tmp_path))
    assert (one.path.name, other.path.name) == ("r", "r-2")
    assert Run.create(made(), tmp_path).path == one.path  # the same recipe: the same run
    assert Run.create(made(seed=2), tmp_path).path == other.path
    assert Run.create(made(seed=3), tmp_path).path.name == "r-3"


def test_what_is_no_run_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "thesis.txt").write_text("mine")
    (tmp_path / "r-2").write_text("a file")
    assert Run.create(made(), tmp_path).path.name == "r-3"
    for name in ("r", "r-2"):
        with pytest.raises(ModelwrightError, match="exists and is not a run"):
            Run.create(made(), tmp_path, tmp_path / name)
    assert (tmp_path / "r" / "thesis.txt").read_text() == "mine"


def test_another_recipe_is_refused_with_the_differences(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "down"
    begun(Run.create(made(), tmp_path, out))
    with pytest.raises(ModelwrightError) as caught:
        Run.create(made(seed=2, budget="3m"), tmp_path, out)
    assert "seed: 1 there, 2 here" in str(caught.value)
    assert "budget: None there, '3m' here" in str(caught.value)
    many = made(seed=2, train={"task": "documents", "steps": 1, "batch": 2, "clip": 3.0})
    with pytest.raises(
        ModelwrightError, match="train.steps: .*train.batch: .*train.clip: 1.0 there, 3.0 here"
    ):
        Run.create(many, tmp_path, out)


def test_a_run_of_which_nothing_came_gives_way_to_the_corrected_recipe(tmp_path: Path) -> None:
    run = Run.create(made(data={"source": "wrong.txt"}), tmp_path)
    with pytest.raises(ZeroDivisionError), run.working("prepare", "mark"):
        _ = 1 / 0
    assert Run.create(made(), tmp_path).path == run.path
    assert Run.open(run.path).recipe == made()
    assert Run.open(run.path).manifest["stages"] == {}
    with run.locked():  # but not while someone is at work in it
        assert Run.create(made(seed=9), tmp_path).path.name == "r-2"


def test_a_run_whose_training_never_began_gives_way_too(tmp_path: Path) -> None:
    run = Run.create(made(), tmp_path)
    with run.working("prepare", "mark"):
        pass
    assert Run.create(made(seed=9), tmp_path).path.name == "r-2"  # prepared, to be trained later
    with pytest.raises(ZeroDivisionError), run.working("train", "mark"):
        _ = 1 / 0
    (run.path / "metrics").mkdir()
    assert Run.create(made(seed=8), tmp_path / "x").path.name == "r"
    assert Run.create(made(seed=8), tmp_path).path.name == "r-2"  # as steps were taken in the first
    (run.path / "metrics").rmdir()
    assert Run.create(made(seed=7), tmp_path).path == run.path
    assert Run.open(run.path).manifest["stages"] == {}


def test_what_a_killed_creation_left_is_used(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "manifest.json").write_text("{}")
    (tmp_path / "r" / "recipe.yaml.tmp").write_text("nam")
    run = Run.create(made(), tmp_path)
    assert run.path.name == "r"
    assert Run.open(run.path).recipe == made()


def test_it_keeps_what_was_given_and_who_made_it(tmp_path: Path) -> None:
    run = Run.create(made(seed=5), tmp_path)
    written = yaml.safe_load((run.path / "recipe.yaml").read_text())
    assert written["seed"] == 5
    assert "evaluate" not in written  # defaults are not written down: they may be improved
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert manifest["code"]["source_sha256"] == source_hash()
    assert set(manifest["libraries"]) == set(LIBRARIES)
    assert manifest["created"].endswith("+00:00")
    again = Run.open(run.path)
    assert (again.recipe, again.manifest) == (run.recipe, run.manifest)


def test_opening_what_is_not_there_suggests_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Run.create(made(name="mine"), Path("runs"))
    with pytest.raises(ModelwrightError, match=r"mine: no such run \(did you mean 'runs/mine'\?\)"):
        Run.open(Path("mine"))
    with pytest.raises(ModelwrightError, match="`modelwright run mlp-digits` makes runs/mlp-digit"):
        Run.open(Path("mlp-digits"))
    Run.create(made(name="speech"), tmp_path)
    with pytest.raises(ModelwrightError, match=r"no such run \(did you mean 'speech'\?\)"):
        Run.open(tmp_path / "spech")
    with pytest.raises(ModelwrightError, match=r"it has no recipe\.yaml"):
        Run.open(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"\xff", b'{"a": '])
def test_a_damaged_json_file_is_named(tmp_path: Path, content: bytes) -> None:
    run = Run.create(made(), tmp_path)
    (run.path / "evaluation.json").write_bytes(content)
    with pytest.raises(CorruptError, match=r"evaluation\.json: damaged"):
        run.read_json("evaluation.json")
    assert run.read_json("nothing.json") is None


# -- one writer ---------------------------------------------------------------------------------


def test_a_second_writer_is_refused_with_who_holds_it(tmp_path: Path) -> None:
    run = Run.create(made(), tmp_path)
    with run.locked():
        assert run.busy
        with pytest.raises(MachineError) as caught, Run.open(run.path).locked():
            raise AssertionError("two writers")
        assert f"process {os.getpid()} on {socket.gethostname()} since" in str(caught.value)
    assert not run.busy
    assert (run.path / "lock").read_text() == ""
    with pytest.raises(KeyError), run.locked():
        raise KeyError  # an error frees it
    assert not run.busy


# -- stages -------------------------------------------------------------------------------------


def test_a_stage_remembers_its_inputs_state_and_time(tmp_path: Path) -> None:
    run = Run.create(made(), tmp_path)
    assert not run.is_done("train", "a")
    with run.working("train", "a") as record:
        record["extra"] = 1
        assert Run.open(run.path).stage("train")["status"] == "running"
    again = Run.open(run.path)
    assert again.is_done("train", "a")
    assert not again.is_done("train", "b")
    assert again.stage("train")["extra"] == 1
    assert again.stage("train")["seconds"] >= 0


def test_an_interrupted_stage_adds_up_its_time(tmp_path: Path) -> None:
    run = Run.create(made(), tmp_path)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), run.working("train", "a"):
            run.stage("train")["seconds"] = run.stage("train").get("seconds", 0.0)
            raise KeyboardInterrupt
        assert Run.open(run.path).stage("train")["status"] == "interrupted"
    spent = run.stage("train")["seconds"]
    assert spent > 0
    with run.working("train", "other"):  # of other inputs: counted anew
        pass
    assert run.stage("train")["seconds"] <= spent + 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(json_values, json_values)
def test_fingerprints_are_of_the_values(one: Any, other: Any) -> None:
    copy = json.loads(json.dumps(one))
    assert fingerprint(one) == fingerprint(copy)
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (fingerprint(one) == fingerprint(other)) == same


def test_fingerprints_do_not_depend_on_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint("a", "b") != fingerprint("ab")
    assert source_hash() != source_hash("data")


@given(st.dictionaries(st.text("abc", min_size=1), st.dictionaries(st.text("xyz"), st.integers())))
def test_flattening_keeps_every_leaf(values: dict[str, dict[str, int]]) -> None:
    flat = flatten(values)
    for outer, inner in values.items():
        if not inner:
            assert flat[outer] == {}
        for key, value in inner.items():
            assert flat[f"{outer}.{key}"] == value


# -- skipped and redone -------------------------------------------------------------------------


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(api, "say", lines.append)
    return lines


def kept(said: list[str]) -> set[str]:
    stages = {line.partition(":")[0] for line in said if "nothing changed, kept" in line}
    said.clear()
    return stages


def test_stages_are_redone_when_what_they_need_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    write_corpus(tmp_path)
    monkeypatch.chdir(tmp_path)
    overrides = ("train.steps=3", "tune.steps=2", "evaluate.baselines=false")

    def go() -> set[str]:
        said.clear()
        run = api.run("tiny.yaml", *overrides)
        assert run.path == Path("runs/tiny")
        return kept(said)

    assert go() == set()
    first = outcome(tmp_path / "runs" / "tiny")
    report = (tmp_path / "runs" / "tiny" / "report.html").read_bytes()
    assert go() == {"prepare", "train", "tune", "evaluate"}
    assert len(report) > 10_000

    # The same data under a new date: read again, found to be the same, nothing is trained.
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(corpus.read_text() + "\n")
    assert go() == {"train", "tune", "evaluate"}
    assert outcome(tmp_path / "runs" / "tiny") == first

    # Other data: everything is done again, and the earlier model is kept apart.
    changed = [dict(row, text=row["text"].replace("return", "yield")) for row in rows()]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in changed))
    assert go() == set()
    checkpoints = tmp_path / "runs" / "tiny" / "checkpoints"
    for stage, step in (("train", 3), ("tune", 2)):
        before = checkpoint.newest(checkpoints / f"{stage}-before-1")
        newest = checkpoint.newest(checkpoints / stage)
        assert before is not None
        assert newest is not None
        assert before.name == newest.name == f"step-{step:08d}"
        assert checkpoint.load(before).documents != checkpoint.load(newest).documents
    assert go() == {"prepare", "train", "tune", "evaluate"}


def test_an_earlier_stage_can_be_asked_for_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    write_corpus(tmp_path)
    monkeypatch.chdir(tmp_path)
    run = api.prepare("tiny.yaml", "train.steps=2", "tune.steps=2")
    assert set(run.manifest["stages"]) == {"prepare"}
    run = api.train(run.path)
    assert {n for n, r in run.manifest["stages"].items() if r.get("status")} == {"prepare", "train"}
    assert api.load(run).fitted.step == 2
    api.tune(run)
    assert api.load(run).fitted.task.__class__.__name__ == "Docstrings"
    assert api.load(run, "train").fitted.task.__class__.__name__ == "Documents"
