"""From a file to an answer in the task's own terms: trained, evaluated, asked, compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelwright import api
from modelwright.cli import main
from modelwright.errors import ModelwrightError

TINY = ["model={depth: 1, width: 16, heads: 2, dropout: 0.0}", "train.threads=1"]
TINY += ["train.precision=float32", "train.batch=8", "codec.vocabulary=300"]
GOOD = "a warm and funny film, number {}"
BAD = "a dull and empty film, number {}"


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def reviews(path: Path, number: int = 80) -> Path:
    rows = [
        {"review": (GOOD, BAD)[i % 2].format(i), "mood": ("good", "bad")[i % 2]}
        for i in range(number)
    ]
    return written(path, rows)


def test_a_file_in_one_line_and_what_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = reviews(tmp_path / "reviews.jsonl")
    given = ["task=sentiment", "train.steps=60", "train.learning_rate=0.01", *TINY]
    assert main(["run", str(file), *given, "--out", "one"]) == 0
    said = capsys.readouterr()
    assert "text: column 'review'; label: column 'mood' (2 classes: bad, good)" in said.err
    run = api.run(str(file), "train.steps=1", *TINY, task="sentiment", out="other")
    result = json.loads(Path("one/evaluation.json").read_text())
    by = {part["by"] for part in result["slices"]}
    assert {"class", "length"} <= by
    page = Path("one/report.html").read_text()
    assert "F1 by class" in page
    model = api.load("one")
    assert model("a warm film") in ("good", "bad")
    assert model.said("a warm film").endswith("%)")
    capsys.readouterr()
    fresh = reviews(tmp_path / "fresh.jsonl", 12)
    assert main(["evaluate", "one", "--on", str(fresh)]) == 0
    captured = capsys.readouterr()
    told = captured.out
    assert told.startswith("accuracy (higher is better):")
    assert "macro-F1 (higher is better):" in told
    assert "F1 by class:" in told
    assert "accuracy by kind:" in told
    assert "accuracy: 12 held-out examples; 95 % interval of ours" in captured.err
    assert main(["runs", "one", str(run.path)]) == 0
    assert "questions that both answered; difference" in capsys.readouterr().out
    assert main(["evaluate", str(run.path), "--on", str(fresh)]) == 0
    assert main(["runs", "one", str(run.path)]) == 0
    assert "file fresh (--on): accuracy" in capsys.readouterr().out
    unknown = written(tmp_path / "unknown.jsonl", [{"review": "x y", "mood": "angry"}])
    with pytest.raises(ModelwrightError, match=r"example 1: label 'angry' is not in the train spl"):
        api.evaluate("one", on=unknown)


def test_several_labels_are_said_with_their_probabilities(tmp_path: Path) -> None:
    rows = [
        {
            "text": f"{('crash', 'typo')[i % 2]} in {i}",
            "labels": [["bug"], ["bug", "docs"], []][i % 3],
        }
        for i in range(60)
    ]
    file = written(tmp_path / "issues.jsonl", rows)
    given = ["task=multilabel_classification", "train.steps=3", *TINY]
    run = api.run(str(file), *given, out=tmp_path / "run")
    names = [measure["name"] for measure in run.read_json("evaluation.json")["measures"]]
    assert names == ["test F1 of labels", "test macro-F1", "test all labels right"]
    model = api.load(run)
    assert set(model.probabilities("crash in 7")) == {"bug", "docs"}
    said = model.said("crash in 7")
    assert said == "none of the labels" or all(one.endswith("%)") for one in said.split(", "))


def test_spans_are_said_with_their_words(tmp_path: Path) -> None:
    rows = [
        {
            "text": f"play {name} now",
            "spans": [[5, 5 + len(name), "song"]],
            "channel": ("voice", "typed")[i % 2],
        }
        for i, name in enumerate(f"tune {i} of blue" for i in range(60))
    ]
    file = written(tmp_path / "commands.jsonl", rows)
    given = ["task=token_classification", "train.steps=80", "train.learning_rate=0.01", *TINY]
    given += ["evaluate.slices=[channel]", "data.split.test=0.2"]
    run = api.run(str(file), *given, out=tmp_path / "run")
    answer = api.load(run)("play tune 7 of blue now")
    assert answer.startswith("song: tune 7 of blue (")
    result = run.read_json("evaluation.json")
    assert result["measures"][0]["rows"][0]["value"] > 0.9
    (by_channel,) = [part for part in result["slices"] if part["by"] == "channel"]
    assert {row["which"] for row in by_channel["rows"]} == {"voice", "typed"}
    with pytest.raises(ModelwrightError, match=r"slices: row .* has no column 'chanel' \(did you"):
        api.prepare(str(file), *given[:-2], "evaluate.slices=[chanel]", out=tmp_path / "other")
