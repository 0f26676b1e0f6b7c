"""Spaces: what a person writes, what a search draws, and one line for what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.errors import ModelwrightError
from modelwright.pipeline.space import applied, parse_space, read_space
from modelwright.recipe import read

optuna = pytest.importorskip("optuna")
RECIPE = read("mlp-digits")
GOOD = """\
train.learning_rate: {low: 1e-4, high: 1e-1, log: true}
train.batch: {low: 16, high: 64, step: 16}
model:
  hidden: [[128, 64], [64]]
  activation: [relu, tanh]
"""


@given(st.integers(0, 10**6))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_what_is_drawn_is_in_the_space_and_runs_as_a_recipe(seed: int) -> None:
    space = parse_space(yaml.safe_load(GOOD), RECIPE)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()
    chosen = {key: member.suggest(key, trial) for key, member in space.items()}
    assert 1e-4 <= chosen["train.learning_rate"] <= 1e-1
    assert chosen["train.batch"] in (16, 32, 48, 64)
    assert chosen["model.hidden"] in ([128, 64], [64])
    made = applied(RECIPE, chosen, "here")
    assert made.train.learning_rate == chosen["train.learning_rate"]
    assert made.train.batch == chosen["train.batch"]
    assert list(made.model["hidden"]) == chosen["model.hidden"]
    assert made.data == RECIPE.data
    again = optuna.trial.FixedTrial(trial.params)  # as best.yaml is made
    assert {key: member.suggest(key, again) for key, member in space.items()} == chosen


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("train.learning_rat: [0.1, 0.2]", "did you mean 'learning_rate'"),
        ("trian.batch: [16, 32]", "did you mean 'train'"),
        ("model.hiden: [[64]]", "did you mean 'hidden'"),
        ("train.batch: [16, many]", "train.batch"),
        ("train.batch: {low: 0, high: 16}", "greater than 0"),
        ("train.batch: 16", "give choices such as"),
        ("train.batch: {low: 16}", "a range needs 'high'"),
        ("train.batch: {low: 64, high: 16}", "low 64 is not below high 16"),
        ("train.batch: {low: 1, high: 9, stepp: 2}", "did you mean 'step'"),
        ("train.batch: {low: 1, high: 9, step: -2}", "step is -2"),
        ("train.momentum: {low: 0, high: 0.9, log: true}", "above 0 and has no step"),
        ("train.momentum: {low: a, high: 0.9}", "'a' is no number"),
        ("train.momentum: {lo: 0.1, hi: 0.9}", "did you mean 'low'"),
        ("train.momentum: {low: 0.1, high: 0.9, log: 3}", "it is true or false"),
        ("seed: [1, 2]", "which rows are held out"),
        ("data.deduplicate: [0.0, 0.8]", "which rows are held out"),
        ("evaluate.questions: [1, 2]", "the test part has no say"),
    ],
)
def test_what_is_wrong_is_one_line(said: str, problem: str) -> None:
    with pytest.raises(ModelwrightError, match=problem) as caught:
        parse_space(yaml.safe_load(said), RECIPE, "my.yaml")
    assert str(caught.value).startswith("my.yaml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"- 1\n", b"a: [1\n", b"\xff\xfe"])
def test_files_that_are_no_space(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "space.yaml"
    path.write_bytes(content)
    with pytest.raises(ModelwrightError) as caught:
        read_space(path)
    assert str(caught.value).startswith(str(path))
    with pytest.raises(ModelwrightError, match="no such file"):
        read_space(tmp_path / "other.yaml")


def test_a_search_changes_only_what_was_asked() -> None:
    def values(made: Any) -> Any:
        return made.model_dump()

    assert values(applied(RECIPE, {}, "here")) == values(RECIPE)
    made = applied(RECIPE, {"train.clip": 2.0}, "here", name="other")
    assert {**values(made), "name": RECIPE.name, "train": None} == {
        **values(RECIPE),
        "train": None,
    }
    assert made.train.clip == 2.0
