"""Answers graded one by one: slices, the worst, and two runs compared in pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright import recipe
from modelwright.errors import ModelwrightError
from modelwright.pipeline import graded, paired
from modelwright.runs import Run
from modelwright.tasks.task import make_task
from modelwright.types import (
    Example,
    Frames,
    Image,
    ImageFile,
    Label,
    Part,
    Sound,
    Turn,
    text_turn,
)

TASK = make_task("sentiment", {})


def label(name: str) -> Turn:
    return Turn("assistant", (Label(name),), learn=True)


def run_with(path: Path, wrong: set[int]) -> tuple[Run, dict[str, Any]]:
    """A run whose 40 answers are right but for some; the longer half is meant "good"."""
    made = recipe.parse({"name": "a", "data": {"source": "x.csv"}, "train": {"task": "sentiment"}})
    run = Run.create(made, path.parent, path, frozenset())
    pairs = []
    for i in range(40):
        meant = "good" if i >= 20 else "bad"
        said = {"good": "bad", "bad": "good"}[meant] if i in wrong else meant
        question = text_turn("user", f"{i} " + "word " * i)
        pairs.append((Example((question, label(meant))), label(said)))
    result: dict[str, Any] = {}
    graded.keep(run, "train", TASK, pairs, result)
    return run, result


def test_slices_and_the_worst(tmp_path: Path) -> None:
    run, result = run_with(tmp_path / "a", {3, 30, 31})
    lines = graded.read(run, "train")
    assert [line["grade"] for line in lines].count(0.0) == 3
    by = {part["by"]: part["rows"] for part in result["slices"]}
    assert [row["count"] for row in by["length"]] == [10, 10, 10, 10]
    assert {row["which"]: row["value"] for row in by["kind"]} == {"bad": 0.95, "good": 0.9}
    assert all(row["low"] <= row["value"] <= row["high"] for row in (*by["length"], *by["kind"]))
    assert {one["question"].split()[0] for one in result["worst"]} == {"3", "30", "31"}
    assert any("worst" in line for line in graded.lines(result))
    json.dumps(result)


def test_two_runs_are_compared_on_what_both_were_asked(tmp_path: Path) -> None:
    one, _ = run_with(tmp_path / "a", set(range(0, 40, 2)))
    other, _ = run_with(tmp_path / "b", {0, 2})
    (found,) = paired.compare(one, other)
    assert (found["questions"], found["first"], found["second"]) == (40, 0.5, 0.95)
    assert found["low"] > 0
    assert found["chance"] < 0.01
    assert "b is better" in paired.lines([found], one, other)[0]
    (same,) = paired.compare(one, one)
    assert same["difference"] == 0
    assert "no difference" in paired.lines([same], one, one)[0]


def test_a_file_that_both_were_measured_on_is_compared_as_well(tmp_path: Path) -> None:
    one, _ = run_with(tmp_path / "a", set(range(0, 40, 2)))
    other, _ = run_with(tmp_path / "b", {0, 2})
    for run in (one, other):
        kept = run.path / graded.FOLDER / "train.jsonl"
        kept.with_name("on-fresh.jsonl").write_bytes(kept.read_bytes())
    lonely = one.path / graded.FOLDER / "on-other.jsonl"
    lonely.write_bytes((one.path / graded.FOLDER / "train.jsonl").read_bytes())
    found = paired.compare(one, other)
    assert [row["stage"] for row in found] == ["train", "on-fresh"]
    lines = paired.lines(found, one, other)
    assert lines[0].startswith("train, test part: accuracy 0.5000 and 0.9500")
    assert lines[1].startswith("file fresh (--on): accuracy 0.5000 and 0.9500")
    # Other questions in the test parts: the file alone is compared.
    path = one.path / graded.FOLDER / "train.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(x | {"key": f"x{x['key']}"}) + "\n" for x in rows))
    assert [row["stage"] for row in paired.compare(one, other)] == ["on-fresh"]
    # Lines of older runs do not say what their grades are.
    for run in (one, other):
        file = run.path / graded.FOLDER / "on-fresh.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        keep = [{k: x[k] for k in x if k not in ("measure", "better")} for x in rows]
        file.write_text("".join(json.dumps(x) + "\n" for x in keep))
    (old,) = paired.compare(one, other)
    assert (old["measure"], old["better"]) == ("accuracy", "higher")
    file.write_text("".join(json.dumps(x | {"measure": "F1"}) + "\n" for x in rows))
    path.unlink()
    with pytest.raises(ModelwrightError, match="on-fresh: one is graded by accuracy, the other by"):
        paired.compare(one, other)


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    one, _ = run_with(tmp_path / "a", set())
    path = one.path / graded.FOLDER / "train.jsonl"
    other, _ = run_with(tmp_path / "b", set())
    lines = [
        json.loads(line) | {"key": f"x{i}"} for i, line in enumerate(path.read_text().splitlines())
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ModelwrightError, match="train: no question was asked of both; .* --on"):
        paired.compare(one, other)
    path.unlink()
    with pytest.raises(ModelwrightError, match="no stage has graded answers in both"):
        paired.compare(one, other)
    with pytest.raises(ModelwrightError, match="no graded answers of train; evaluate it first"):
        graded.read(one, "train")


def test_recordings_pictures_and_vectors_are_questions_of_their_own(tmp_path: Path) -> None:
    """They have no text: what tells them apart is what they hold."""
    rng = np.random.default_rng(1)
    wave = rng.uniform(-1, 1, 8000).astype(np.float32)
    dots = rng.integers(0, 255, (4, 6), dtype=np.uint8)
    parts: list[Part] = [
        Sound(wave, 8000),
        Sound(wave[:4000], 8000),
        Image(dots),
        Image(dots.T.copy()),
        ImageFile(b"\x89PNG 1", "a.png"),
        ImageFile(b"\x89PNG 2", "a.png"),
        Frames(np.zeros((3, 2))),
        Frames(np.ones((3, 2))),
    ]
    made = recipe.parse({"name": "a", "data": {"source": "x.csv"}, "train": {"task": "sentiment"}})
    found = []
    for name in "ab":  # keys are those of what is asked, not of the run
        run = Run.create(made, tmp_path, tmp_path / name, frozenset())
        asked = [Turn("user", (part,)) for part in parts]
        pairs = [(Example((turn, label("good"))), label("bad")) for turn in asked]
        result: dict[str, Any] = {}
        graded.keep(run, "train", TASK, pairs, result)
        found.append(graded.read(run, "train"))
    keys = [[line["key"] for line in lines] for lines in found]
    assert keys[0] == keys[1]
    assert len(set(keys[0])) == len(parts)
    assert [line["question"] for line in found[0]] == [
        "a recording of 1.00 s",
        "a recording of 0.50 s",
        "a picture of 6 x 4",
        "a picture of 4 x 6",
        "the picture a.png",
        "the picture a.png",
        "a sequence of 3 vectors",
        "a sequence of 3 vectors",
    ]
    assert [line["question"] for line in result["worst"]] == [x["question"] for x in found[0]]
    (compared,) = paired.compare(*(Run.open(tmp_path / name) for name in "ab"))
    assert compared["questions"] == len(parts)
