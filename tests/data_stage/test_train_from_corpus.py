"""A recipe on a corpus with tokens trains from its shards as they lie, with its tokenizer."""

from __future__ import annotations

import calendar
import json
import shlex
import shutil
import string
from pathlib import Path

import numpy as np
import pytest

from modelwright import api
from modelwright.data.codecs.text import Codec
from modelwright.data.corpus import records
from modelwright.data.corpus.build import build
from modelwright.data.corpus.open import row_files
from modelwright.data.corpus.spec import read
from modelwright.data.corpus.tokens import corpus_tokenizer, fit_by_language
from modelwright.data.shards import open_shard
from modelwright.data.token_shards import TokenShards
from modelwright.data.tokenizing.train import train_tokenizer
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.pipeline.corpora import tokens_of
from modelwright.pipeline.prepare import prepared_codec
from modelwright.recipe import parse
from modelwright.runs import Run
from tests.data_stage.corpora import make_sources

MODULES = (calendar, shlex, string)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    description = read(make_sources(folder, MODULES))
    build(description, folder / "made", say=lambda _: None)
    return folder / "made"


def recipe(corpus: Path, **data: object) -> dict[str, object]:
    return {
        "name": "tiny",
        "data": {"source": str(corpus), **data},
        "model": {"width": 16, "depth": 1, "heads": 2, "kv_heads": 2, "context": 16},
        "train": {"task": "documents", "steps": 4, "batch": 4, "validate_every": 2},
        "evaluate": {"baselines": False},
        "watch": {"writers": []},
    }


def rows(corpus: Path, part: str) -> list[dict[str, str]]:
    found = [row for path in row_files(corpus) for row in records.rows(path)]
    return [row for row in found if row["split"] == part]


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_shards_hold_every_row_of_their_part_and_nothing_else(corpus, part):
    codec = Codec.of_file(corpus_tokenizer(corpus))
    shards = TokenShards(corpus, part)
    shards.verify()
    expected = {row["text"]: row["source"] for row in rows(corpus, part)}
    found = {}
    for number, (source, _) in enumerate(shards.places()):
        ids = shards.document(number).tolist()
        assert ids[-1] == codec.end and codec.end not in ids[:-1]
        found[codec.text(ids)] = source
    assert found == expected and len(shards) == len(rows(corpus, part))


def test_the_tokenizer_saw_the_train_rows_alone(corpus):
    """Law 11: trained again on them, it is the same; on other rows as well, it is another."""
    description = json.loads((corpus / "stages/tokenizer/tokenizer.json").read_text())
    assert description["facts"]["vocabulary"] == 400
    texts = [row["text"] for row in rows(corpus, "train")]
    stored = corpus_tokenizer(corpus).read_text()
    assert train_tokenizer(texts, vocabulary=400).to_str() == stored
    other = [row["text"] for row in rows(corpus, "test")]
    assert train_tokenizer(texts + other, vocabulary=400).to_str() != stored


def test_bytes_per_token_by_language(corpus):
    units = sorted((corpus / "stages" / "tokens").glob("*.json"))
    facts = [json.loads(path.read_text())["facts"] for path in units]
    found = fit_by_language(facts)
    size = sum(
        len(r["text"].encode()) for p in ("train", "validation", "test") for r in rows(corpus, p)
    )
    tokens = sum(len(s.tokens) - len(s) for s in (TokenShards(corpus),))
    assert found == {"?": size / tokens}


def test_it_trains_from_the_shards_in_place(corpus, tmp_path):
    run = api.run(recipe(corpus), out=tmp_path / "run")
    assert run.stage("train")["status"] == "done"
    for part in ("train", "validation", "test"):
        place = run.path / "data" / "train" / part
        assert [p.name for p in place.iterdir()] == ["corpus.json"]  # nothing was copied
        columns, shards = open_shard(place), TokenShards(corpus, part)
        assert np.array_equal(columns["tokens"].values[:], shards.tokens[:])
        assert columns["learn"].values[:].all()
        assert np.array_equal(columns["tokens"].offsets, shards.offsets)
    codec = prepared_codec(run)
    assert codec.encoder.fingerprint == TokenShards(corpus).fingerprint
    measures = run.read_json("evaluation.json")["measures"]
    assert {m["name"] for m in measures} >= {"validation bits per byte", "test bits per byte"}
    prepared = run.read_json("data/prepared.json")["tasks"]["documents"]["splits"]
    assert prepared["train"] == {
        "examples": len(TokenShards(corpus, "train")),
        "tokens": len(TokenShards(corpus, "train").tokens),
    }


def test_the_same_batches_come_of_shards_and_of_rows(corpus, tmp_path):
    """The road over rows, with the same tokenizer and split, encodes the very same stream."""
    tokenizer = {"codec": {"tokenizer": str(corpus_tokenizer(corpus))}}
    given = recipe(corpus, split={"by": "given"}) | tokenizer
    one = api.prepare(recipe(corpus), out=tmp_path / "shards")
    two = api.prepare(given, out=tmp_path / "rows")
    for part in ("train", "validation", "test"):
        a, b = (open_shard(run.path / "data" / "train" / part) for run in (one, two))
        assert np.array_equal(a["tokens"].values[:], b["tokens"].values)
        assert np.array_equal(a["learn"].values[:], b["learn"].values)
        assert np.array_equal(a["tokens"].offsets, b["tokens"].offsets)


def test_nothing_is_done_again_until_the_corpus_changes(corpus, tmp_path):
    said: list[str] = []
    run = api.prepare(recipe(corpus), out=tmp_path / "run")
    content = run.stage("prepare")["content"]
    from modelwright.pipeline.prepare import prepare

    prepare(Run.open(run.path), said.append)
    assert said[-1] == "prepare: nothing changed, kept"
    assert Run.open(run.path).stage("prepare")["content"] == content


def test_damaged_or_exchanged_shards_are_found(corpus, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(corpus, copy)
    run = api.prepare(recipe(copy), out=tmp_path / "run")
    path = next((copy / "stages" / "tokens").rglob("train.tok"))
    sound = path.read_bytes()
    path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    with pytest.raises(CorruptError, match=r"train\.tok: its content"):
        api.prepare(recipe(copy), out=tmp_path / "another")
    path.write_bytes(sound[:40] + bytes(8) + sound[48:])  # of the fingerprint
    with pytest.raises(CorruptError, match="another"):
        open_shard(run.path / "data" / "train" / "train")
    (copy / "corpus.json").unlink()
    with pytest.raises(ModelwrightError, match="not finished"):
        api.prepare(recipe(copy), out=tmp_path / "third")


@pytest.mark.parametrize(
    "change",
    [
        {"codec": {"vocabulary": 500}},
        {"data": {"limit": 5}},
        {"data": {"deduplicate": 0.9}},
        {"train": {"task": "text_classification"}},
        {"train": {"task": "documents", "options": {"kinds": ["source"]}}},
    ],
)
def test_a_recipe_that_wants_something_else_reads_rows(corpus, change):
    made = recipe(corpus)
    for key, value in change.items():
        old = made.get(key)
        made[key] = {**old, **value} if key == "data" and isinstance(old, dict) else value
    if "task" in made["train"] and made["train"]["task"] != "documents":
        del made["model"]
    assert tokens_of(parse(made)) is None
    assert tokens_of(parse(recipe(corpus))) == corpus.resolve()
