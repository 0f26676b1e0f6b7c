"""Runs beside each other."""

from __future__ import annotations

import json

import pytest

from modelwright.errors import ModelwrightError
from modelwright.reporting.compare import Difference, compare, summaries
from tests.reporting.fake_run import EVALUATION, RESOLVED, build_run, manifest, write_json


@pytest.fixture
def two(tmp_path):
    first, second = build_run(tmp_path / "one"), build_run(tmp_path / "two")
    resolved = json.loads(json.dumps(RESOLVED))
    resolved["recipe"]["train"]["steps"] = 900
    resolved["recipe"]["model"]["gate"] = "swiglu"
    write_json(second / "resolved.json", resolved)
    said = json.loads(json.dumps(EVALUATION))
    said["measures"][0]["rows"][0]["value"] = 1.4
    said["measures"][1]["rows"][0]["value"] = 0.3
    write_json(second / "evaluation.json", said)
    later = manifest() | {"run": "quickstart-2", "created": "2026-11-23T08:00:00+00:00"}
    write_json(second / "manifest.json", later)
    return first, second


def test_runs_are_listed_newest_first(two, tmp_path):
    (tmp_path / "not a run").mkdir()
    (tmp_path / "file").touch()
    newest, oldest = summaries(tmp_path)
    assert (newest.name, oldest.name) == ("two", "one")
    assert newest.path == two[1]
    assert newest.parameters == 5_507_072
    assert newest.seconds == pytest.approx(306.5)
    assert newest.stages == dict.fromkeys(("prepare", "train", "tune", "evaluate"), "done")
    assert (newest.best.stage, newest.best.name) == ("train", "bits_per_byte")
    assert newest.best.value == pytest.approx(1.505, abs=0.01)
    assert newest.best.step == 408


def test_where_there_are_no_runs_the_list_is_empty(tmp_path):
    assert summaries(tmp_path) == []
    assert summaries(tmp_path / "none") == []


def test_a_run_that_has_only_begun_is_listed(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new/recipe.yaml").write_text("budget: 3m\n", encoding="utf-8")
    (summary,) = summaries(tmp_path)
    assert (summary.name, summary.best, summary.parameters) == ("new", None, None)
    assert (summary.stages, summary.seconds, summary.problems) == ({}, 0.0, ())


def test_a_damaged_run_is_listed_with_its_problem(two, tmp_path):
    (two[0] / "manifest.json").write_text("{", encoding="utf-8")
    found = {s.path: s for s in summaries(tmp_path)}
    assert found[two[0]].name == "one"
    assert "manifest.json is damaged" in found[two[0]].problems[0]


def test_comparison_shows_only_what_differs_and_who_wins(two):
    table = compare(two)
    assert [run.name for run in table.runs] == ["one", "two"]
    assert table.differences == (
        Difference("train.steps", ("412", "900")),
        Difference("model.gate", (None, '"swiglu"')),
    )
    bits, similarity = table.measures
    assert (bits.values, bits.best, bits.lower) == ((1.512, 1.4), 1, True)
    assert (similarity.values, similarity.best, similarity.lower) == ((0.412, 0.3), 0, False)


def test_equal_and_missing_measures_have_no_winner(two):
    write_json(two[1] / "evaluation.json", EVALUATION)
    assert [m.best for m in compare(two).measures] == [None, None]
    (two[1] / "evaluation.json").unlink()
    assert [m.values for m in compare(two).measures] == [(1.512, None), (0.412, None)]
    assert [m.best for m in compare(two).measures] == [None, None]


def test_comparing_needs_two_that_exist(two, tmp_path):
    with pytest.raises(ModelwrightError, match="two runs or more"):
        compare(two[:1])
    with pytest.raises(ModelwrightError, match="no such run directory"):
        compare([two[0], tmp_path / "none"])
