"""The dial: from a training time to every value that a recipe leaves open, each with a reason."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright import recipe
from modelwright.errors import ModelwrightError
from modelwright.models.model import config_class
from modelwright.recipe import Recipe
from modelwright.runtime import Machine
from modelwright.training import budget
from modelwright.training.budget import Derived
from modelwright.training.scaling import OURS

OURS_MACHINE = Machine(
    "a processor", 4, 16.0, "Linux", "3.11", "cpu", {"float32": 200, "bfloat16": 900}
)
TEXT = {"name": "t", "data": {"source": "x"}, "train": {"task": "documents"}}


def text_recipe(**values: Any) -> Recipe:
    return recipe.parse({**TEXT, **values})


def derived(made: Recipe, each: float = 0.1, per_epoch: float = 1e9) -> Derived:
    """Everything that is derived, in the order of the pipeline."""
    found = Derived()
    budget.derive_machine(made, OURS_MACHINE, found)
    fields = budget.derive_model(made, OURS_MACHINE, found)
    for name, stage in made.stages.items():
        budget.derive_batch(made, name, int(fields.get("context", 256)), found)
        budget.derive_rates(stage, name, "muon", found)
        budget.derive_steps(made, name, per_epoch, lambda: each, found)
    return found


def size(found: Derived) -> int:
    fields = {k.partition(".")[2]: v for k, v in found.values.items() if k.startswith("model.")}
    config: Any = config_class("decoder")(**{"vocabulary": 4096, **fields})
    matrices: int = config.matrix_parameters()
    return matrices


def test_every_value_has_a_reason() -> None:
    made = text_recipe(budget="3m", tune={"task": "docstrings"}, model={"context": 128})
    found = derived(made)
    assert found.values.keys() == found.reasons.keys()
    assert all(len(reason) > 10 for reason in found.reasons.values())
    for stage in ("train", "tune"):
        for key in ("precision", "threads", "batch", "optimizer", "learning_rate", "steps"):
            assert f"{stage}.{key}" in found.values
    assert {"model.depth", "model.width", "model.heads", "model.kv_heads"} <= found.values.keys()


def test_what_the_recipe_gives_is_kept_and_said_so() -> None:
    stage = {"task": "documents", "batch": 7, "steps": 11, "precision": "float32", "threads": 1}
    stage |= {"optimizer": "sgd", "learning_rate": 0.5, "schedule": "linear", "warmup": 0.1}
    stage |= {"save_every": 3, "validate_every": 2, "sample_every": 4, "decay": 0.2}
    found = derived(text_recipe(budget="3m", train=stage, model={"depth": 3, "width": 96}))
    for key, value in stage.items():
        if key != "task":
            assert found.values[f"train.{key}"] == value
            assert found.reasons[f"train.{key}"] == "given in the recipe"
    assert found.values["model.depth"] == 3
    assert found.values["model.width"] == 96
    assert found.reasons["model.width"] == "given in the recipe"
    assert 96 / found.values["model.heads"] in (32, 48, 96)  # near the usual width of a head


@given(st.integers(1, 40).map(lambda n: 8 * n), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_any_width_that_can_be_given_can_be_completed(width: int, depth: int) -> None:
    found = derived(text_recipe(budget="3m", model={"width": width, "depth": depth}))
    assert size(found) > 0
    assert width % (2 * found.values["model.heads"]) == 0
    assert found.values["model.heads"] % found.values["model.kv_heads"] == 0


def test_the_arithmetic_of_the_size() -> None:
    """The FLOPs of the time go to the size of least loss by the law, and the model is near it."""
    found = derived(text_recipe(budget="1d"))
    flops = budget.EXPECTED_UTILISATION * 900e9 * 86_400
    wanted, tokens = OURS.best_decoder(flops, 4096, 256)
    assert 0.6 < size(found) / wanted < 1.6
    assert "900" in found.reasons["train.precision"]
    for number in (f"{wanted / 1e6:.2g}M", f"{tokens / 1e6:.2g}M tokens", OURS.source):
        assert number in found.reasons["model.depth"]


def test_a_budget_of_tokens_or_flops_needs_no_clock() -> None:
    def measured() -> float:
        raise AssertionError("measured for nothing")

    cost = budget.Cost(tokens=4096, flops=1e11)
    for given_budget, steps in (("20Mtok", 4883), ("2e13flop", 200), ("0.5 B tokens", 122_070)):
        found = Derived()
        made = text_recipe(budget=given_budget)
        budget.derive_machine(made, OURS_MACHINE, found)
        assert budget.derive_model(made, OURS_MACHINE, found)["depth"] >= 1
        assert budget.derive_batch(made, "train", 256, found) >= 1
        assert budget.derive_steps(made, "train", 1e9, measured, found, cost=cost) == steps
        assert budget.stage_seconds(made, "train") is None


@pytest.mark.parametrize("text", ["", "tok", "0tok", "3 miles", "-5Mtok", "1e99flop", "nanflop"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(ModelwrightError, match="budget"):
        text_recipe(budget=text)


@given(st.floats(1.0, 4.0), st.floats(0.0, 100.0), st.floats(0.1, 1e5))
def test_compiling_pays_only_if_more_steps_are_done(gain: float, cost: float, left: float) -> None:
    pays = budget.compile_pays(gain, cost, left)
    if pays:
        assert (left - cost) * gain > left
        assert budget.compile_pays(gain, cost, 2 * left)
        assert budget.compile_pays(gain, cost / 2, left)
    if cost >= left:
        assert not pays


def test_the_arithmetic_of_the_steps() -> None:
    found = derived(text_recipe(budget="100s"), each=0.25)
    assert found.values["train.steps"] == 400
    assert found.values["train.save_every"] == 40
    assert "250 ms a step" in found.reasons["train.steps"]
    capped = derived(text_recipe(budget="100s"), each=0.25, per_epoch=50)
    assert capped.values["train.steps"] == budget.PASSES * 50
    assert "400 steps" in capped.reasons["train.steps"]
    shared = derived(text_recipe(budget="100s", tune={"task": "docstrings", "share": 0.4}), 0.1)
    assert (shared.values["train.steps"], shared.values["tune.steps"]) == (600, 400)


@pytest.mark.parametrize(
    ("more", "draws", "ragged", "most"),
    [
        ({}, False, ("tokens", "learn"), budget.PASSES),
        ({}, False, (), budget.PASSES_OF_ROWS),  # numbers, pictures
        ({}, False, ("samples",), budget.PASSES_OF_ROWS),
        ({}, True, (), math.inf),  # noise that is drawn
        ({"augment": ["flip"]}, False, (), math.inf),
    ],
)
def test_a_time_is_used_up_where_every_pass_shows_something_else(
    more: dict[str, Any], draws: bool, ragged: tuple[str, ...], most: float
) -> None:
    made = text_recipe(budget="1000s")
    stage = made.stages["train"].model_copy(update=more)
    objective, codec = SimpleNamespace(draws=draws), SimpleNamespace(ragged=ragged)
    found = budget.most_passes(stage, cast(Any, objective), cast(Any, codec))
    assert found == most
    steps = Derived()
    budget.derive_steps(made, "train", 50.0, lambda: 0.25, steps, most=found)
    assert steps.values["train.steps"] == min(4000, most * 50)
    assert ("learn it by heart" in steps.reasons["train.steps"]) == (most == budget.PASSES_OF_ROWS)


def test_epochs_count_the_data() -> None:
    found = derived(text_recipe(train={"task": "documents", "epochs": 2.5}), per_epoch=10)
    assert found.values["train.steps"] == 25
    for seconds, steps, why in (
        (1000, 25, "2.5 epochs"),
        (5, 20, "2 passes over the data, of 2.5"),
    ):
        made = text_recipe(train={"task": "documents", "epochs": 2.5}, budget=f"{seconds}s")
        both = Derived()
        budget.derive_steps(made, "train", 10.0, lambda: 0.25, both, most=2.5)
        assert both.values["train.steps"] == steps
        assert why in both.reasons["train.steps"]
    once = derived(text_recipe(), per_epoch=9.2)
    assert once.values["train.steps"] == 10
    assert "one pass" in once.reasons["train.steps"]


def test_a_step_is_not_measured_when_nothing_depends_on_it() -> None:
    def measured() -> float:
        raise AssertionError("measured for nothing")

    for stage in ({"steps": 5}, {"epochs": 1}, {}):
        made = text_recipe(train={"task": "documents", **stage})
        budget.derive_steps(made, "train", 10.0, measured, Derived())


@given(st.integers(5, 10**6), st.integers(5, 10**6), st.sampled_from([None, 0.2, 0.5]))
@settings(max_examples=60, deadline=None)
def test_more_time_never_gives_less(one: int, other: int, share: float | None) -> None:
    tune = {"tune": {"task": "docstrings", "share": share}} if share else {}
    less, more = (derived(text_recipe(budget=f"{t}s", **tune)) for t in sorted((one, other)))
    assert size(less) <= size(more)
    assert less.values["train.batch"] <= more.values["train.batch"]
    assert less.values["train.steps"] <= more.values["train.steps"]


@given(st.integers(50_000, 10**10), st.integers(50_000, 10**10))
@settings(max_examples=40, deadline=None)
def test_a_larger_size_never_gives_a_smaller_model(one: int, other: int) -> None:
    less, more = (size(derived(text_recipe(model={"parameters": n}))) for n in sorted((one, other)))
    assert less <= more


@given(st.integers(1, 64), st.integers(1, 4096), st.integers(1, 10**5))
@settings(max_examples=60, deadline=None)
def test_a_batch_is_a_multiple_of_its_micro_batches(cut: int, window: int, time: int) -> None:
    made = text_recipe(budget=f"{time}s", train={"task": "documents", "accumulate": cut})
    batch = budget.derive_batch(made, "train", window, Derived())
    assert batch >= 1
    assert batch % cut == 0


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "muon"])
def test_tuning_is_never_wilder_than_training(optimizer: str) -> None:
    stage = {"task": "documents", "optimizer": optimizer}
    made = text_recipe(train=stage, tune={**stage, "task": "docstrings"})
    found = derived(made)
    for key in ("learning_rate", "matrix_learning_rate"):
        assert 0 < found.values[f"tune.{key}"] <= found.values[f"train.{key}"]
    assert optimizer in found.reasons["tune.learning_rate"]


def test_the_faster_precision_is_taken_only_where_it_is_faster() -> None:
    for speed, chosen in ((900, "bfloat16"), (210, "float32"), (20, "float32")):
        machine = Machine("p", 2, 8.0, "L", "3", "cpu", {"float32": 200, "bfloat16": speed})
        found = Derived()
        budget.derive_machine(text_recipe(), machine, found)
        assert found.values["train.precision"] == chosen
        assert found.values["train.threads"] == 2


def test_a_step_is_measured_by_its_usual_time() -> None:
    calls = []

    def step() -> None:
        calls.append(len(calls))

    assert 0 < budget.measured_step(step, least=0.01) < 0.01
    assert len(calls) > 4


@pytest.mark.parametrize(
    ("fused", "precision", "compiled"),
    [
        (0.0, "bfloat16", True),
        (1.05, "bfloat16", True),
        (1.0, "bfloat16", False),
        (1.0, "float32", True),
    ],
)
def test_what_kernels_have_joined_is_not_compiled_again(
    fused: float, precision: str, compiled: bool
) -> None:
    found = Derived({"train.precision": precision})
    stage = text_recipe().stages["train"]
    budget.derive_compile(
        stage, "train", able=True, seconds_left=3600.0, derived=found, fused=fused
    )
    assert found.values["train.compile"] is compiled
