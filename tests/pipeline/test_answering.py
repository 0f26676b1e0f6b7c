"""How models answer is decided once, by asking codec and objective; samples are kept by step."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.data.codecs import fit_codec
from modelwright.objectives import make_objective
from modelwright.pipeline import samples
from modelwright.pipeline.answering import WAYS
from modelwright.pipeline.answering.writing import Writing
from modelwright.runs import Run
from modelwright.tasks.task import names
from tests.variations import examples_of

SAID = {
    "docstrings": "Writing",
    "documents": "Writing",
    "masked_text": "Writing",
    "translation": "Writing",
    "image_classification": "Predicting",
    "object_detection": "Predicting",
    "image_generation": "Drawing",
}


@pytest.mark.parametrize("name", names())
def test_every_task_is_answered_in_one_way(name: str) -> None:
    task, examples = examples_of(name)
    codec = fit_codec(task.codec, examples, {})
    objective = make_objective(task.objective, codec, {})
    suits = [way for way in WAYS if way.suits(codec, objective)]
    assert suits[-1] is Writing  # which is left where there is no other
    assert suits[0].__name__ == SAID.get(name, suits[0].__name__)
    assert (suits[0] is Writing) == (not hasattr(codec, "decode") and len(suits) == 1)


@given(
    steps=st.lists(st.integers(1, 40), unique=True, max_size=6).map(sorted),
    again=st.integers(1, 40),
    prompts=st.lists(st.text(max_size=3), unique=True, min_size=1, max_size=3),
)
def test_a_resumed_run_says_its_samples_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], again: int, prompts: list[str]
) -> None:
    """Those of the step it goes on from are replaced, and later ones gone."""
    path = tmp_path_factory.mktemp("run")
    run = cast(Run, SimpleNamespace(path=path))
    for step in [*steps, again]:
        samples.keep(run, "train", [_record(step, prompt) for prompt in prompts])
    found = [json.loads(line) for line in _lines(path)]
    kept = [step for step in steps if step < again]
    assert [(line["step"], line["prompt"]) for line in found] == [
        (step, prompt) for step in [*kept, again] for prompt in prompts
    ]
    assert [samples.kept_at(run, "train", step) for step in (again, 41)] == [True, False]


def test_half_a_line_is_dropped(tmp_path: Path) -> None:
    run = cast(Run, SimpleNamespace(path=tmp_path))
    samples.keep(run, "train", [_record(1, "a")])
    with (tmp_path / "samples" / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 2, "prom')
    samples.keep(run, "train", [_record(3, "a")])
    assert [json.loads(line)["step"] for line in _lines(tmp_path)] == [1, 3]


def _record(step: int, prompt: str) -> dict[str, Any]:
    return {"step": step, "prompt": prompt, "text": "said"}


def _lines(path: Path) -> list[str]:
    return (path / "samples" / "train.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
