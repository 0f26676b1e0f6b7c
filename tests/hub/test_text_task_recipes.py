"""Published encoders are tuned to tag words, to find answers and to choose sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelwright import api
from modelwright.pipeline.fitted import load_fitted, newest_checkpoint
from tests.hub.test_encoder_recipes import STAGE, published

TEXTS = [f"play the song number {i} by nina simone, then stop it. It was loud." for i in range(24)]
WORDS = {"words": ["play", "blue", "train"], "tags": ["O", "B-album", "I-album"]}
TASKS: dict[str, tuple[dict[str, Any], Any, str]] = {
    "token_classification": (
        {"label": "intent"},
        lambda i: {
            "text": TEXTS[i],
            "spans": [[5, 13, "item"], [TEXTS[i].index("nina"), TEXTS[i].index(","), "artist"]],
            "intent": ("play", "stop")[i % 2],
        },
        "test span F1",
    ),
    "question_answering": (
        {},
        lambda i: {
            "context": TEXTS[i] * 3,
            "question": "who sings?",
            "answers": ["nina simone"],
        },
        "test answer F1",
    ),
    "extractive_summarization": (
        {"take": 1},
        lambda i: {"document": TEXTS[i], "summary": "the song was loud"},
        "test ROUGE-1",
    ),
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["BertForMaskedLM", "RobertaForMaskedLM", "DistilBertForMaskedLM"])
def test_an_encoder_learns_a_task_with_a_new_head(task: str, kind: str, tmp_path: Path) -> None:
    options, row, measure = TASKS[task]
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"id": str(i), **row(i)}) + "\n" for i in range(24)))
    published(tmp_path / "encoder", kind, TEXTS)
    longest = (
        {"longest": 64, "stride": 8, "question": 16} if "question" in task else {"longest": 64}
    )
    run = api.run(
        {
            "name": "a",
            "data": {"source": str(rows), "split": {"by": "row", "validation": 0.1, "test": 0.2}},
            "codec": longest,
            "model": {"from": str(tmp_path / "encoder"), "head": "new"},
            "tune": {"task": task, "options": options, **STAGE},
        },
        out=tmp_path / "run",
    )
    result = run.read_json("evaluation.json")
    assert result["measures"][0]["name"] == measure
    lines = (run.path / "graded" / "tune.jsonl").read_text().splitlines()
    wrong = [line for line in map(json.loads, lines) if not line["right"]]
    assert len(result["worst"]) == len(wrong)
    fitted = load_fitted(newest_checkpoint(run))
    assert fitted.config.to_dict()["head"] == fitted.codec.head  # type: ignore[attr-defined]
    asked = TEXTS[0] if task != "question_answering" else f"{TEXTS[0]}\nwho sings?"
    assert isinstance(api.load(run).said(asked), str)
