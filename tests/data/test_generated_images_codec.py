"""Images to be made: scaled to -1..1 and back without loss, with labels or without."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelwright.data.codecs.generated_images import Codec
from modelwright.errors import ModelwrightError
from modelwright.types import Example, Image, Label, Turn, stack


def example(pixels: np.ndarray, label: str | None = None) -> Example:
    given = () if label is None else (Turn("user", (Label(label),)),)
    return Example((*given, Turn("assistant", (Image(pixels),), learn=True)))


RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


@given(st.sampled_from([(16, 16), (16, 16, 3)]), st.integers(0, 100))
def test_every_byte_comes_back(shape: tuple[int, ...], seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    pixels[:, :, ...].ravel()[:2] = [0, 255]
    codec = Codec.fit([example(pixels)])
    tensors = codec.tensors(stack([codec.encode(example(pixels))], codec.ragged))
    assert -1 <= tensors["features"].min() < tensors["features"].max() <= 1
    assert np.array_equal(codec.pictures(tensors["features"])[0], pixels)
    assert (codec.labels, tensors["label"].tolist()) == ([], [-1])


def test_what_lies_outside_is_cut() -> None:
    codec = Codec.fit([example(RAMP)])
    drawn = codec.pictures(torch.tensor([[-7.0, 7.0, 0.0]]))
    assert drawn.tolist() == [[0, 255, 128]]


def test_labels_are_given_not_learned() -> None:
    codec = Codec.fit([example(RAMP, "b"), example(RAMP, "a")])
    assert codec.labels == ["a", "b"]
    encoded = codec.encode(example(RAMP, "b"))
    assert int(encoded["label"]) == 1
    again = codec.example(encoded)
    assert [t.labels for t in again.given] == [("b",)]
    assert again.answer.learn


def test_larger_pictures_are_brought_to_the_size() -> None:
    codec = Codec.fit([example(RAMP), example(RAMP.repeat(2, axis=1))], size=8)
    assert codec.shape == (8, 8)
    assert codec.encode(example(RAMP.repeat(3, axis=0)))["features"].shape == (8, 8)


def test_sizes_that_differ_are_named() -> None:
    with pytest.raises(ModelwrightError, match=r"pictures of two sizes, picture 1 has 16 x 16"):
        Codec.fit([example(RAMP), example(RAMP[:8])])


def test_one_class_alone_is_no_choice() -> None:
    with pytest.raises(ModelwrightError, match="every picture is of the class 'a'.*label to ''"):
        Codec.fit([example(RAMP, "a"), example(RAMP, "a")])
