"""Stage prepare on real text: waterfall, splits, codec and shards belong together."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright import recipe
from modelwright.data.codecs import save_codec
from modelwright.data.shards import open_shard
from modelwright.errors import ModelwrightError
from modelwright.pipeline.prepare import longest, prepare, prepared_codec
from modelwright.runs import Run
from modelwright.types import rows_in
from tests.programs import RECIPE, rows, write_corpus

PARTS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("prepare"))


def prepared(folder: Path, name: str, *overrides: str) -> tuple[Run, list[str]]:
    (folder / "tiny.yaml").write_text(RECIPE)
    source = f"data.source={folder / 'corpus.jsonl'}"
    made = recipe.read(str(folder / "tiny.yaml"), [source, *overrides])
    run = Run.create(made, folder, folder / name)
    said: list[str] = []
    prepare(run, said.append)
    return run, said


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return prepared(folder, "run", "data.clean=true", "data.deduplicate=0.7")[0]


def examples(run: Run, stage: str, part: str) -> list[Any]:
    columns = open_shard(run.path / "data" / stage / part)
    codec: Any = prepared_codec(run)
    return [
        codec.example({k: np.asarray(c[i]) for k, c in columns.items()})
        for i in range(rows_in(columns))
    ]


def test_no_row_is_lost_on_the_way(run: Run) -> None:
    steps = json.loads((run.path / "data" / "waterfall.json").read_text())
    assert [s["step"] for s in steps] == [
        "collect", "clean", "deduplicate", "split", "train: documents", "tune: docstrings",
    ]  # fmt: skip
    assert steps[0]["rows_in"] == len(rows())
    for step in steps:
        assert step["rows_in"] == step["rows_out"] + sum(step["dropped"].values())
    for before, after in pairwise(steps[:4]):
        assert after["rows_in"] == before["rows_out"]
    assert {s["rows_in"] for s in steps[4:]} == {steps[3]["rows_out"]}


def test_other_rows_are_for_training_alone(folder: Path) -> None:
    alone, _ = prepared(folder, "alone")
    fresh = [
        {"id": f"new{i}", "kind": "source", "text": f"def new_{i}():\n    return {i}\n"}
        for i in range(3)
    ]
    other = folder / "other.jsonl"
    other.write_text("\n".join(json.dumps(row) for row in [*rows(), *fresh]))
    run, said = prepared(folder, "also", f"data.also={{source: {other}, limit: {len(rows()) + 2}}}")
    texts = {
        (r.path.name, part): Counter(e.turns[0].text for e in examples(r, "train", part))
        for r in (alone, run)
        for part in PARTS
    }
    measured: set[str] = set()
    for part in ("validation", "test"):
        assert texts["alone", part] == texts["also", part]
        measured |= set(texts["alone", part])
    more = texts["also", "train"] - texts["alone", "train"]
    assert texts["alone", "train"] <= texts["also", "train"]
    assert more[fresh[0]["text"]] == more[fresh[1]["text"]] == 1
    assert fresh[2]["text"] not in more  # beyond the limit
    assert measured and measured.isdisjoint(more)
    steps = {step["step"]: step for step in run.read_json("data/waterfall.json") or ()}
    assert steps["also"]["dropped"]["stands in validation or test"] >= len(measured)
    out = steps["split"]["rows_out"] + steps["also"]["rows_out"]
    assert steps["train: documents"]["rows_in"] == out
    assert any("prepare: also" in line for line in said)
    assert f"also {other.name}" in run.stage("prepare")["inputs"]
    with pytest.raises(ModelwrightError, match=r"nothing\.jsonl"):
        prepared(folder, "none", f"data.also={{source: {folder / 'nothing.jsonl'}}}")


def test_every_document_is_in_one_shard_as_it_was(run: Run) -> None:
    texts = {part: [e.turns[0].text for e in examples(run, "train", part)] for part in PARTS}
    assert all(texts.values())
    together = [text for part in PARTS for text in texts[part]]
    assert len(set(together)) == len(together)
    # Cleaning takes white space from the ends of lines and of the text, and nothing else.
    lines = {tuple(map(str.rstrip, row["text"].rstrip().split("\n"))) for row in rows()}
    assert {tuple(text.rstrip().split("\n")) for text in together} <= lines
    outputs = run.stage("prepare")["outputs"]
    assert outputs == {
        f"{task}/{part}": len(examples(run, stage, part))
        for stage, task in (("train", "documents"), ("tune", "docstrings"))
        for part in PARTS
    }


def test_the_same_rows_are_held_out_from_both_stages(run: Run) -> None:
    """What tune is tested on, train has not read either."""
    names = {
        part: {e.turns[0].text.split("`")[1].partition("(")[0] for e in examples(run, "tune", part)}
        for part in PARTS
    }
    seen = " ".join(e.turns[0].text for e in examples(run, "train", "train"))
    held_out = {name.rpartition(".")[2] for name in names["test"] - names["train"]}
    assert held_out
    assert any(f"def {name}(" not in seen for name in held_out)
    for stage in ("split.json", "split-tune.json"):
        audit = json.loads((run.path / "data" / stage).read_text())
        assert audit["leakage"]["holds"]
        assert set(audit["splits"]) == set(PARTS)


def test_the_codec_knows_the_train_split_only(folder: Path) -> None:
    """Other words in validation and test leave it as it is."""
    other = folder / "other"
    other.mkdir()
    write_corpus(other)
    plain, _ = prepared(other, "plain")
    train = [e.turns[0].text for e in examples(plain, "train", "train")]
    held = {row["text"] for row in rows()} - set(train)
    assert held
    lines = []
    for row in rows():
        text = row["text"].replace("e", "q") if row["text"] in held else row["text"]
        lines.append(json.dumps(row | {"text": text}) + "\n")
    (other / "corpus.jsonl").write_text("".join(lines))
    changed, _ = prepared(other, "changed")
    assert [e.turns[0].text for e in examples(changed, "train", "train")] == train
    assert save_codec(prepared_codec(changed)) == save_codec(prepared_codec(plain))


def test_it_is_skipped_until_something_changes(folder: Path) -> None:
    again, said = prepared(folder, "twice")
    assert "nothing changed, kept" not in said[-1]
    content = again.stage("prepare")["content"]
    assert set(content) == {"codec"} | {f"{s}/{p}" for s in ("train", "tune") for p in PARTS}
    again, said = prepared(folder, "twice")
    assert said[-1] == "prepare: nothing changed, kept"
    (again.path / "data" / "tune" / "test").rename(again.path / "data" / "gone")
    _, said = prepared(folder, "twice")
    assert "nothing changed, kept" not in said[-1]
    assert Run.open(again.path).stage("prepare")["content"] == content


def test_a_seed_divides_otherwise_and_the_same_seed_alike(folder: Path) -> None:
    one, _ = prepared(folder, "seed-a", "seed=7")
    same, _ = prepared(folder, "seed-b", "seed=7")
    other, _ = prepared(folder, "seed-c", "seed=8")
    assert one.stage("prepare")["content"] == same.stage("prepare")["content"]
    assert one.stage("prepare")["content"] != other.stage("prepare")["content"]


def test_a_split_of_nothing_leaves_no_shard(folder: Path) -> None:
    some, _ = prepared(folder, "all-train", "data.split={validation: 0, test: 0.1}")
    assert not (some.path / "data" / "train" / "validation").exists()
    assert (some.path / "data" / "train" / "test").exists()


def test_limits_and_renamed_columns(folder: Path) -> None:
    some, said = prepared(folder, "limited", "data.limit=60", "data.columns.text=docstring",
                          "tune=null")  # fmt: skip
    assert "prepare: collected 60 rows" in said[1]
    texts = {e.turns[0].text for part in PARTS for e in examples(some, "train", part)}
    assert texts <= {row["docstring"] for row in rows()}


def test_a_task_that_takes_nothing_says_why(folder: Path) -> None:
    lines = [json.dumps(row | {"kind": "source"}) for row in rows()]
    (folder / "kinds.jsonl").write_text("\n".join(lines))
    with pytest.raises(ModelwrightError) as caught:
        prepared(folder, "none", f"data.source={folder / 'kinds.jsonl'}")
    assert "tune: no row of the train split gives an example for task docstrings" in str(
        caught.value
    )
    assert "not of kind object" in str(caught.value)


def test_lengths_of_what_varies(run: Run) -> None:
    columns = open_shard(run.path / "data" / "tune" / "train")
    found = longest(columns, ("tokens", "learn"))
    assert len(found) == rows_in(columns)
    assert longest(columns, ()) is None
