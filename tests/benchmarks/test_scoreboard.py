from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import run, scoreboard
from benchmarks.run import ONLY
from benchmarks.scoreboard.entries import ENTRIES, Entry, Goal
from modelwright.errors import ModelwrightError
from modelwright.recipe import read


def finished(folder: Path, seconds: float, *measures: dict[str, Any]) -> Path:
    folder.mkdir()
    train = {"seconds": seconds, "resolved": {"threads": 2}}
    stages = {"prepare": {"seconds": 9.0}, "train": train, "evaluate": {"seconds": 9.0}}
    (folder / "manifest.json").write_text(json.dumps({"stages": stages}))
    (folder / "evaluation.json").write_text(json.dumps({"measures": list(measures)}))
    return folder


def measure(name: str, better: str = "higher", note: str = "", **values: float) -> dict[str, Any]:
    rows = [{"who": who.replace("_", " "), "value": value} for who, value in values.items()]
    return {"name": f"test {name}", "better": better, "rows": rows, "note": note}


def rows(folder: Path, entry: Entry, *seeds: tuple[float, dict[str, Any]]) -> list[run.Row]:
    runs = [finished(folder / str(i), *seed) for i, seed in enumerate(seeds)]
    return list(scoreboard.rows_of("mine", entry, runs))


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_is_a_shipped_recipe_with_goals(name: str) -> None:
    entry = ENTRIES[name]
    verb, recipe, *changed = scoreboard.command(entry, 2)
    assert verb == "run"
    assert read(recipe, changed).seed == 2
    assert entry.goals and entry.data


def test_a_bar_is_held_by_the_mean_of_the_seeds_and_minutes_by_the_slowest(tmp_path: Path) -> None:
    entry = Entry("r", "d", (Goal("accuracy", 0.9),), minutes=2, changed=("a.b=1",))
    values = {"majority_class": 0.5, "linear_model": 0.8}
    found = rows(
        tmp_path,
        entry,
        (60.0, measure("accuracy", ours=0.88, **values)),
        (180.0, measure("accuracy", ours=0.94, **values)),
    )
    score, minutes = found
    assert score.holds and score.bar == ">= 0.9" and score.ours == 0.91
    assert score.question.startswith("mine: test accuracy;")
    assert score.details["trivial"] == {"majority class": 0.5}
    assert score.details["classical"] == {"linear model": 0.8}
    assert score.details["command"] == "modelwright run r a.b=1 seed=1"
    assert (minutes.ours, minutes.peer, minutes.holds) == (3.0, 2, False)


@pytest.mark.parametrize(("other", "holds"), [(0.30, True), (0.39, False), (0.45, False)])
def test_a_baseline_has_to_lie_outside_of_the_interval(
    tmp_path: Path, other: float, holds: bool
) -> None:
    note = "70 examples; of ours: 95 % interval 0.386 to 0.417"
    entry = Entry("r", "d", (Goal("ROUGE-1", beside="first", outside=True),))
    (row,) = rows(
        tmp_path, entry, (1.0, measure("ROUGE-1", note=note, ours=0.4, first_sentence=other))
    )
    assert row.holds is holds
    assert "beside first" in row.question


@pytest.mark.parametrize(("ours", "holds"), [(0.2, True), (0.5, False)])
def test_less_is_better_where_the_measure_says_so(tmp_path: Path, ours: float, holds: bool) -> None:
    entry = Entry("r", "d", (Goal("word error rate", 0.4),))
    made = measure("word error rate", "lower", ours=ours, most_common_answer=0.9)
    (row,) = rows(tmp_path, entry, (1.0, made))
    assert row.holds is holds and row.bar == "<= 0.4"


def test_a_measure_that_is_not_there_is_named(tmp_path: Path) -> None:
    entry = Entry("r", "d", (Goal("BLEU"),))
    with pytest.raises(ModelwrightError, match="mine has no measure 'BLEU'; it has test chrF"):
        rows(tmp_path, entry, (1.0, measure("chrF", ours=1.0)))


def test_an_unknown_entry_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ONLY, "mlp-digit")
    with pytest.raises(ModelwrightError, match="did you mean 'mlp-digits'"):
        scoreboard.questions(quick=False)


def test_one_row_is_put_beside_those_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "FOLDER", tmp_path)
    monkeypatch.setenv(ONLY, "one")
    details = {"data": "d", "minutes": 1.0, "threads": 1, "measure": "test accuracy", "ours": [0.5]}
    details |= {"trivial": {}, "classical": {}, "published": "", "command": "modelwright run x"}
    for name, score in (("one", 0.5), ("two", 0.6), ("one", 0.7)):
        row = run.Row(f"{name}: accuracy; seeds: {score}", score, 0.1, 5.0, "> 1", True, details)
        path = run.write("scoreboard", False, [row], None)
    kept = json.loads(path.read_text())["rows"]
    assert [(row["question"].partition(":")[0], row["ours"]) for row in kept] == [
        ("two", 0.6),
        ("one", 0.7),
    ]
    page = path.with_suffix(".md").read_text()
    assert page.count("`modelwright run x`") == 2 and "| accuracy |" in page


def test_of_a_run_that_tunes_the_tuned_model_is_shown(tmp_path: Path) -> None:
    base = measure("solve rate of answers", ours=0.1)
    tuned = measure("solve rate of answers", ours=0.9, base_model=0.1)
    folder = finished(tmp_path / "0", 1.0, base, measure("solve rate of others", ours=0.2), tuned)
    (row,) = scoreboard.rows_of("mine", Entry("r", "d", (Goal("solve rate", 0.8),)), [folder])
    assert row.ours == 0.9 and row.holds
