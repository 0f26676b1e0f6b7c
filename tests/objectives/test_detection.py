"""Which positions are positive, what boxes cost, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelwright.data.codecs import fit_codec
from modelwright.errors import ModelwrightError
from modelwright.models import detector
from modelwright.objectives import make_objective
from modelwright.objectives.detection import (
    assigned,
    centreness,
    focal,
    generalised_overlap,
    valid,
)
from modelwright.types import Columns, Ragged, stack
from tests.variations import examples_of

MODEL = detector.Config(**detector.Config.specimen).build()
HEIGHT, WIDTH = 160, 192
boxes_of = st.lists(
    st.tuples(
        st.floats(0, WIDTH - 8, width=32),
        st.floats(0, HEIGHT - 8, width=32),
        st.floats(1, 190, width=32),
        st.floats(1, 150, width=32),
    ),
    max_size=6,
).map(lambda rows: [(x, y, min(x + w, WIDTH), min(y + h, HEIGHT)) for x, y, w, h in rows])


def plainly_assigned(x: float, y: float, stride: float, boxes: list[tuple[float, ...]]) -> int:
    """The rule of the paper, position by position and box by box."""
    best, least = -1, math.inf
    for number, (left, top, right, bottom) in enumerate(boxes):
        sides = (x - left, y - top, right - x, bottom - y)
        low = 0 if stride == 8 else 8 * stride / 2
        high = math.inf if stride == 128 else 8 * stride
        near = max(abs(x - (left + right) / 2), abs(y - (top + bottom) / 2)) < 1.5 * stride
        area = (right - left) * (bottom - top)
        if min(sides) > 0 and near and low < max(sides) <= high and area < least:
            best, least = number, area
    return best


@given(boxes=boxes_of)
def test_assignment_is_the_plain_rule(boxes: list[tuple[float, ...]]) -> None:
    points, strides = MODEL.positions(HEIGHT, WIDTH)
    points, strides = points.double(), strides.double()
    given_boxes = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
    found = assigned(points, strides, given_boxes, 1.5)
    meant = [
        plainly_assigned(x, y, s, boxes)
        for (x, y), s in zip(points.tolist(), strides.tolist(), strict=True)
    ]
    assert found.tolist() == meant


def test_every_box_of_some_size_has_a_position() -> None:
    points, strides = MODEL.positions(HEIGHT, WIDTH)
    for side in (9.0, 20.0, 60.0, 120.0, 150.0):
        for shift in np.linspace(0, 9, 7).tolist():
            box = torch.tensor([[shift, shift / 2, shift + side, shift / 2 + side]])
            assert (assigned(points, strides, box, 1.5) == 0).any(), (side, shift)


def test_known_costs() -> None:
    logits, there = torch.tensor([0.0, 0.0]), torch.tensor([True, False])
    log2 = math.log(2)
    assert focal(logits, there).tolist() == pytest.approx([0.25 * log2 / 4, 0.75 * log2 / 4])
    sides = torch.tensor([[2.0, 3, 2, 3], [1, 3, 3, 3]])
    assert centreness(sides).tolist() == pytest.approx([1, math.sqrt(1 / 3)])
    assert generalised_overlap(sides[:1], sides[:1]).item() == pytest.approx(1)
    # 4 x 6 and 4 x 6 moved by one: shared 18, union 30, hull 30
    assert generalised_overlap(sides[:1], sides[1:]).item() == pytest.approx(18 / 30)


class Setting:
    def __init__(self) -> None:
        task, examples = examples_of("object_detection", 4)
        self.codec = fit_codec(task.codec, examples, {})
        self.columns = stack([self.codec.encode(e) for e in examples], self.codec.ragged)
        self.objective = make_objective("detection", self.codec, {})

    def collate(self, columns: Columns) -> torch.Tensor:
        torch.manual_seed(0)
        specimen = {**detector.Config.specimen, **detector.Config.data_fields(self.codec)}
        model = detector.Config(**specimen).build()
        batch = self.objective.collate(columns, torch.Generator())
        return self.objective.loss(model, batch)


def bad(columns: Columns, rows: list[list[float]], count: int) -> Columns:
    """The same pictures, the first ``count`` of the eight boxes replaced."""
    boxes = columns["boxes"]
    assert isinstance(boxes, Ragged)
    values = boxes.values.copy()
    values[:count] = (np.array(rows * 8, dtype=np.float32))[:count]
    return {**columns, "boxes": Ragged(values, boxes.offsets)}


@pytest.mark.parametrize(
    "box",
    [[5, 5, 5, 5], [30, 30, 10, 40], [200, 10, 240, 40], [-50, 0, -10, 20], [0, 0, math.nan, 9]],
)
def test_a_batch_of_invalid_boxes_alone_stops_with_one_line(box: list[float]) -> None:
    setting = Setting()
    with pytest.raises(ModelwrightError, match=r"all 8 boxes of a batch are invalid") as caught:
        setting.collate(bad(setting.columns, [box], 8))
    assert "\n" not in str(caught.value)
    assert setting.collate(bad(setting.columns, [box], 7)).isfinite()


def test_valid_boxes_have_a_part_in_the_picture() -> None:
    boxes = np.array([[0, 0, 4, 4], [-3, -3, 1, 1], [9, 0, 12, 4], [2, 2, 2, 6], [0, 0, np.inf, 1]])
    assert valid(boxes, 8, 8).tolist() == [True, True, False, False, False]


def test_pictures_without_anything_teach_that_nothing_is_there() -> None:
    setting = Setting()
    empty = {
        **setting.columns,
        "boxes": Ragged(np.zeros((0, 4), np.float32), np.zeros(5, np.int64)),
        "classes": Ragged(np.zeros(0, np.int64), np.zeros(5, np.int64)),
    }
    made = setting.objective.collate(empty, torch.Generator())
    assert (made.count, made.computed) == (4, len(made.inputs["features"]))  # of the work: pictures
    assert 0 < setting.collate(empty) < setting.collate(setting.columns)
    questions = {**empty, "known": np.zeros(4, bool)}
    assert setting.objective.collate(questions, torch.Generator()).count == 0
    assert setting.collate(questions) == 0


def test_a_few_steps_find_what_was_learned() -> None:
    task, examples = examples_of("object_detection", 1)
    codec = fit_codec(task.codec, examples, {})
    columns = stack([codec.encode(e) for e in examples], codec.ragged)
    objective = make_objective("detection", codec, {})
    torch.manual_seed(0)
    fields = {**detector.Config.specimen, **detector.Config.data_fields(codec), "width": 24}
    model = detector.Config(**fields).build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    batch = objective.collate(columns, torch.Generator())
    for _ in range(150):
        optimizer.zero_grad()
        (objective.loss(model, batch) / batch.count).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        (answer,) = codec.decode(objective.predict(model, batch))
    assert task.grade(examples[0], answer) == 1
    assert "large" in answer.said and " at " in answer.said


@pytest.mark.parametrize("options", [{"least": 2.0}, {"radius": 0}, {"overlap": -1}, {"most": 0}])
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ModelwrightError, match="objective detection: "):
        make_objective("detection", Setting().codec, options)
