"""CTC against the sum over every path, and long recordings in pieces."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from modelwright.data.codecs import fit_codec
from modelwright.data.hearing import cut
from modelwright.errors import ModelwrightError
from modelwright.models.conformer import Config
from modelwright.objectives.ctc import Objective
from modelwright.types import Example, Ragged, Sound, Turn, stack, text_turn

RATE = 8000


class Fixed(nn.Module):
    """A model that gives the same scores whatever it hears."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        return self.logits

    def frame_counts(self, lengths: Tensor) -> Tensor:
        return torch.full_like(lengths, self.logits.shape[1])


def example(text: str, seconds: float = 0.3, seed: int = 0) -> Example:
    samples = np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)
    given_ = Turn("user", (Sound(samples, RATE),))
    return Example((given_, text_turn("assistant", text, learn=True)) if text else (given_,))


def collapsed(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(c for c, _ in itertools.groupby(path) if c != 0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.sampled_from(["a", "b", "ab", "aa", "bab"]))
def test_the_loss_is_the_sum_over_all_paths(seed: int, frames: int, text: str) -> None:
    codec = fit_codec("speech", [example("ab")], {"rate": RATE, "bands": 8})
    logits = torch.randn(1, frames, 3, generator=torch.Generator().manual_seed(seed))
    columns = stack([codec.encode(example(text))], codec.ragged)
    objective = Objective(codec)
    batch = objective.collate(columns, torch.Generator())
    loss = float(objective.loss(Fixed(logits), batch))
    shares = logits[0].softmax(-1).double()
    meant = tuple(columns["letters"][0].tolist())  # type: ignore[union-attr]
    total = sum(
        math.prod(float(shares[t, c]) for t, c in enumerate(path))
        for path in itertools.product(range(3), repeat=frames)
        if collapsed(path) == meant
    )
    assert (batch.count, batch.computed) == (len(text), 1)  # letters are learned, one is heard
    assert loss == pytest.approx(-math.log(total) if total else 0.0, abs=1e-4)


def test_a_question_costs_nothing_and_the_model_learns_nothing_of_it() -> None:
    codec = fit_codec("speech", [example("ab")], {"rate": RATE, "bands": 8})
    logits = torch.randn(2, 6, 3, requires_grad=True)
    objective = Objective(codec)
    columns = stack([codec.encode(example("ab")), codec.encode(example(""))], codec.ragged)
    batch = objective.collate(columns, torch.Generator())
    objective.loss(Fixed(logits), batch).backward()
    assert batch.count == 2
    assert logits.grad is not None
    assert logits.grad[0].abs().sum() > 0
    assert logits.grad[1].abs().sum() == 0


def test_a_long_question_is_answered_piece_by_piece() -> None:
    """Every frame of a recording four times the limit is scored, in bounded windows."""
    codec = fit_codec("speech", [example("ab")], {"rate": RATE, "bands": 8, "longest": 1.0})
    columns = stack([codec.encode(example("", 3.7)), codec.encode(example(""))], codec.ragged)
    objective = Objective(codec)
    batch = objective.collate(columns, torch.Generator())
    assert batch.targets["pieces"].tolist() == [4, 1]
    assert batch.inputs["frames"].shape[1] <= 200
    torch.manual_seed(0)
    model = Config(features=8, outputs=3, width=8, heads=2, depth=1).build().eval()
    scores = objective.predict(model, batch)
    assert scores.shape[0] == 2
    assert 90 <= scores.shape[1] <= 98  # 3.7 s at 25 frames a second, rounded up in each piece
    beyond = scores[1, 8:]
    assert beyond.argmax(-1).eq(0).all()
    assert len(codec.decode(scores)) == 2


def test_a_recording_is_cut_where_it_is_quiet() -> None:
    sound = np.full(4 * RATE, 1000, np.int16)
    sound[2 * RATE - 1600 : 2 * RATE - 1200] = 0
    one, other = cut(sound, 2, RATE)
    assert len(one) + len(other) == len(sound)
    assert 2 * RATE - 1600 <= len(one) <= 2 * RATE - 1200


def test_a_model_of_whole_recordings_is_refused() -> None:
    codec = fit_codec("speech", [example("ab")], {"rate": RATE, "bands": 8})
    batch = Objective(codec).collate(
        stack([codec.encode(example("ab"))], codec.ragged), torch.Generator()
    )
    model = Config(features=8, outputs=3, width=8, heads=2, depth=1, head="sequence").build()
    with pytest.raises(ModelwrightError, match="no letters frame by frame"):
        Objective(codec).loss(model, batch)


def test_ragged_columns_stay_ragged() -> None:
    codec = fit_codec("speech", [example("ab")], {"rate": RATE, "bands": 8})
    columns = stack([codec.encode(example("ab")), codec.encode(example("b", 0.5))], codec.ragged)
    assert isinstance(columns["samples"], Ragged)
    batch = Objective(codec).collate(columns, torch.Generator())
    assert batch.inputs["lengths"].tolist() == [31, 51]
