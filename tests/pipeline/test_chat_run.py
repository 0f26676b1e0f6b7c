"""Instruction tuning end to end, on real chats: shown, learned, packed, stretched, asked."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright import api
from modelwright.cli import main
from modelwright.data.shards import open_shard
from modelwright.errors import ModelwrightError
from modelwright.pipeline import graded
from modelwright.pipeline.fitted import load_fitted, newest_checkpoint
from modelwright.pipeline.one_line import recipe_of
from modelwright.pipeline.shown import pieces
from modelwright.types import ragged_column, text_turn

MODEL = {"family": "decoder", "depth": 1, "width": 32, "heads": 2, "kv_heads": 1}
STEPS = {"steps": 3, "batch": 2, "compile": False, "threads": 1}
SPLIT = {"by": "row", "validation": 0.1, "test": 0.2}


def calls(data: Callable[[str], Path], count: int) -> list[dict[str, Any]]:
    """The shortest chats with tools of the demonstration set."""
    path = data("instruct_demo") / "glaive_toolcall_en_demo.json.gz"
    rows = json.loads(gzip.decompress(path.read_bytes()))
    return sorted(rows, key=lambda row: len(json.dumps(row)))[:count]


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def recipe(source: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": "a",
        "data": {"source": source, "split": SPLIT},
        "codec": {"vocabulary": 400},
        "model": {**MODEL, "context": 1024},
        "train": {"task": "chat", **STEPS},
        "evaluate": {"questions": 2, "answer_tokens": 4},
        **changes,
    }


def test_what_the_assistant_says_is_learned_with_its_end_and_shown(
    data: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = written(tmp_path / "chats.jsonl", calls(data, 30))
    run = api.run(recipe(source), out=tmp_path / "run")
    fitted = load_fitted(newest_checkpoint(run))
    codec: Any = fitted.codec
    columns = open_shard(run.path / "data" / "train" / "train")
    tokens, learn = ragged_column(columns, "tokens"), ragged_column(columns, "learn")
    for i in range(len(tokens)):
        learned = [p for p in pieces(codec, tokens[i], learn[i]) if p.learned]
        turns = [t for t in codec.example({k: c[i] for k, c in columns.items()}).turns if t.learn]
        assert [p.text for p in learned if not p.special] == [t.text for t in turns]
        assert [p.text for p in learned if p.special] == ["<|end|>"] * len(turns)
        assert tokens[i][np.flatnonzero(learn[i])[-1]] == codec.end
    page = (run.path / "data" / "train" / "learned.html").read_text()
    assert "<mark><b>&lt;|end|&gt;</b></mark>" in page
    said = capsys.readouterr().err
    assert "conversations as ShareGPT has them: conversations, tools (guessed)" in said
    assert "tokens of train are learned" in said
    assert "[+" in said
    measures = {m["name"]: m for m in run.read_json("evaluation.json")["measures"]}
    assert measures["test response loss"]["rows"][0]["value"] > 0
    assert measures["test response bits per byte"]["unit"] == "bits/byte"
    answer = api.load(run)([text_turn("user", "Hi"), text_turn("assistant", "Hello", learn=True)])
    assert isinstance(answer, str)


def test_questions_that_the_context_cannot_hold_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def asked(part: str, times: int, count: int) -> list[dict[str, Any]]:
        texts = [f"What is {part} {i}? " * times for i in range(count)]
        return [{"prompt": text, "response": str(i), "split": part} for i, text in enumerate(texts)]

    rows = [*asked("train", 1, 20), *asked("validation", 1, 4), *asked("test", 1, 6)]
    given = recipe(written(tmp_path / "a.jsonl", [*rows, *asked("test", 60, 3)]))
    given["data"]["split"] = {"by": "given"}
    given["model"]["context"] = 64
    given["evaluate"] = {"questions": 40, "answer_tokens": 4}
    run = api.run(given, out=tmp_path / "run")
    said = capsys.readouterr().err
    assert "3 of 9 questions are longer than the context of 64 tokens, and count as empty" in said
    file = written(tmp_path / "fresh.jsonl", [*asked("fresh", 1, 3), *asked("fresh", 60, 2)])
    result = api.evaluate(run, on=file)
    said = capsys.readouterr().err
    assert "2 of 5 questions are longer than the context of 64 tokens, and count as empty" in said
    assert result["measures"][0]["note"].startswith("5 held-out examples")
    lines = graded.read(run, "on-fresh")
    assert [line["answer"] for line in lines][3:] == ["", ""]
    assert [line["grade"] for line in lines][3:] == [0.0, 0.0]


def test_mixtures_are_weighted_and_rows_packed(data: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "chats"
    folder.mkdir()
    rows = calls(data, 24)
    written(folder / "one.jsonl", rows[:12])
    (folder / "two.json").write_text(json.dumps(rows[12:]))
    given = recipe(str(folder))
    given["data"] |= {"weights": {"two*": 2.5}}
    given["train"] |= {"pack": 1024, "batch": 3}
    run = api.train(given, out=tmp_path / "run")
    columns = open_shard(run.path / "data" / "train" / "train")
    assert set(np.asarray(columns["times"])) == {1.0, 2.5}
    assert "times" not in open_shard(run.path / "data" / "train" / "validation")
    lines = (run.path / "metrics" / "train.jsonl").read_text().splitlines()
    steps = [record for record in map(json.loads, lines) if "loss" in record]
    assert len(steps) == 3
    given["data"]["weights"] = {"three*": 2.0}
    with pytest.raises(ModelwrightError, match=r"data\.weights: no row's id is like 'three\*'"):
        api.prepare(given, out=tmp_path / "other")
    given["data"]["weights"] = {"*": 0.0}
    with pytest.raises(ModelwrightError, match=r"data\.weights: all rows have the weight 0"):
        api.prepare(given, out=tmp_path / "other")
    given["data"]["weights"] = {}
    given["train"]["pack"] = 64
    with pytest.raises(
        ModelwrightError, match=r"pack: a document of .* raise it to model\.context"
    ):
        api.train(given, out=tmp_path / "small")


def test_bad_conversations_are_refused_with_file_and_line_or_dropped(tmp_path: Path) -> None:
    good = [{"prompt": f"What is {i} and {i}?", "response": str(2 * i)} for i in range(20)]
    bad = {"messages": [{"role": "assistant", "content": "x"}]}
    source = written(tmp_path / "chats.jsonl", [*good[:4], bad, *good[4:]])
    with pytest.raises(
        ModelwrightError, match=r"row chats\.jsonl:5: message 1: is of the assistant"
    ):
        api.prepare(recipe(source), out=tmp_path / "run")
    dropping = recipe(source, train={"task": "chat", "options": {"bad": "drop"}, **STEPS})
    run = api.prepare(dropping, out=tmp_path / "other")
    (step,) = [s for s in run.read_json("data/waterfall.json") if s["step"] == "train: chat"]
    assert step["dropped"] == {
        "is of the assistant after the beginning, where system or user is meant": 1
    }
    silent = [
        {
            "messages": [
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": "y", "weight": 0},
            ]
        }
    ]
    with pytest.raises(ModelwrightError, match=r"nothing of it is to be learned"):
        api.prepare(recipe(written(tmp_path / "silent.jsonl", silent * 20)), out=tmp_path / "third")


def test_one_line_says_what_it_reads(tmp_path: Path) -> None:
    rows = [
        {"instruction": f"Say {i}", "input": "", "output": str(i), "note": "x"} for i in range(9)
    ]
    said: list[str] = []
    found = recipe_of(written(tmp_path / "a.jsonl", rows), ["task=chat"], said.append)
    assert found.first.task == "chat"
    assert said[0].endswith(
        "conversations as Alpaca has them: instruction, output, input (guessed); not read: note"
    )
    pairs = [{"query": f"where is {i}?", "passage": f"{i} is there"} for i in range(9)]
    found = recipe_of(
        written(tmp_path / "b.jsonl", pairs), ["task=text-embedding", "first=query"], said.append
    )
    assert found.first.task == "text_embedding"
    assert "reading first from column 'query' and second from column 'passage' (guessed)" in said[1]


@pytest.mark.parametrize("kind", ["linear", "ntk", "yarn"])
def test_tuning_reads_longer_texts_than_training(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {
            "id": str(i),
            "text": f"{i} is a number. " * 9,
            "prompt": f"What is {i}? " * 12,
            "response": "one",
        }
        for i in range(24)
    ]
    given = recipe(written(tmp_path / "a.jsonl", rows))
    given["model"]["context"] = 32
    given["train"] = {"task": "documents", **STEPS}
    given["tune"] = {"task": "chat", "context": 192, "rope": kind, **STEPS}
    run = api.run(given, out=tmp_path / "run")
    config = load_fitted(newest_checkpoint(run)).config.to_dict()
    assert config["context"] == 192
    assert config["rope_scaling"] == ("none" if kind == "ntk" else kind)
    assert "are longer than model.context" not in capsys.readouterr().err
    given["train"]["context"] = 64
    with pytest.raises(ModelwrightError, match=r"train\.context: random weights have no context"):
        api.train(given, out=tmp_path / "other")


def test_a_teachers_answers_are_conversations_to_learn_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was given stays, in whichever format; of the new file its answers alone are learned."""
    rows: list[dict[str, Any]] = [
        {
            "system": "Be brief.",
            "conversations": [
                {"from": "human", "value": f"Say {i}."},
                {"from": "gpt", "value": f"{i}"},
                {"from": "human", "value": "And the word?"},
                {"from": "gpt", "value": f"the word {i % 7}"},
            ],
            "source": "made",
        }
        for i in range(40)
    ]
    given = recipe(written(tmp_path / "a.jsonl", rows))
    given["train"] |= {"steps": 60, "batch": 8, "learning_rate": 0.02}
    run = api.train(given, out=tmp_path / "run")
    out = tmp_path / "answers.jsonl"
    assert main(["answers", str(run.path), str(out), "--max-tokens", "24"]) == 0
    assert "learn from it with data.split.by=given" in capsys.readouterr().out
    told = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    taught = [row for row in told if row["split"] == "train"]
    model = api.load(run)
    for row in taught[:3]:
        *asked, answer = row["messages"]
        turns = [text_turn(m["role"], m["content"]) for m in asked]
        assert [m["role"] for m in asked] == ["system", "user", "assistant", "user"]
        assert answer == {"role": "assistant", "content": model(turns, max_tokens=24)}
        assert row["source"] == "made"
    assert all("conversations" in row for row in told if row["split"] != "train")
    student = recipe(str(out), model={**MODEL, "width": 16, "context": 1024})
    student["data"]["split"] = {"by": "given"}
    made = api.train(student, out=tmp_path / "student")
    columns = open_shard(made.path / "data" / "train" / "train")
    learn, codec = ragged_column(columns, "learn"), load_fitted(newest_checkpoint(made)).codec
    first = codec.example({k: c[0] for k, c in columns.items()})
    assert [t.text for t in first.turns if t.learn] == [taught[0]["messages"][-1]["content"]]
    assert len(learn) == len(taught)


def test_a_chat_student_learns_a_teachers_probabilities(tmp_path: Path) -> None:
    rows = [{"prompt": f"What is {i}?", "response": str(i)} for i in range(30)]
    source = written(tmp_path / "a.jsonl", rows)
    teacher = api.train(recipe(source), out=tmp_path / "teacher")
    small = recipe(source, model={**MODEL, "width": 16, "context": 1024})
    small["train"] |= {"objective_options": {"teacher": str(teacher.path), "teacher_weight": 1}}
    student = api.train(small, out=tmp_path / "student")
    assert student.manifest["teachers"]["train"]["checkpoint"]
