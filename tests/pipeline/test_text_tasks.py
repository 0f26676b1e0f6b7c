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


def test_a_file_is_sliced_by_its_own_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By those of the recipe that it has, and by those that ``--by`` names."""
    file = reviews(tmp_path / "reviews.jsonl")
    given = ["task=sentiment", "train.steps=1", *TINY]
    run = api.run(str(file), *given, out=tmp_path / "run")
    rows = [
        {"review": GOOD.format(i), "mood": ("good", "bad")[i % 2], "shop": ("A", "B", "C")[i % 3]}
        for i in range(12)
    ]
    fresh = written(tmp_path / "fresh.jsonl", rows)
    assert main(["evaluate", str(run.path), "--on", str(fresh), "--by", "shop"]) == 0
    said = capsys.readouterr().out
    assert "accuracy by shop:" in said
    assert all(f"  {shop}: " in said for shop in "ABC")
    assert main(["evaluate", str(run.path), "--on", str(fresh), "--by", "shp"]) == 2
    assert "fresh.jsonl: --by: row fresh.jsonl:1 has no column 'shp' (did you mean 'shop'?)" in (
        capsys.readouterr().err
    )
    assert main(["evaluate", str(run.path), "--by", "shop"]) == 2
    assert "--by: is for a file given with --on" in capsys.readouterr().err


def test_two_texts_stand_beside_what_they_have_in_common(tmp_path: Path) -> None:
    """A paraphrase shares its words: who compares them must be beaten, not who counts them."""
    rows = [
        {
            "sentence1": f"the cat {i} sat",
            "sentence2": f"the cat {i if i % 2 else i + 100} sat",
            "label": ("other", "same")[i % 2],
        }
        for i in range(80)
    ]
    file = written(tmp_path / "pairs.jsonl", rows)
    given = ["task=text_classification", "train.steps=1", "data.split.test=0.2", *TINY]
    run = api.run(str(file), *given, out=tmp_path / "run")
    (accuracy, *_) = run.read_json("evaluation.json")["measures"]
    who = {row["who"]: row["value"] for row in accuracy["rows"]}
    assert set(who) == {"ours", "majority class", "linear, bag of words", "linear, words in common"}
    assert who["linear, words in common"] == 1 > who["linear, bag of words"]


def test_a_class_that_train_lacks_is_named_with_its_row(tmp_path: Path) -> None:
    rows = [
        {"text": GOOD.format(i), "label": "ab"[i % 2] if i < 30 else "c", "split": part}
        for i, part in enumerate(["train"] * 26 + ["validation"] * 4 + ["test"] * 2)
    ]
    file = written(tmp_path / "a.jsonl", rows)
    given = ["task=text_classification", "data.split.by=given", *TINY]
    with pytest.raises(ModelwrightError, match=r"^test: row a\.jsonl:31: label 'c' is not in the"):
        api.prepare(str(file), *given, out=tmp_path / "run")
