"""Translation from a table to an answer: prepared, trained, measured, asked; also from a T5."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from modelwright import api
from modelwright.cli import main
from modelwright.data.codecs.text_pairs import Codec
from modelwright.errors import ModelwrightError
from modelwright.runs import Run
from tests.hub import small

NUMBERS = ["eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht"]
ENGLISH = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
STAGE = {"steps": 3, "batch": 8, "threads": 1, "precision": "float32"}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 pairs of two numbers each, in a table of two columns, and one that is far too long."""
    rows = [
        f"{a} und {b}\t{x} and {y}"
        for a, x in zip(NUMBERS, ENGLISH, strict=True)
        for b, y in zip(NUMBERS, ENGLISH, strict=True)
    ]
    rows.append("eins " * 60 + "\tone")
    path = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    path.write_text("deutsch\tenglisch\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def recipe(table: Path, **parts: Any) -> dict[str, Any]:
    return {
        "name": "numbers",
        "data": {"source": str(table), "split": {"by": "row", "validation": 0.1, "test": 0.2}},
        "codec": {"vocabulary": 300, "longest": 40},
        "model": {"family": "bart", "depth": 1, "width": 32, "heads": 2, "dropout": 0.0,
                  "norm_first": True, "output_bias": False},
        "train": {"task": "translation", "learning_rate": 0.01, "schedule": "linear",
                  **STAGE, "steps": 60, "batch": 16},
        "evaluate": {"beams": 2, "answer_tokens": 20},
        **parts,
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(table: Path) -> Run:
    return api.train(recipe(table), out=table.parent / "run")


def test_it_learns_and_is_measured_beside_what_is_trivial(run: Run) -> None:
    found = api.evaluate(run)
    by_name = {m["name"]: m for m in found["measures"]}
    assert {"test BLEU", "test chrF", "chrF of answers"} <= set(by_name)
    who = {row["who"]: row["value"] for row in by_name["test chrF"]["rows"]}
    assert set(who) == {"ours", "nearest training answer", "copy of the source"}
    assert who["ours"] > who["copy of the source"]
    assert "tok:13a" in by_name["test BLEU"]["note"]
    shown = found["examples"][0]
    assert set(shown["baselines"]) == {"nearest training answer", "copy of the source"}
    lines = (run.path / "metrics" / "train.jsonl").read_text().splitlines()
    metrics = [json.loads(line) for line in lines]
    assert [m["loss"] for m in metrics if "loss" in m][-1] < metrics[0]["loss"] / 2
    assert (run.path / "samples" / "train.jsonl").exists()


def test_what_was_guessed_and_cut_is_said(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = api.prepare(recipe(table), out=tmp_path / "run")
    said = capsys.readouterr().err
    assert "reading source from column 'deutsch' and target from 'englisch' (guessed)" in said
    assert "1 of them are longer than the codec reads, and were cut" in said
    facts = made.read_json("data/prepared.json")["tasks"]["translation"]["splits"]
    assert sum(part.get("truncated", 0) for part in facts.values()) == 1


def test_it_answers_on_the_command_line(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    model = api.load(run)
    greedy = model("eins und zwei")
    assert main(["ask", str(run.path), "eins und zwei"]) == 0
    assert capsys.readouterr().out == f"{greedy}\n"
    assert main(["ask", str(run.path), "eins und zwei", "--beams", "3"]) == 0
    assert capsys.readouterr().out == f"{model('eins und zwei', beams=3)}\n"
    assert " and " in greedy
    with pytest.raises(ModelwrightError, match="the model's context holds 40; shorten"):
        model("eins " * 60)


def test_transformers_answer_alike_with_what_it_exports(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers = pytest.importorskip("transformers")
    made = recipe(table)
    made["model"] = {k: v for k, v in made["model"].items() if k != "output_bias"}
    ours = api.load(api.train(made, out=tmp_path / "run"))
    hub = tmp_path / "hub"
    assert main(["export", str(tmp_path / "run"), str(hub), "--to", "hub"]) == 0
    assert "0 samples" not in capsys.readouterr().out
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(hub)
    tokenizer = transformers.AutoTokenizer.from_pretrained(hub)
    for question in ("drei und acht", "sieben und eins"):
        asked = [*tokenizer.encode(question, add_special_tokens=False), tokenizer.eos_token_id]
        said = model.generate(torch.tensor([asked]), num_beams=1, max_new_tokens=20)
        assert tokenizer.decode(said[0], skip_special_tokens=True) == ours(question, max_tokens=20)


def test_tuning_goes_on_from_what_was_trained(table: Path, run: Run, tmp_path: Path) -> None:
    tune = {"task": "translation", **STAGE}
    both = recipe(table, tune=tune, train={"task": "translation", **STAGE})
    tuned = api.tune(both, out=tmp_path / "run")
    assert api.load(tuned).fitted.path.parent.name == "tune"
    assert [m["name"] for m in api.evaluate(tuned)["measures"]].count("test BLEU") == 2


def test_it_begins_with_a_published_t5(table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "t5"
    small.t5(folder, table.read_text(encoding="utf-8"))
    made = {
        **recipe(table, model=str(folder), codec={"longest": 64, "prefix": "to English: "}),
        "train": {"task": "translation", **STAGE},
    }
    model = api.load(api.train(made, out=tmp_path / "run"))
    codec = model.fitted.codec
    assert isinstance(codec, Codec)
    assert (codec.opening, codec.special, codec.prefix) == ([0], {1}, "to English: ")
    assert isinstance(model("eins", max_tokens=4), str)
    spoilt = {**made, "codec": {"vocabulary": 300}, "name": "other"}
    with pytest.raises(ModelwrightError, match=r"codec\.vocabulary: the tokenizer comes with"):
        api.train(spoilt, out=tmp_path / "other")


def test_a_published_decoder_is_refused_in_one_line(table: Path, tmp_path: Path) -> None:
    small.gpt2(tmp_path / "gpt2")
    made = recipe(table, model=str(tmp_path / "gpt2"), codec={})
    with pytest.raises(ModelwrightError, match="is no encoder-decoder, which the task needs"):
        api.train({**made, "train": {"task": "translation", **STAGE}}, out=tmp_path / "run")


def test_a_teachers_answers_are_rows_to_learn_from(run: Run, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    assert api.answers(run, str(table), out, rows=10, max_tokens=20) == 10
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    model = api.load(run)
    for row in rows[:3]:  # asked as the recipe's evaluation asks
        assert row["englisch"] == model(row["deutsch"], max_tokens=20, beams=2)
    note = json.loads((tmp_path / "answers.teacher.json").read_text())
    assert len(note["sha256"]) == 64
    assert note["params"] == {"max_tokens": 20, "beams": 2, "length_penalty": 1.0}
    learned = recipe(table, data={"source": str(out), "split": {"by": "row"}})
    learned["train"] = {**learned["train"], "steps": 2}
    api.train(learned, out=tmp_path / "run")
    with pytest.raises(ModelwrightError, match="exists"):
        api.answers(run, str(table), out)


def test_a_student_learns_a_teachers_answers_by_command_and_is_measured_on_the_own(
    run: Run, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the teacher's data train alone is answered; what is held out keeps its references."""
    out = tmp_path / "answers.jsonl"
    told = dict(row.split("\t") for row in table.read_text(encoding="utf-8").splitlines()[1:])
    assert main(["answers", str(run.path), str(out), "--max-tokens", "20"]) == 0
    said = capsys.readouterr()
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    taught = [row for row in rows if row["split"] == "train"]
    held = [row for row in rows if row["split"] != "train"]
    assert f"{out}: {len(taught)} answers; learn from it with data.split.by=given" in said.out
    assert "answers: 1 rows left out: the question does not fit the context" in said.err
    assert {row["split"] for row in held} == {"validation", "test"}
    assert all(row["englisch"] == told[row["deutsch"]] for row in held)
    assert any(row["englisch"] != told[row["deutsch"]] for row in taught)  # its own words
    learned = recipe(table, data={"source": str(out), "split": {"by": "given"}})
    student = api.train({**learned, "train": {"task": "translation", **STAGE}}, out=tmp_path / "a")
    facts = student.read_json("data/prepared.json")["tasks"]["translation"]["splits"]
    own = run.read_json("data/prepared.json")["tasks"]["translation"]["splits"]
    for part in ("validation", "test"):
        assert facts[part]["examples"] == own[part]["examples"]
    assert main(["answers", str(run.path), str(tmp_path / "b.jsonl"), "--max-tokens", "1"]) == 2
    why = "no row of it could be answered (the question does not fit the context, the answer found"
    assert why in capsys.readouterr().err
    assert not (tmp_path / "b.jsonl").exists()


def test_a_student_learns_a_teachers_probabilities(run: Run, table: Path, tmp_path: Path) -> None:
    """A smaller model of another family, by one line of the recipe; another codec is refused."""
    made = recipe(table, model={"family": "t5", "depth": 1, "width": 16, "heads": 2})
    made["train"] = {**made["train"], "steps": 3, "objective_options": {"teacher": str(run.path)}}
    student = api.train(made, out=tmp_path / "run")
    assert student.manifest["teachers"]["train"]["checkpoint"]
    made["codec"] = {"vocabulary": 290, "longest": 40}
    with pytest.raises(ModelwrightError, match="was trained with another codec"):
        api.train(made, out=tmp_path / "other")
