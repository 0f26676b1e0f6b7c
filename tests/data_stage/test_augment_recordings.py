"""Recordings changed in training: speed and noise of samples, then masks of their frames."""

from __future__ import annotations

import numpy as np
import pytest

from modelwright.data.augment.batches import Augment, check
from modelwright.data.codecs import fit_codec
from modelwright.errors import ModelwrightError
from modelwright.types import Columns, Example, Label, Sound, Turn, ragged_column, stack

RATE = 8000


def example(number: int) -> Example:
    rng = np.random.default_rng(number)
    samples = rng.normal(0, 0.1, RATE // 2 + 80 * number).astype(np.float32)
    label = Label("odd" if number % 2 else "even")
    return Example((Turn("user", (Sound(samples, RATE),)), Turn("assistant", (label,), True)))


def prepared() -> tuple[object, Columns]:
    examples = [example(i) for i in range(6)]
    codec = fit_codec("sounds", examples, {"rate": RATE, "bands": 12})
    return codec, stack([codec.encode(e) for e in examples], codec.ragged)


def test_views_are_a_pure_function_of_seed_and_step() -> None:
    codec, columns = prepared()
    augment = Augment([{"speed": {}}, "noise", "spec_augment"], "sounds", 7, codec)
    one, same, other = augment(columns, 3), augment(columns, 3), augment(columns, 4)
    for name in ("samples", "frames"):
        assert np.array_equal(ragged_column(one, name).values, ragged_column(same, name).values)
    assert not np.array_equal(
        ragged_column(one, "samples").lengths, ragged_column(other, "samples").lengths
    )
    assert np.array_equal(np.asarray(one["label"]), np.asarray(columns["label"]))


def test_speed_changes_lengths_and_the_frames_are_those_of_the_changed_recording() -> None:
    codec, columns = prepared()
    augment = Augment([{"speed": {"slowest": 0.5, "fastest": 0.5}}], "sounds", 7, codec)
    changed = augment(columns, 0)
    before, after = (ragged_column(c, "samples").lengths for c in (columns, changed))
    assert np.array_equal(after, 2 * before)
    assert "frames" not in changed
    tensors = codec.tensors(changed)  # type: ignore[attr-defined]
    assert tensors["lengths"].tolist() == (after // 80 + 1).tolist()


def test_masks_reach_the_model_and_nothing_else_is_changed() -> None:
    codec, columns = prepared()
    masks = {"spec_augment": {"frequency_masks": 0, "time_masks": 1, "time": 0.5}}
    changed = Augment([masks], "sounds", 1, codec)(columns, 0)
    plain = codec.tensors(columns)["frames"]  # type: ignore[attr-defined]
    masked = codec.tensors(changed)["frames"]  # type: ignore[attr-defined]
    assert plain.shape == masked.shape
    apart = (plain != masked).any(-1)
    assert apart.any()
    assert not apart.all()
    assert np.array_equal(
        ragged_column(changed, "samples").values, ragged_column(columns, "samples").values
    )


def test_what_changes_recordings_stands_first() -> None:
    with pytest.raises(ModelwrightError, match="frames are made of a recording that is changed"):
        check(["spec_augment", "speed"], "sounds")
    with pytest.raises(ModelwrightError, match="is for image"):
        check(["flip"], "speech")
