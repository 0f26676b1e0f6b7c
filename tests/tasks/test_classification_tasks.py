"""Rows to classification examples: which columns are read, and what is said when they are not."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from modelwright.data.codecs import fit_codec
from modelwright.data.sources import read_rows
from modelwright.errors import ModelwrightError
from modelwright.tasks.sequence_classification import SequenceClassification
from modelwright.tasks.task import make_task
from modelwright.tasks.vector_classification import VectorClassification
from modelwright.types import Example, Frames, Image, Row

PARITY = {"even": list("02468"), "odd": list("13579")}


def only(task: VectorClassification | SequenceClassification, row: Row) -> Example:
    (example,) = task.examples(row)
    assert isinstance(example, Example)
    return example


def array(example: Example) -> np.ndarray:
    part = example.turns[0].parts[0]
    assert isinstance(part, Image | Frames)
    return part.pixels if isinstance(part, Image) else part.frames


def test_pixels_come_first_then_x_then_every_column() -> None:
    task = VectorClassification()
    pixels = np.zeros((2, 2), np.uint8)
    assert array(only(task, {"pixels": pixels, "x": [1.0], "label": "a"})) is pixels
    assert array(only(task, {"x": np.ones(3), "y": 1, "label": "a"})).tolist() == [[1, 1, 1]]
    table = {"id": "t:2", "group": "t", "width": "1.5", "height": "2", "label": "a"}
    assert array(only(task, table)).tolist() == [[1.5, 2.0]]


def test_the_listed_columns_are_read_in_their_order() -> None:
    task = VectorClassification(label="kind", features=["b", "a"])
    example = only(task, {"a": 1, "b": "2", "c": "text", "kind": 7})
    assert array(example).tolist() == [[2.0, 1.0]]
    assert example.answer.label == task.kind(example) == "7"


@pytest.mark.parametrize(
    ("options", "row", "message"),
    [
        ({"label": "lable"}, {"x": [1], "label": "a"}, r"no column 'lable' \(did you mean 'label'"),
        ({"features": ["widht"]}, {"width": 1, "label": "a"}, r"'widht' \(did you mean 'width'"),
        ({}, {"width": "wide", "label": "a"}, r"column 'width' holds 'wide', not a number"),
        ({}, {"width": None, "label": "a"}, r"column 'width' holds 'None', not a number"),
        ({}, {"width": "nan", "label": "a"}, r"column 'width' holds 'nan'; repair"),
        ({}, {"label": "a"}, "nothing to read beside the label"),
    ],
)
def test_what_is_missing_is_named(options: dict[str, object], row: Row, message: str) -> None:
    with pytest.raises(ModelwrightError, match=f"^row r1: .*{message}"):
        VectorClassification(**options).examples({"id": "r1", **row})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["vector_classification", "sequence_classification"])
@pytest.mark.parametrize("empty", [None, ""])
def test_a_row_without_a_label_is_dropped_with_the_reason(name: str, empty: object) -> None:
    assert make_task(name, {}).examples({"x": [[1.0]], "label": empty}) == "no label"


def test_a_target_joins_labels_and_drops_the_others() -> None:
    task = SequenceClassification(target={"even": ["0", 2], "odd": ["1"]})  # type: ignore[list-item]
    row = {"frames": np.zeros((2, 3))}
    names = [only(task, {**row, "label": n}).answer.label for n in ("0", 2, "1")]
    assert names == ["even", "even", "odd"]
    assert task.examples({**row, "label": "3"}) == "label in no class of the target"
    with pytest.raises(ModelwrightError, match="label '1' is in class 'a' and in 'b'"):
        SequenceClassification(target={"a": ["1"], "b": ["1"]})


def test_sound_becomes_log_mel_frames() -> None:
    row = {"id": "s", "samples": np.zeros(8000, np.float32), "rate": 8000, "label": "a"}
    assert array(only(SequenceClassification(bands=40), row)).shape == (98, 40)
    assert array(only(SequenceClassification(), row)).shape == (98, 128)
    with pytest.raises(ModelwrightError, match="less than highest=5000"):
        SequenceClassification(highest=5000.0).examples(row)


def test_a_row_without_a_sequence_says_what_is_meant() -> None:
    with pytest.raises(ModelwrightError, match=r"row r1: no sequence; give .* it has: id, label"):
        SequenceClassification().examples({"id": "r1", "label": "a"})
    with pytest.raises(ModelwrightError, match=r"row r1: a sequence of shape \(1, 2, 3\)"):
        SequenceClassification().examples({"id": "r1", "x": np.zeros((1, 2, 3)), "label": "a"})
    plain = only(SequenceClassification(), {"x": [1.0, 2.0, 3.0], "label": "a"})
    assert array(plain).shape == (3, 1)


def test_a_question_is_typed_as_json() -> None:
    (turn,) = VectorClassification().question("[1, 2.5]")
    assert array(Example((turn,))).tolist() == [[1.0, 2.5]]
    (turn,) = SequenceClassification().question("[[1, 2], [3, 4], [5, 6]]")
    assert array(Example((turn,))).shape == (3, 2)
    for bad in ("os.path", "[1, [2]]", '["a"]', "3"):
        with pytest.raises(ModelwrightError, match="^question: "):
            VectorClassification().question(bad)


def test_real_digits_are_read() -> None:
    pytest.importorskip("sklearn", reason="the bundled digits come with scikit-learn")
    task = VectorClassification()
    examples = [only(task, row) for row in islice(read_rows("digits"), 50)]
    codec = fit_codec(task.codec, examples, {})
    assert codec.labels == [str(i) for i in range(10)]  # type: ignore[attr-defined]
    assert codec.encode(examples[0])["features"].shape == (8, 8)


def test_real_recordings_are_read(data: Callable[[str], Path]) -> None:
    task = SequenceClassification(target=PARITY)
    rows = islice(read_rows("fsdd", path=data("fsdd")), 0, 2500, 100)
    examples = [only(task, row) for row in rows]
    assert {e.answer.label for e in examples} == {"even", "odd"}
    lengths = {len(array(e)) for e in examples}
    assert len(lengths) > 5
    assert fit_codec(task.codec, examples, {}).features == 128  # type: ignore[attr-defined]
