"""The frames codec: scale of the train split, padding, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.codecs.frames import Codec
from modelwright.errors import ModelwrightError
from modelwright.types import Example, Frames, Image, Label, Part, Turn, stack


def example(part: Part, label: str | None = None) -> Example:
    answer = (Turn("assistant", (Label(label),), True),) if label is not None else ()
    return Example((Turn("user", (part,)), *answer))


def sequences(lengths: list[int], seed: int = 0, features: int = 3) -> list[Example]:
    rng = np.random.default_rng(seed)
    frames = [4 + 2 * rng.standard_normal((n, features)) for n in lengths]
    return [example(Frames(f), "ab"[i % 2]) for i, f in enumerate(frames)]


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=2, max_size=6), seed=st.integers(0, 2**31))
def test_true_frames_are_scaled_and_padding_is_zero(lengths: list[int], seed: int) -> None:
    examples = sequences(lengths, seed)
    codec = Codec.fit(examples)
    given = codec.tensors(stack([codec.encode(e) for e in examples], codec.ragged))
    assert given["frames"].shape == (len(lengths), max(lengths), 3)
    assert given["frames"].dtype == torch.float32
    assert given["lengths"].tolist() == lengths
    for i, n in enumerate(lengths):
        frames = examples[i].turns[0].parts[0].frames  # type: ignore[union-attr]
        expected = (frames.astype(np.float32) - codec.mean) / codec.deviation
        np.testing.assert_allclose(given["frames"][i, :n].numpy(), expected, rtol=1e-5)
        assert not given["frames"][i, n:].any()
    true = np.concatenate([given["frames"][i, :n].numpy() for i, n in enumerate(lengths)])
    np.testing.assert_allclose(true.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(true.std(0), 1, rtol=1e-3)


def test_what_it_tells_the_model() -> None:
    codec = Codec.fit(sequences([2, 4, 9]))
    assert (codec.features, codec.labels, codec.mean_length) == (3, ["a", "b"], 5.0)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Frames(np.zeros((4, 2))), "2 features a frame, the train split has 3"),
        (Frames(np.zeros((0, 3))), r"shape \(0, 3\)"),
        (Frames(np.zeros(3)), r"shape \(3,\)"),
        (Frames(np.full((2, 3), np.inf)), "NaN or infinity"),
        (Image(np.zeros((2, 3))), "has 0 sequences"),
    ],
)
def test_what_cannot_be_read_is_refused(part: Part, message: str) -> None:
    with pytest.raises(ModelwrightError, match=message):
        Codec.fit(sequences([3, 4])).encode(example(part))


def test_sequences_of_two_widths_are_refused_when_fitting() -> None:
    with pytest.raises(ModelwrightError, match="2 features a frame, the train split has 3"):
        Codec.fit([*sequences([3, 4]), *sequences([3, 4], features=2)])


def test_an_unknown_label_is_named_and_a_question_has_none() -> None:
    codec = Codec.fit(sequences([3, 4]))
    frames = Frames(np.zeros((2, 3)))
    with pytest.raises(
        ModelwrightError, match=r"label 'aa' .*\(did you mean 'a'\?\); it has: a, b"
    ):
        codec.encode(example(frames, "aa"))
    assert codec.encode(example(frames))["label"] == -1


def test_a_single_logit_decides_between_two_labels() -> None:
    codec = Codec.fit(sequences([3, 4]))
    assert [t.label for t in codec.decode(torch.tensor([[-0.1], [0.1]]))] == ["a", "b"]
