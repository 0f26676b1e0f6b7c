"""The detector: where its positions lie, what is decoded, and non-maximum suppression."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.models import detector
from modelwright.models.detector import overlaps, suppressed

MODEL = detector.Config(**detector.Config.specimen).build().eval()


@settings(max_examples=15, deadline=None)
@given(height=st.integers(33, 150), width=st.integers(33, 150))
def test_every_output_has_its_position(height: int, width: int) -> None:
    with torch.no_grad():
        said = MODEL(torch.zeros(1, height, width, 3))
    points, strides = MODEL.positions(height, width)
    assert said.shape == (1, len(points), 3 + 5)
    assert len(strides) == len(points)
    assert (points >= 0).all()
    fine = points[strides == 8]
    assert torch.equal(fine[:2], torch.tensor([[4.0, 4.0], [12.0, 4.0]]))  # x first, row by row


def test_sides_are_above_zero_and_objects_rare_at_the_start() -> None:
    with torch.no_grad():
        said = MODEL(torch.randn(2, 64, 96, 3))
    assert (said[..., 3:7] > 0).all()
    assert said[..., :3].sigmoid().mean().item() == pytest.approx(0.01, abs=0.005)
    assert all(len(found.boxes) == 0 for found in MODEL.decode(said, 64, 96, least=0.5))


def test_what_was_planted_is_found() -> None:
    points, strides = MODEL.positions(64, 96)
    said = torch.full((2, len(points), 8), -9.0)
    said[..., 3:7] = 5.0
    box = torch.tensor([10.0, 12.0, 50.0, 40.0])
    for at, sure in ((20, 4.0), (21, 3.0)):  # neighbours that see the same object
        said[1, at, 2], said[1, at, 7] = sure, 5.0
        said[1, at, 3:7] = torch.cat((points[at] - box[:2], box[2:] - points[at]))
    nothing, found = MODEL.decode(said, 64, 96, least=0.3)
    assert len(nothing.boxes) == 0
    assert found.labels.tolist() == [2]
    torch.testing.assert_close(found.boxes, box[None])
    chance = torch.sigmoid(torch.tensor(4.0)) * torch.sigmoid(torch.tensor(5.0))
    torch.testing.assert_close(found.scores, chance.sqrt()[None])
    assert strides[20] == 8


def test_boxes_end_at_the_border() -> None:
    points, _ = MODEL.positions(64, 96)
    said = torch.full((1, len(points), 8), -9.0)
    said[0, 0, 0], said[0, 0, 7], said[0, 0, 3:7] = 9.0, 9.0, 1e4
    (found,) = MODEL.decode(said, 64, 96, least=0.5)
    assert found.boxes.tolist() == [[0, 0, 96, 64]]


def test_known_overlaps() -> None:
    box = torch.tensor([[0.0, 0, 2, 2]])
    others = torch.tensor([[0.0, 0, 2, 2], [1, 1, 3, 3], [2, 0, 4, 2], [1, 1, 1, 1]])
    torch.testing.assert_close(overlaps(box, others)[0], torch.tensor([1, 1 / 7, 0, 0]))
    empty = torch.tensor([[3.0, 3, 3, 3]])
    assert overlaps(empty, empty).item() == 0


boxes_of = st.lists(
    st.tuples(
        *[st.integers(0, 9)] * 2, *[st.integers(1, 6)] * 2, st.integers(0, 5), st.integers(0, 1)
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(rows=boxes_of, overlap=st.sampled_from([0.0, 0.3, 0.6]), most=st.integers(1, 5))
def test_suppression_is_the_plain_greedy_one(
    rows: list[tuple[int, ...]], overlap: float, most: int
) -> None:
    boxes = torch.tensor([[x, y, x + w, y + h] for x, y, w, h, *_ in rows]).float().view(-1, 4)
    scores = torch.tensor([r[4] for r in rows]).float()
    labels = torch.tensor([r[5] for r in rows]).long()
    wanted: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: (-rows[i][4], i)):
        rivals = [k for k in wanted if rows[k][5] == rows[i][5]]
        if all(_overlap(boxes[k].tolist(), boxes[i].tolist()) <= overlap + 1e-6 for k in rivals):
            wanted.append(i)
    found = suppressed(boxes, scores, labels, overlap=overlap, most=most)
    assert found.tolist() == wanted[:most]


def _overlap(a: list[float], b: list[float]) -> float:
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    sizes = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return wide * high / (sum(sizes) - wide * high)
