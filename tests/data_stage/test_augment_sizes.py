"""Progressive resolution: what a step sees depends on its number alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelwright import api
from modelwright.data.augment.sizes import Sizes, averaged
from modelwright.errors import ModelwrightError
from modelwright.types import Ragged


@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    shape=st.sampled_from([(), (3,)]),
    data=st.data(),
)
def test_means_of_equal_parts(height: int, width: int, shape: tuple[int, ...], data) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    whole = rng.integers(0, 256, (2, height, width, *shape), dtype=np.uint8)
    size = (data.draw(st.integers(1, height)), data.draw(st.integers(1, width)))
    small = averaged(whole, size)
    assert small.shape == (2, *size, *shape)
    assert small.dtype == np.uint8
    assert whole.min() <= small.min() <= small.max() <= whole.max()
    if height % size[0] == width % size[1] == 0:
        parts = whole.reshape(2, size[0], height // size[0], size[1], width // size[1], -1)
        mean = parts.astype(np.float64).mean((2, 4)).reshape(small.shape)
        assert np.abs(small - mean).max() <= 0.5001


def test_sides_by_step() -> None:
    pictures = np.arange(2 * 8 * 16, dtype=np.uint8).reshape(2, 8, 16)
    columns = {"features": pictures, "label": np.arange(2)}
    sizes = Sizes({10: 8, 0: 4, 20: 99})
    found = [sizes(columns, step)["features"].shape[1:] for step in (0, 9, 10, 19, 20)]
    assert found == [(2, 4), (2, 4), (4, 8), (4, 8), (8, 16)]
    assert Sizes({5: 4})(columns, 4) is columns
    assert sizes(columns, 0)["label"] is columns["label"]


def test_what_is_no_picture_is_refused() -> None:
    boxes = Ragged.of([np.zeros((1, 4), np.float32)] * 2)
    pictures = np.zeros((2, 8, 8), np.uint8)
    for columns in ({"features": np.zeros((2, 9))}, {"features": pictures, "boxes": boxes}):
        with pytest.raises(ModelwrightError, match="for pictures without boxes"):
            Sizes({0: 4})(columns, 0)


def test_a_training_goes_on_where_it_was_in_growing(tmp_path: Path) -> None:
    recipe = {
        "name": "digits",
        "data": {"source": "digits", "limit": 120, "split": {"by": "row", "test": 0.1}},
        "model": {"family": "fast_cnn", "widths": [4, 8]},
        "train": {"task": "image_classification", "steps": 6, "batch": 8, "save_every": 3,
                  "threads": 1, "compile": False, "precision": "float32",
                  "sizes": {0: 4, 2: 6, 4: 8}},
    }  # fmt: skip
    run = api.train(recipe, out=tmp_path / "run")
    straight = dict(api.load(run).fitted.model.state_dict())
    shutil.rmtree(run.path / "checkpoints" / "train" / "step-00000006")
    again = dict(api.load(api.train(str(run.path))).fitted.model.state_dict())
    assert all(torch.equal(straight[name], again[name]) for name in straight)
    whole = api.train({**recipe, "train": {**recipe["train"], "sizes": {}}}, out=tmp_path / "w")
    other = api.load(whole).fitted.model.state_dict()
    assert not all(torch.equal(straight[name], other[name]) for name in straight)


def test_sides_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ModelwrightError, match="steps are whole numbers from 0 on"):
        api.train(
            {
                "name": "x",
                "data": {"source": "digits"},
                "train": {"task": "image_classification", "sizes": {-1: 8}},
            },
            out=tmp_path / "run",
        )
