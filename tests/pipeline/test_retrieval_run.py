"""Vectors of texts end to end: learned from real pairs, measured, served, of published ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from modelwright import api
from modelwright.pipeline.fitted import load_fitted, newest_checkpoint
from modelwright.pipeline.held_out import held_out
from tests.hub.test_encoder_recipes import published
from tests.serving.parts import running

STEPS = {"steps": 6, "batch": 16, "compile": False, "threads": 1}


def recipe(source: str, task: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": "a",
        "data": {
            "source": source,
            "limit": 400,
            "split": {"by": "group", "validation": 0.1, "test": 0.2},
        },
        "codec": {"vocabulary": 1000, "longest": 64},
        "model": {"depth": 1, "width": 32, "heads": 2},
        "train": {"task": task, **STEPS},
        **changes,
    }


def test_translations_find_each_other_and_are_served(
    data: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = recipe("tatoeba_en_zh", "text_embedding")
    given["data"]["path"] = str(data("tatoeba_en_zh"))
    run = api.run(given, out=tmp_path / "run")
    measures = {m["name"]: m for m in run.read_json("evaluation.json")["measures"]}
    assert list(measures) == [
        f"test {name}" for name in ("nDCG@10", "MRR", "recall@1", "recall@5", "recall@10")
    ]
    who = [row["who"] for row in measures["test MRR"]["rows"]]
    assert who == ["ours", "BM25", "TF-IDF"]
    assert measures["test MRR"]["rows"][0]["value"] > 0
    model = api.load(run)
    vector = model("Hello there.")
    assert len(vector) == 32
    assert np.linalg.norm(vector) == pytest.approx(1)
    assert model.said("Hello there.").endswith("...], 32 numbers")
    fitted = load_fitted(newest_checkpoint(run))
    loss = held_out(run, "train", "validation")["loss"]
    assert 0 < loss < np.log(64) * 2
    pairs = [("Hello there.", "你好。"), ("Run!", "跑！"), ("I see a cat. " * 40, "我看见一只猫。")]
    rows = tmp_path / "mine.tsv"
    rows.write_text("source\ttarget\n" + "\n".join(map("\t".join, pairs)) + "\n")
    result = api.evaluate(run, on=rows)
    assert {m["name"] for m in result["measures"]} == {m.removeprefix("test ") for m in measures}
    (five,) = (m for m in result["measures"] if m["name"] == "recall@5")
    assert five["rows"][0] == {"who": "ours", "value": 1.0}  # of three
    assert {e["answer"] for e in result["examples"]} <= {passage for _, passage in pairs}
    assert "1 of" in (said := capsys.readouterr().err)
    assert "longer than the codec reads, and were cut" in said
    with running(model.answerer.server()) as served:
        body = {"model": "tiny", "input": ["Hello there.", "Hello there.", "Run."]}
        answer = httpx.post(f"{served.url}/v1/embeddings", json=body)
        assert answer.status_code == 200, answer.text
        found = [row["embedding"] for row in answer.json()["data"]]
    assert found[0] == found[1] != found[2]
    np.testing.assert_allclose(found[0], vector, atol=1e-6)
    assert fitted.config.to_dict()["head"] == "none"


@pytest.mark.parametrize("kind", ["BertForMaskedLM", "RobertaForMaskedLM", "DistilBertForMaskedLM"])
def test_a_published_encoder_learns_to_find(kind: str, tmp_path: Path) -> None:
    texts = [f"play the song number {i} by nina simone, then stop it" for i in range(30)]
    rows = [
        {"query": f"number {i}?", "passage": t, "negatives": [texts[i - 1]]}
        for i, t in enumerate(texts)
    ]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    published(tmp_path / "encoder", kind, texts)
    run = api.run(
        {
            "name": "a",
            "data": {"source": str(source), "split": {"by": "row", "validation": 0.1, "test": 0.2}},
            "codec": {"longest": 32},
            "model": {"from": str(tmp_path / "encoder"), "head": "new"},
            "tune": {"task": "retrieval", "objective_options": {"pooling": "first"}, **STEPS},
        },
        out=tmp_path / "run",
    )
    fitted = load_fitted(newest_checkpoint(run))
    assert fitted.config.to_dict()["head"] == "none"
    assert len(api.load(run)("number 3?")) == fitted.config.to_dict()["width"]
    lines = (run.path / "metrics" / "tune.jsonl").read_text().splitlines()
    losses = [record["loss"] for record in map(json.loads, lines) if "loss" in record]
    assert losses[0] < np.log(64)
