"""The Python face: what a question may be, overrides of a recipe given as values, short names."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modelwright as mw
from modelwright import api, recipe
from modelwright.errors import ModelwrightError
from modelwright.runs import Run
from modelwright.types import Label

VALUES: dict[str, Any] = {
    "name": "kinds",
    "data": {"source": "kinds.csv", "split": {"by": "row", "validation": 0.2, "test": 0.2}},
    "train": {"task": "vector_classification", "options": {"label": "kind"}, "steps": 2},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("api")
    rows = "\n".join(f"{i % 3 * 4},{i / 30},{'abc'[i % 3]}" for i in range(30))
    (folder / "kinds.csv").write_text(f"width,height,kind\n{rows}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield mw.run(VALUES)


def test_numbers_are_a_question(run: Run) -> None:
    model = mw.load(run)
    said = model("[4, 0.5]")
    assert said in "abc"
    assert said.parts == (Label(said),)
    assert said.details["probabilities"] == model.probabilities("[4, 0.5]")
    for again in (copy.copy(said), copy.deepcopy(said)):
        assert (again, again.parts, again.details) == (said, said.parts, said.details)
    for question in ([4, 0.5], (4, 0.5), np.array([4, 0.5])):
        assert model(question) == said
        assert model.probabilities(question) == model.probabilities("[4, 0.5]")
    turns = model.fitted.task.question("[4, 0.5]")
    assert model(turns) == model(list(turns)) == said
    with pytest.raises(ModelwrightError, match=r"shape \(1, 3\)"):
        model([1, 2, 3])


def test_a_path_is_a_question(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ModelwrightError, match="not a list of numbers in JSON"):
        mw.load(run)(tmp_path)


def test_overrides_hold_for_values_and_recipes(run: Run) -> None:
    before = copy.deepcopy(VALUES)
    found = api.open_run(VALUES, "train.steps=3", 'data.split={"by": "row"}', out="runs/other")
    assert found.recipe.first.steps == 3
    assert before == VALUES
    made = recipe.own(VALUES)
    assert api.open_run(made, "train.steps=4", out="runs/third").recipe.first.steps == 4
    assert made.first.steps == 2
    with pytest.raises(ModelwrightError, match=r"recipe: train\.stps: unknown key"):
        api.open_run(VALUES, "train.stps=3", out="runs/fourth")


def test_an_open_run_keeps_its_recipe(run: Run) -> None:
    for source in (run, run.path):
        with pytest.raises(ModelwrightError, match="runs/kinds: an existing run keeps its recipe"):
            mw.train(source, "train.steps=3")


def test_a_run_is_shown_by_its_path(run: Run) -> None:
    assert len(repr(run)) < 60
    assert "runs/kinds" in repr(run)
    assert json.loads((run.path / "evaluation.json").read_text())["measures"]
