"""The recipe: typed, closed to unknown keys, the same in YAML, Python and overrides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from modelwright import recipe
from modelwright.errors import ModelwrightError
from modelwright.options import count, seconds
from modelwright.recipe import Data, Evaluation, Recipe, Split, Stage

SMALLEST: dict[str, Any] = {
    "name": "r",
    "data": {"source": "x.txt"},
    "train": {"task": "documents"},
}


def refused(values: dict[str, Any]) -> str:
    with pytest.raises(ModelwrightError) as caught:
        recipe.parse(values, "r.yaml")
    message = str(caught.value)
    assert message.startswith("r.yaml: ")
    assert "\n" not in message
    return message


def sections() -> list[tuple[tuple[str, ...], type[BaseModel]]]:
    """Every section of a recipe, by the path to it."""
    return [
        ((), Recipe),
        (("data",), Data),
        (("data", "split"), Split),
        (("train",), Stage),
        (("tune",), Stage),
        (("evaluate",), Evaluation),
    ]


def with_key(path: tuple[str, ...], key: str, value: Any) -> dict[str, Any]:
    values = {k: dict(v) if isinstance(v, dict) else v for k, v in SMALLEST.items()}
    target = values
    for part in path:
        target = target.setdefault(part, {"task": "documents"} if part == "tune" else {})
    target[key] = value
    return values


EVERY_KEY = [(path, key) for path, section in sections() for key in section.model_fields]


@pytest.mark.parametrize(("path", "key"), EVERY_KEY, ids=lambda v: v if isinstance(v, str) else "")
def test_every_mistyped_key_is_refused_with_the_right_one(path: tuple[str, ...], key: str) -> None:
    """A letter too many, in every key of every section."""
    message = refused(with_key(path, key + "x", 1))
    assert ".".join((*path, key + "x")) + ": unknown key" in message
    assert f"(did you mean '{key}'?)" in message


@pytest.mark.parametrize(("path", "section"), sections(), ids=lambda v: getattr(v, "__name__", ""))
def test_every_field_is_described(path: tuple[str, ...], section: type[BaseModel]) -> None:
    for name, field in section.model_fields.items():
        assert field.description, f"{'.'.join(path)}.{name} has no description"


def test_the_smallest_recipe_has_all_defaults() -> None:
    made = recipe.parse(SMALLEST)
    assert made.seed == 1
    assert made.tune is None
    assert list(made.stages) == ["train"]
    assert made.family == "decoder"
    assert made.data.split.by == "group"


def test_a_recipe_cannot_be_changed() -> None:
    made = recipe.parse(SMALLEST)
    with pytest.raises(Exception, match="frozen"):
        made.seed = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90s", 90), ("3m", 180), ("1.5h", 5400), ("1h30m", 5400), ("2d", 172800), ("1m 30s", 90)],
)
def test_durations(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize(
    "text", ["", "3", "m", "3x", "3 minutes", "-3m", "3m!", "0s", "1e3s", "h1"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ModelwrightError, match="budget: .* write it like 90s"):
        seconds(text)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(1, 59))
def test_durations_add_up(h: int, m: int, s: int) -> None:
    assert seconds(f"{h}h{m}m{s}s") == 3600 * h + 60 * m + s


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5M", 5_000_000), ("1.2B", 1_200_000_000), (7, 7), ("300k", 300_000), (" 12 ", 12)],
)
def test_counts(text: str | int, expected: int) -> None:
    assert count(text) == expected


@pytest.mark.parametrize("text", ["", "M", "5X", "-5", "1e6", "five"])
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(ModelwrightError, match="is not a count; write it like 5M"):
        count(text)


# -- overrides and files ------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("data: {source: x.txt}\ntrain: {task: documents, steps: 7}\n")
    return path


def test_the_file_names_the_recipe_unless_it_says_so(file: Path) -> None:
    assert recipe.read(str(file)).name == "mine"
    assert recipe.read(str(file), ["name=other"]).name == "other"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.steps=200", {"train": {"steps": 200}}),
        ("train.learning_rate=1e-3", {"train": {"learning_rate": 0.001}}),
        ("data.split.by=row", {"data": {"split": {"by": "row"}}}),
        ("data.split={by: row, test: 0}", {"data": {"split": {"by": "row", "test": 0}}}),
        ("train.options.kinds=[source]", {"train": {"options": {"kinds": ["source"]}}}),
        ("budget=3m", {"budget": "3m"}),
        ("tune.task=docstrings", {"tune": {"task": "docstrings"}}),
        ("ask=a=b?", {"ask": "a=b?"}),
        ("data.clean=true", {"data": {"clean": True}}),
        ("model.softcap=1e1", {"model": {"softcap": 10.0}}),
        ("train.steps=", {"train": {"steps": None}}),
    ],
)
def test_an_override_is_yaml_at_a_path(file: Path, override: str, expected: dict[str, Any]) -> None:
    assert holds(recipe.read(str(file), [override]).model_dump(), expected)


def holds(values: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        return all(holds(values[k], v) for k, v in expected.items())
    return bool(values == expected)


def test_overrides_apply_in_their_order(file: Path) -> None:
    made = recipe.read(str(file), ["train.steps=1", "train.batch=2", "train.steps=3"])
    assert (made.train.steps, made.train.batch) == (3, 2)


def test_steps_that_are_set_stand_in_place_of_epochs(file: Path) -> None:
    file.write_text("data: {source: x}\ntrain: {task: documents, epochs: 2}\n")
    for override, steps, epochs in (
        ("train.steps=7", 7, None),
        ("train.epochs=3", None, 3),
        ("train.steps=null", None, 2),
    ):
        stage = recipe.read(str(file), [override]).first
        assert (stage.steps, stage.epochs) == (steps, epochs)
    with pytest.raises(ModelwrightError, match="steps or epochs, not both"):
        recipe.read(str(file), ["train.steps=7", "train.epochs=3"])


def test_an_override_makes_the_sections_on_its_way(file: Path) -> None:
    assert recipe.read(str(file), ["evaluate.questions=3"]).evaluate.questions == 3


identifiers = st.text("abcdefgh_", min_size=1, max_size=8)
plain = st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab c=:#'\"{[", max_size=8)


@given(st.lists(identifiers, min_size=1, max_size=3), plain)
def test_what_an_override_sets_is_there(path: list[str], value: Any) -> None:
    values: dict[str, Any] = {}
    written = yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
    recipe._override(values, f"{'.'.join(path)}={written}")
    for part in path:
        values = values[part]
    assert values == value
    assert type(values) is type(value)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "steps": st.integers(1, 10**6),
            "batch": st.integers(1, 10**4),
            "optimizer": st.sampled_from(["sgd", "adam", "adamw", "muon"]),
            "learning_rate": st.floats(1e-9, 1e3),
            "schedule": st.sampled_from(["constant", "linear", "cosine"]),
            "warmup": st.floats(0, 1),
            "clip": st.floats(0, 10),
            "precision": st.sampled_from(["float32", "bfloat16"]),
            "options": st.just({"kinds": ["source"]}),
            "save_every": st.integers(1, 99),
        },
    ),
    st.integers(0, 2**63),
)
@settings(deadline=None, max_examples=60)
def test_a_recipe_written_as_yaml_is_the_same_recipe(stage: dict[str, Any], seed: int) -> None:
    """What a run directory keeps: only what was given, and nothing is lost on the way."""
    made = recipe.parse({**SMALLEST, "seed": seed, "train": {"task": "documents", **stage}})
    text = yaml.safe_dump(made.model_dump(exclude_unset=True), sort_keys=False)
    again = recipe.parse(yaml.safe_load(text))
    assert again.model_dump() == made.model_dump()
    assert again.model_dump(exclude_unset=True) == made.model_dump(exclude_unset=True)


# -- what does not go together ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"train": {"task": "documents", "steps": 1, "epochs": 1}}, "give steps or epochs"),
        ({"train": {"task": "documents", "batch": 5, "accumulate": 2}}, "no multiple of"),
        ({"train": {"task": "documnts"}}, "(did you mean 'documents'?)"),
        ({"train": {"task": "documents", "options": {"kindz": []}}}, "(did you mean 'kinds'?)"),
        ({"train": {"task": "documents", "objective": "best"}}, "no objective 'best'"),
        ({"model": {"family": "decodr"}}, "(did you mean 'decoder'?)"),
        ({"model": {"dept": 3}}, "model.dept: not a field of decoder (did you mean 'depth'?)"),
        ({"model": {"depth": "three"}}, "model.depth: Input should be a valid integer"),
        ({"model": {"parameters": "many"}}, "'many' is not a count"),
        ({"codec": {"vocab": 300}}, "(did you mean 'vocabulary'?)"),
        ({"tune": {"task": "vector_classification"}}, "choose tasks of one codec"),
        ({"data": {"source": "x", "split": {"test": 0.6, "validation": 0.4}}}, "leave nothing"),
        ({"name": "a/b"}, "name"),
        ({"name": ""}, "name"),
        ({"budget": "soon"}, "'soon' is no time, tokens or FLOPs"),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict[str, Any], words: str) -> None:
    assert words in refused({**SMALLEST, **values})


@pytest.mark.parametrize("section", ["data", "train"])
def test_what_is_missing_is_named(section: str) -> None:
    values = {k: v for k, v in SMALLEST.items() if k != section}
    assert f"{section}: is missing; every recipe needs it" in refused(values)


def test_of_a_missing_key_and_a_mistyped_one_the_latter_is_said() -> None:
    values = {"dta": SMALLEST["data"], **{k: v for k, v in SMALLEST.items() if k != "data"}}
    assert "dta: unknown key (did you mean 'data'?)" in refused(values)


def test_several_problems_are_counted() -> None:
    values = {**SMALLEST, "sed": 1, "budgt": "3m", "modl": {}}
    assert "(2 more)" in refused(values)
