"""Boxes follow their pictures through flips, sizes and mosaics, and resume is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.augment.batches import Augment
from modelwright.data.augment.transforms.boxes import KEPT
from modelwright.errors import ModelwrightError
from modelwright.training.examples import Augmented, Shuffled
from modelwright.types import Columns, Ragged, ragged_column

HEIGHT, WIDTH = 48, 64
CHAIN: list[Any] = [{"box_flip": {"vertical": 0.5}}, "mosaic", "box_scale", "colour_jitter"]


def drawn(seed: int, count: int = 4) -> Columns:
    """Dark pictures, each with a bright rectangle or two that do not touch: the boxes' content."""
    rng = np.random.default_rng(seed)
    pixels = np.full((count, HEIGHT, WIDTH, 3), 10, np.uint8)
    boxes, classes = [], []
    for i in range(count):
        halves = [0, 1] if rng.random() < 0.5 else [0]
        sides = []
        for half in halves:
            left = int(rng.integers(0, 10)) + half * 32
            top, width, height = (int(n) for n in rng.integers([0, 10, 10], [20, 20, 24]))
            sides.append([left, top, left + width, top + height])
            pixels[i, top : top + height, left : left + width] = 200 + 50 * half
        boxes.append(np.array(sides, np.float32))
        classes.append(np.array(halves, np.int64))
    return {
        "features": pixels,
        "boxes": Ragged.of(boxes),
        "classes": Ragged.of(classes),
        "size": np.tile([HEIGHT, WIDTH], (count, 1)),
        "known": np.ones(count, bool),
    }


def check(columns: Columns, tolerance: float) -> int:
    """Inside every box it is bright, in its class's way, up to its edges; outside it is dark."""
    pixels = np.asarray(columns["features"])[..., 0].astype(float)
    boxes, classes = ragged_column(columns, "boxes"), ragged_column(columns, "classes")
    for i, picture in enumerate(pixels):
        free = np.ones(picture.shape, bool)
        for (left, top, right, bottom), number in zip(boxes[i], classes[i], strict=True):
            assert 0 <= left < right <= WIDTH
            assert 0 <= top < bottom <= HEIGHT
            t = int(np.ceil(tolerance))
            y0, y1 = round(float(top)) + t, round(float(bottom)) - t
            x0, x1 = round(float(left)) + t, round(float(right)) - t
            inner = picture[y0:y1, x0:x1]
            if inner.size:
                assert np.abs(inner - (200 + 50 * number)).max() <= 2
            free[max(0, y0 - 2 * t) : y1 + 2 * t, max(0, x0 - 2 * t) : x1 + 2 * t] = False
        # Of a box that was left out, less than the share KEPT shows: of the largest, enlarged.
        assert (picture[free] > 150).sum() < KEPT * 20 * 24 * 1.4**2
    return len(boxes.values)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), step=st.integers(0, 10**6))
def test_flips_take_boxes_along_exactly(seed: int, step: int) -> None:
    columns = drawn(seed)
    flipped = Augment([{"box_flip": {"horizontal": 0.5, "vertical": 0.5}}], "boxes", 1)(
        columns, step
    )
    assert check(flipped, 0) == len(ragged_column(columns, "boxes").values)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), step=st.integers(0, 10**6))
@pytest.mark.parametrize("line", ["box_scale", {"mosaic": {"probability": 1.0}}])
def test_sizes_and_mosaics_take_boxes_along(line: Any, seed: int, step: int) -> None:
    check(Augment([line], "boxes", 1)(drawn(seed), step), 2)


def test_flipping_twice_is_what_it_was() -> None:
    columns = drawn(3)
    flip = Augment([{"box_flip": {"horizontal": 1.0, "vertical": 1.0}}], "boxes", 1)
    again = flip(flip(columns, 0), 5)
    assert np.array_equal(again["features"], columns["features"])
    for one in ("boxes", "classes"):
        assert np.array_equal(ragged_column(again, one).values, ragged_column(columns, one).values)


def test_a_step_is_a_function_of_seed_and_step_alone() -> None:
    def made(accumulate: int = 1) -> Augmented:
        rows = Shuffled(drawn(0, 12), 6, seed=5, accumulate=accumulate)
        return Augmented(rows, Augment(CHAIN, "boxes", 5))

    whole = made()
    straight = [whole(step) for step in range(4)]
    later = made()(3)  # as after a restart
    for name in ("features", "boxes", "classes"):
        for one, same in zip(straight[3], later, strict=True):
            left, right = (
                c[name].values if isinstance(c[name], Ragged) else c[name] for c in (one, same)
            )
            assert np.array_equal(np.asarray(left), np.asarray(right))
    assert not np.array_equal(straight[0][0]["features"], straight[2][0]["features"])
    parts = made(accumulate=3)(3)  # the same rows, whatever they are cut into
    joined = np.concatenate([np.asarray(p["features"]) for p in parts])
    assert np.array_equal(joined, straight[3][0]["features"])
    boxes = np.concatenate([ragged_column(p, "boxes").values for p in parts])
    assert np.array_equal(boxes, ragged_column(straight[3][0], "boxes").values)


def test_nothing_given_is_changed() -> None:
    columns, same = drawn(1), drawn(1)
    Augment(CHAIN, "boxes", 2)(columns, 0)
    assert np.array_equal(columns["features"], same["features"])
    assert np.array_equal(
        ragged_column(columns, "boxes").values, ragged_column(same, "boxes").values
    )


def test_pictures_without_boxes_pass() -> None:
    columns = {
        **drawn(1),
        "boxes": Ragged(np.zeros((0, 4), np.float32), np.zeros(5, np.int64)),
        "classes": Ragged(np.zeros(0, np.int64), np.zeros(5, np.int64)),
    }
    found = Augment(CHAIN, "boxes", 2)(columns, 0)
    assert ragged_column(found, "boxes").values.shape == (0, 4)


@pytest.mark.parametrize("line", ["flip", "crop", "rand_augment"])
def test_what_would_leave_boxes_behind_is_refused(line: str) -> None:
    with pytest.raises(ModelwrightError, match="moves pixels and not their boxes; take"):
        Augment([line], "boxes", 1)


def test_transforms_of_boxes_are_for_pictures_with_boxes() -> None:
    with pytest.raises(ModelwrightError, match="BoxFlip is for boxes, which the codec 'images'"):
        Augment(["box_flip"], "images", 1)
