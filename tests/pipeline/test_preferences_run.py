"""Preferences from a file to a report: what the reference gives is kept, or computed again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modelwright import api, checkpoint
from modelwright.errors import ModelwrightError
from modelwright.pipeline import graded, on_file, paired
from modelwright.pipeline.answering import answerer_of
from modelwright.pipeline.fitted import load_fitted, newest_checkpoint
from modelwright.runs import Run
from modelwright.types import text_turn

WORDS = ["sun", "rain", "wind", "snow", "fog", "hail", "storm", "cloud", "frost", "heat"]
STEPS = 6


def pairs(path: Path) -> str:
    """Polite answers are chosen, curt ones rejected."""
    rows = [
        {"prompt": f"Do you like {a} and {b}?", "chosen": f"I do, {a} and {b}.", "rejected": "No"}
        for a in WORDS
        for b in WORDS
        if a < b
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return str(path)


def recipe(source: str, **tune: Any) -> dict[str, Any]:
    stage = {
        "batch": 8,
        "threads": 1,
        "compile": False,
        "precision": "float32",
        "optimizer": "adamw",
        "learning_rate": 0.003,
        "save_every": 2,
        "validate_every": 3,
    }
    return {
        "name": "preferences",
        "seed": 3,
        "data": {"source": source, "split": {"by": "row", "validation": 0.2, "test": 0.2}},
        "codec": {"vocabulary": 300},
        "model": {"family": "decoder", "depth": 1, "width": 32, "heads": 2, "kv_heads": 1,
                  "context": 64},
        "train": {"task": "preferences", "objective": "next_token", "steps": 10, **stage},
        "tune": {"task": "preferences", "steps": STEPS, **stage, **tune},
        "evaluate": {"questions": 4, "answer_tokens": 4},
    }  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return pairs(tmp_path_factory.mktemp("pairs") / "pairs.jsonl")


@pytest.fixture(scope="module")
def run(source: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "dpo"
    api.run(recipe(source), out=out)
    return out


def losses(run: Path) -> list[float]:
    lines = [json.loads(x) for x in (run / "metrics" / "tune.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def states(run: Path) -> dict[str, torch.Tensor]:
    found = checkpoint.load(run / "checkpoints" / "tune" / f"step-{STEPS:08d}").tensors
    return {f"{group}/{n}": t for group, of in found.items() for n, t in of.items()}


def test_it_begins_at_log_2_and_tells_the_answers_apart(run: Path) -> None:
    told = losses(run)
    assert told[0] == pytest.approx(np.log(2), abs=1e-6)
    assert told[-1] < told[0]
    measures = {m["name"]: m for m in json.loads((run / "evaluation.json").read_text())["measures"]}
    accuracy = {r["who"]: r["value"] for r in measures["test preference accuracy"]["rows"]}
    assert set(accuracy) == {"ours", "longer answer", "linear, bag of words"}
    assert accuracy["longer answer"] == 1.0
    assert accuracy["ours"] > 0.9
    assert measures["test margin of rewards"]["rows"][0]["value"] > 0


def test_a_stopped_training_goes_on_exactly_without_the_references(
    run: Path, source: str, tmp_path: Path
) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(run, cut)
    shutil.rmtree(cut / "checkpoints" / "tune" / f"step-{STEPS:08d}")
    (kept,) = (cut / "references" / "tune").glob("train-*.npy")
    before = kept.read_bytes()
    shutil.rmtree(cut / "references")
    api.tune(cut)
    assert kept.read_bytes() == before
    one, other = states(run), states(cut)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert losses(cut) == losses(run)


def test_under_an_adapter_the_reference_is_its_base(source: str, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "lora"
    api.run(recipe(source, adapter={"rank": 4, "alpha": 8}), out=out)
    assert losses(out)[0] == pytest.approx(np.log(2), abs=1e-6)
    assert losses(out)[-1] < losses(out)[0]
    (one,), (other,) = (
        list((place / "references" / "tune").glob("train-*.npy")) for place in (run, out)
    )
    np.testing.assert_array_equal(np.load(one), np.load(other))


@pytest.mark.parametrize("loss", ["ipo", "simpo", "orpo", "kto"])
def test_every_loss_trains(loss: str, source: str, tmp_path: Path) -> None:
    api.tune(recipe(source, objective_options={"loss": loss}), out=tmp_path / loss)
    found = losses(tmp_path / loss)
    assert len(found) == STEPS
    assert np.isfinite(found).all()
    assert found[-1] < found[0]
    kept = list((tmp_path / loss).glob("references/tune/train-*.npy"))
    assert bool(kept) == (loss in ("ipo", "kto"))


def test_a_reward_model_judges(source: str, tmp_path: Path) -> None:
    made = recipe(source, task="reward_model")
    made["train"]["task"] = "reward_model"
    api.run(made, out=tmp_path / "reward")
    model = api.load(tmp_path / "reward")
    asked = "Do you like sun and wind?\n\n"
    polite, curt = (float(model(asked + a)) for a in ("I do, sun and wind.", "No"))
    assert polite > curt
    measured = api.evaluate(tmp_path / "reward", on=source)["measures"]
    assert [m["name"] for m in measured] == ["preference accuracy", "margin of rewards"]
    with pytest.raises(ModelwrightError, match="no answer to be judged"):
        model("Do you like sun?")


def test_random_weights_prefer_nothing(source: str, tmp_path: Path) -> None:
    made = recipe(source)
    del made["tune"]
    made["train"] = {**made["train"], "objective": "preference"}
    with pytest.raises(ModelwrightError, match=r"train\.task: .* begins with random weights"):
        api.train(made, out=tmp_path / "run")


def test_a_file_is_measured_as_the_test_part_is(
    run: Path, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = tmp_path / "fresh.jsonl"
    rows: list[dict[str, Any]] = [
        {"prompt": f"Do you like {a}?", "chosen": f"I do, {a}.", "rejected": "No"} for a in WORDS
    ]
    rows.append({"prompt": "Do you like it? " * 40, "chosen": "I do.", "rejected": "No"})
    fresh.write_text("\n".join(map(json.dumps, rows)) + "\n")
    result = api.evaluate(run, on=fresh)
    said = capsys.readouterr().err
    assert "tune: 1 of 11 rows are longer than the context of 64 tokens and are left out" in said
    assert "preference accuracy: 10 held-out rows; 95 % interval of ours" in said
    accuracy, margin = result["measures"]
    assert (accuracy["name"], margin["name"]) == ("preference accuracy", "margin of rewards")
    assert accuracy["rows"][0]["value"] == 1.0
    other = tmp_path / "other"
    shutil.copytree(run, other)
    # What the test part measures is what its rows measure as a file.
    own = json.loads((run / "evaluation.json").read_text())["measures"]
    test = [x["question"] for x in graded.read(Run.open(run), "tune")]
    again = tmp_path / "again.jsonl"
    lines = Path(source).read_text().splitlines()
    again.write_text("\n".join(x for x in lines if json.loads(x)["prompt"] in test) + "\n")
    value = {m["name"]: m["rows"] for m in api.evaluate(run, on=again)["measures"]}
    (expected,) = (m["rows"] for m in own if m["name"] == "test preference accuracy")
    assert value["preference accuracy"] == expected
    found = paired.compare(Run.open(run), Run.open(other))
    assert [row["stage"] for row in found] == ["train", "tune", "on-fresh"]
    assert found[2]["measure"] == "preference accuracy"
    assert (found[2]["questions"], found[2]["difference"]) == (10, 0.0)


def test_single_answers_are_measured_or_refused_or_left_out(
    source: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"prompt": f"Do you like {a}?", "completion": ("No", f"I do, {a}.")[i % 2], "label": i % 2}
        for i, a in enumerate(WORDS)
    ]
    singles = tmp_path / "singles.jsonl"
    singles.write_text("\n".join(map(json.dumps, rows)) + "\n")
    with pytest.raises(ModelwrightError, match="dpo compares two answers, and a row has one only"):
        api.evaluate(run, on=singles)
    kto = api.tune(recipe(source, objective_options={"loss": "kto"}), out=tmp_path / "kto")
    (accuracy,) = api.evaluate(kto, on=singles)["measures"]
    assert accuracy["note"].startswith("10 held-out rows")
    # A model that has learned the good answers only writes, and is graded by what it writes.
    result = on_file.evaluate_on(Run.open(run), str(singles), api.say, "train")
    assert [measure["name"] for measure in result["measures"]] == ["token F1"]
    said = capsys.readouterr().err
    assert "5 rows of" in said
    assert "left out, since a bad answer alone is nothing to compare with" in said
    singles.write_text("\n".join(json.dumps(row) for row in rows if not row["label"]) + "\n")
    with pytest.raises(ModelwrightError, match="its rows have bad answers only"):
        on_file.evaluate_on(Run.open(run), str(singles), api.say, "train")


def test_what_it_prefers_is_what_it_writes(run: Path) -> None:
    """The model that is served is the one that was compared."""
    fitted = load_fitted(newest_checkpoint(Run.open(run), "tune"))
    asked: Sequence[Any] = (text_turn("user", "Do you like sun and wind?"),)
    (answer,) = answerer_of(fitted).answer([asked], max_tokens=3)
    assert answer.role == "assistant"
