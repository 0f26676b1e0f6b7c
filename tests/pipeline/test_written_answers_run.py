"""Questions answered in free words: prepared, trained, measured, asked, served; from a T5 too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelwright import api
from modelwright.cli import main
from modelwright.data.codecs.questions import Codec
from modelwright.pipeline.answering import answerer_of
from modelwright.runs import Run
from modelwright.types import Example
from tests.hub import small
from tests.serving.parts import running

GERMAN = ["eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht"]
ENGLISH = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
STAGE = {"steps": 3, "batch": 8, "threads": 1, "precision": "float32"}
TASK = "generative_question_answering"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 questions with two right answers each, a long passage, and two rows that are none."""
    rows: list[dict[str, Any]] = [
        {
            "context": f"{a} ist {x}.",
            "question": f"{a} und {b}?",
            "answers": [f"{x} and {y}", f"{y} and {x}"],
        }
        for a, x in zip(GERMAN, ENGLISH, strict=True)
        for b, y in zip(GERMAN, ENGLISH, strict=True)
    ]
    rows.append({"context": "eins ist one. " * 60, "question": "eins?", "answers": "one"})
    rows += [{"context": "x", "question": "eins?", "answers": None}]
    rows += [{"context": "x", "question": "", "answers": "one"}]
    path = tmp_path_factory.mktemp("questions") / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe(file: Path, **parts: Any) -> dict[str, Any]:
    return {
        "name": "questions",
        "data": {"source": str(file), "split": {"by": "row", "validation": 0.1, "test": 0.2}},
        "codec": {"vocabulary": 300, "longest": 64},
        "model": {"family": "bart", "depth": 1, "width": 32, "heads": 2, "dropout": 0.0,
                  "norm_first": True, "output_bias": False},
        "train": {"task": TASK, "learning_rate": 0.01, "schedule": "linear",
                  **STAGE, "steps": 80, "batch": 16},
        "evaluate": {"answer_tokens": 20},
        **parts,
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(file: Path) -> Run:
    return api.train(recipe(file), out=file.parent / "run")


def test_it_learns_and_is_measured_against_all_right_answers(run: Run) -> None:
    found = api.evaluate(run)
    by_name = {m["name"]: m for m in found["measures"]}
    assert {"test answer F1", "test exact match", "answer F1 of answers"} == set(by_name)
    who = {row["who"]: row["value"] for row in by_name["test answer F1"]["rows"]}
    assert set(who) == {"ours", "nearest training answer", "most common answer"}
    assert who["ours"] > who["most common answer"]
    assert "95 % interval" in by_name["test answer F1"]["note"]
    lines = (run.path / "graded" / "train.jsonl").read_text().splitlines()
    assert {json.loads(line)["measure"] for line in lines} == {"answer F1"}
    assert set(found["examples"][0]["baselines"]) == set(who) - {"ours"}
    facts = run.read_json("data/prepared.json")["tasks"][TASK]
    assert sum(part.get("truncated", 0) for part in facts["splits"].values()) == 1
    dropped = [step["dropped"] for step in run.read_json("data/waterfall.json")]
    assert {reason for step in dropped for reason in step} == {"no answer", "no question"}


def test_it_is_asked_and_served_as_the_extractive_task_is(
    run: Run, capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    model = api.load(run)
    asked = "drei ist three.\ndrei und acht?"
    answer = model(asked, max_tokens=20)
    assert " and " in answer
    assert main(["ask", str(run.path), asked, "--max-tokens", "20"]) == 0
    assert capsys.readouterr().out == f"{answer}\n"
    assert isinstance(model("drei und acht?", max_tokens=20), str)
    message = {"model": "tiny", "max_tokens": 20, "messages": [{"role": "user", "content": asked}]}
    engine = answerer_of(model.fitted).server()
    with running(engine) as served, httpx.Client(base_url=served.url, timeout=30) as http:
        body = http.post("/v1/chat/completions", json=message).json()
    assert body["choices"][0]["message"]["content"] == answer
    capsys.readouterr()
    assert main(["evaluate", str(run.path), "--on", str(file)]) == 0
    assert capsys.readouterr().out.startswith("answer F1 (higher is better):")


def test_it_begins_with_a_published_t5_and_goes_back(file: Path, tmp_path: Path) -> None:
    small.t5(tmp_path / "t5", "question: context:" + file.read_text(encoding="utf-8"))
    made = recipe(file, model=str(tmp_path / "t5"), codec={"longest": 64})
    made["train"] = {"task": TASK, **STAGE}
    model = api.load(api.train(made, out=tmp_path / "run"))
    codec = model.fitted.codec
    assert isinstance(codec, Codec)
    given = model.fitted.task.question("eins ist one.\neins und zwei?")
    assert codec.given_text(codec.example(codec.encode(Example(tuple(given)))).turns) == (
        "question: eins und zwei? context: eins ist one."
    )
    assert isinstance(model("eins ist one.\neins?", max_tokens=4), str)
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "hub"), "--to", "hub"]) == 0
