"""What every step promises, on any text. New steps are found here."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelwright.data.operations import Step, names, operation, operation_class
from modelwright.data.readers.reader import new_row
from modelwright.errors import ModelwrightError

every_operation = pytest.mark.parametrize("name", names())

LICENSE = Path(__file__).resolve().parents[2] / "LICENSE"  # plays an evaluation set
QUESTION = "See the License for the specific language governing permissions and limitations under"
FEW = ("the", "and", "of", "中", "国", "。", " ", "\n", "\n\n", "word", "13800138000", "â€™", "{")
TEXTS = (
    st.text(st.characters(), max_size=300)
    | st.lists(st.sampled_from(FEW), max_size=200).map("".join)
    | st.lists(st.sampled_from(FEW), max_size=20).map(lambda few: " ".join(few * 12))
)


def needed(name: str) -> dict[str, Any]:
    """What cannot be left out."""
    return {"decontaminate": {"sets": {"license": str(LICENSE)}}}.get(name, {})


@cache
def step_of(name: str) -> Step:
    return operation(name, needed(name)).begin()


def row_of(text: str | None) -> dict[str, Any]:
    row = new_row("1", text=text, groups=["a"], label="x", meta={"title": "t"})
    return row | {"id": "source/1", "source": "source", "license": "CC0"}


@every_operation
def test_settings_become_json_and_the_same_step_again(name):
    made = operation(name, needed(name))
    assert is_dataclass(made) and type(made).__dataclass_params__.frozen
    assert type(made).version >= 1
    again = operation(name, json.loads(json.dumps(asdict(made))))
    assert again == made
    assert again.assets() == made.assets()
    assert all(isinstance(k, str) and isinstance(v, str) for k, v in made.assets().items())


@every_operation
def test_every_field_is_explained(name):
    cls = operation_class(name)
    for field in fields(cls):
        assert f"{field.name}" in (cls.__doc__ or ""), field.name


@every_operation
@settings(deadline=None, max_examples=60)
@given(text=TEXTS)
@example(text="")
@example(text="\ud800")
@example(text="\x00" * 50)
@example(text="中文" * 400)
@example(text="The same line of text.\n" * 60)
@example(text=QUESTION)
def test_any_text_passes_or_leaves_and_nothing_else_changes(name, text):
    row, again = row_of(text), row_of(text)
    before = copy.deepcopy(row)
    reason = step_of(name)(row)
    assert step_of(name)(again) == reason and again == row, "not the same twice"
    for column in ("id", "source", "groups", "parents", "label", "license"):
        assert row[column] == before[column]
    assert reason is None or (reason and len(reason) < 60 and "\n" not in reason)
    assert isinstance(row["text"], str)
    assert all(key.startswith(f"{name}.") for key in row["attributes"])
    json.dumps(row["attributes"])


@every_operation
def test_a_row_without_text_does_not_raise(name):
    row = row_of(None)
    assert step_of(name)(row) is None or row["modality"] == "text"
    assert row["id"] == "source/1" and row["text"] is None


@every_operation
def test_a_mistyped_setting_is_refused(name):
    with pytest.raises(ModelwrightError, match=f"step {name}: no option 'zzz'"):
        operation(name, {"zzz": 1})


def test_an_unknown_step_is_refused_with_the_nearest():
    with pytest.raises(ModelwrightError, match=r"no step 'qualty' \(did you mean 'quality'\?\)"):
        operation("qualty")


def test_a_value_of_a_wrong_type_is_refused_in_one_line():
    with pytest.raises(ModelwrightError, match=r"^step quality: min_words: .*got 'many'\)$"):
        operation("quality", {"min_words": "many"})
