"""The vectors codec: what it learns from the train split, stores, and refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.codecs.vectors import Codec
from modelwright.errors import ModelwrightError
from modelwright.types import Example, Frames, Image, Label, Part, Text, Turn, stack


def example(part: Part, label: str | None = None) -> Example:
    answer = (Turn("assistant", (Label(label),), True),) if label is not None else ()
    return Example((Turn("user", (part,)), *answer))


def images(count: int = 6) -> list[Example]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 3, 4), dtype=np.uint8)
    return [example(Image(p), "ab"[i % 2]) for i, p in enumerate(pixels)]


def tensors(codec: Codec, examples: list[Example]) -> dict[str, torch.Tensor]:
    return codec.tensors(stack([codec.encode(e) for e in examples], codec.ragged))


def test_pixels_are_stored_as_bytes_and_scaled_by_one_mean() -> None:
    codec = Codec.fit(images())
    encoded = codec.encode(images()[0])
    assert encoded["features"].dtype == np.uint8
    assert encoded["features"].nbytes == 12
    given = tensors(codec, images())
    assert given["features"].dtype == torch.float32
    assert given["features"].shape == (6, 3, 4)
    assert given["features"].mean().item() == pytest.approx(0, abs=1e-6)
    assert given["features"].std(correction=0).item() == pytest.approx(1, rel=1e-5)
    assert given["label"].tolist() == [0, 1, 0, 1, 0, 1]
    assert (codec.features, codec.labels) == (12, ["a", "b"])


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(4, 30),
    features=st.integers(1, 5),
    offset=st.sampled_from([0.0, -3.0, 1e3]),
    seed=st.integers(0, 2**31),
)
def test_every_feature_of_a_table_is_scaled_apart(
    rows: int, features: int, offset: float, seed: int
) -> None:
    values = np.random.default_rng(seed).standard_normal((rows, features)) + offset
    examples = [example(Frames(v[None]), str(i % 2)) for i, v in enumerate(values)]
    codec = Codec.fit(examples)
    np.testing.assert_allclose(codec.mean[0], values.mean(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(codec.deviation[0], values.std(0), rtol=1e-3)


def test_the_scale_can_be_chosen() -> None:
    assert Codec.fit(images(), scale="feature").mean.shape == (3, 4)
    plain = Codec.fit(images(), scale="none")
    assert tensors(plain, images()[:1])["features"].max() > 1
    with pytest.raises(ModelwrightError, match=r"no scale 'globl' \(did you mean 'global'\?\)"):
        Codec.fit(images(), scale="globl")


def test_a_constant_feature_becomes_zero_and_not_infinity() -> None:
    values = np.array([[0.1, 5.0], [0.1, 7.0], [0.1, 6.0]])
    examples = [example(Frames(v[None]), str(i % 2)) for i, v in enumerate(values)]
    scaled = tensors(Codec.fit(examples), examples)["features"]
    assert scaled[:, 0, 0].tolist() == pytest.approx([0, 0, 0], abs=1e-6)


def test_labels_that_are_numbers_keep_their_order() -> None:
    pixels = np.zeros((2, 2), np.uint8)
    codec = Codec.fit([example(Image(pixels), str(i)) for i in (10, 2, 0, 1)])
    assert codec.labels == ["0", "1", "2", "10"]


def test_a_label_that_training_did_not_see_is_named_with_the_known_ones() -> None:
    with pytest.raises(ModelwrightError, match=r"label 'c' is not in the train split.*: a, b;"):
        Codec.fit(images()).encode(example(Image(np.zeros((3, 4), np.uint8)), "c"))


def test_one_label_alone_cannot_be_learned() -> None:
    with pytest.raises(ModelwrightError, match=r"at least two labels .* it has only 'a'"):
        Codec.fit(images()[::2])
    with pytest.raises(ModelwrightError, match="it has none"):
        Codec.fit([])


def test_a_question_has_the_label_minus_one() -> None:
    codec = Codec.fit(images())
    encoded = codec.encode(example(Image(np.zeros((3, 4), np.uint8))))
    assert encoded["label"] == -1
    assert encoded["label"].shape == ()


def test_whole_numbers_of_another_type_are_pixels_and_fractions_are_not() -> None:
    codec = Codec.fit(images())
    pixels = np.arange(12).reshape(3, 4)
    assert codec.encode(example(Image(pixels)))["features"].dtype == np.uint8
    for bad in (pixels / 255, pixels - 1, pixels + 250):
        with pytest.raises(ModelwrightError, match=r"trained on whole numbers 0\.\.255"):
            codec.encode(example(Image(bad)))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Image(np.zeros((4, 3), np.uint8)), r"shape \(4, 3\), the first one .* \(3, 4\)"),
        (Image(np.full((3, 4), np.nan)), "NaN or infinity"),
        (Image(np.array([["a"] * 4] * 3)), "numbers are meant"),
        (Text("three by four"), "has 0 arrays"),
    ],
)
def test_what_cannot_be_read_is_refused(part: Part, message: str) -> None:
    with pytest.raises(ModelwrightError, match=message):
        Codec.fit(images()).encode(example(part))


def test_logits_become_the_most_probable_label() -> None:
    codec = Codec.fit(images())
    two = torch.tensor([[2.0, 1.0], [-1.0, 3.0]])
    assert [t.label for t in codec.decode(two)] == ["a", "b"]
    assert [t.role for t in codec.decode(two)] == ["assistant", "assistant"]
    one = torch.tensor([[-1.0], [2.0]])
    assert [t.label for t in codec.decode(one)] == ["a", "b"]
    torch.testing.assert_close(codec.probabilities(one).sum(1), torch.ones(2))
    torch.testing.assert_close(codec.probabilities(one)[:, 1], torch.sigmoid(one[:, 0]))
    with pytest.raises(ModelwrightError, match="3 outputs for 2 labels"):
        codec.decode(torch.zeros(1, 3))


def test_moments_do_not_depend_on_the_blocks() -> None:
    many = [example(Image(np.full((2, 2), i % 251, np.uint8)), str(i % 2)) for i in range(3000)]
    codec = Codec.fit(many)
    values = np.arange(3000) % 251
    assert float(codec.mean) == pytest.approx(values.mean(), rel=1e-6)
    assert float(codec.deviation) == pytest.approx(values.std(), rel=1e-6)
