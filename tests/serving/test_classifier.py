"""Answers of a classifier of texts, from training to the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelwright import api
from modelwright.cli import main
from modelwright.errors import ModelwrightError
from modelwright.runs import Run

GOOD = ("a warm and funny film", "the best story of the year", "I loved every minute")
BAD = ("a dull and empty film", "the worst story of the year", "I hated every minute")
RECIPE = """\
name: reviews
data: {source: reviews.jsonl, split: {by: row, validation: 0.1, test: 0.1}}
codec: {vocabulary: 300, longest: 12}
model: {depth: 1, width: 32, heads: 2}
train: {task: text_classification, steps: 30, batch: 8, precision: float32, threads: 1,
  learning_rate: 0.01}
ask: the best film
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A finished run on reviews that two words tell apart."""
    folder = tmp_path_factory.mktemp("classifier")
    rows = [
        {"text": f"{text}, number {i}", "label": label}
        for i in range(25)
        for label, texts in (("good", GOOD), ("bad", BAD))
        for text in texts
    ]
    (folder / "reviews.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "reviews.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["run", "reviews.yaml"]) == 0
        yield Run.open(Path("runs/reviews"))


def test_it_has_learned_and_is_measured_beside_its_baselines(run: Run) -> None:
    measure, calibration = run.read_json("evaluation.json")["measures"]
    assert calibration["name"] == "test calibration error"
    rows = {row["who"]: row["value"] for row in measure["rows"]}
    assert rows["ours"] > 0.9
    assert set(rows) == {"ours", "majority class", "linear, bag of words"}
    assert rows["linear, bag of words"] == 1


def test_what_was_cut_is_reported(run: Run) -> None:
    facts = run.read_json("data/prepared.json")["tasks"]["text_classification"]["splits"]
    assert 0 < facts["train"]["truncated"] < facts["train"]["examples"]


def test_the_command_names_the_label_and_its_probability(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ask", str(run.path), "the best film, I loved it"]) == 0
    said = re.fullmatch(r"good \((\d+\.\d)%\)\n", capsys.readouterr().out)
    assert said
    assert 50 < float(said[1]) <= 100


def test_python_gets_the_label_or_every_probability(run: Run) -> None:
    model = api.load(run)
    found = model.probabilities("the worst film, I hated it")
    assert list(found) == ["bad", "good"]
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert sum(found.values()) == pytest.approx(1)
    assert model("the worst film, I hated it") == "bad"
    assert model("") in ("good", "bad")


def test_it_writes_no_text(run: Run) -> None:
    with pytest.raises(ModelwrightError) as raised:
        api.load(run).complete("the best")
    assert "\n" not in str(raised.value)
