"""Flow matching: what is drawn, that neighbours do not matter, and what is learned of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from modelwright.data.codecs.generated_images import Codec
from modelwright.errors import ModelwrightError
from modelwright.objectives.flow_matching import Objective
from modelwright.types import Batch, Columns, Example, Image, Label, Turn, stack, take

SIDE = 6


def example(number: int, *, labelled: bool = True) -> Example:
    pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    given = (Turn("user", (Label("ab"[number % 2]),)),) if labelled else ()
    return Example((*given, Turn("assistant", (Image(pixels),), learn=True)))


CODEC = Codec.fit([example(0), example(1)])
PLAIN = Codec.fit([example(0, labelled=False)])


def columns(count: int, codec: Codec = CODEC) -> Columns:
    labelled = bool(codec.labels)
    return stack([codec.encode(example(i, labelled=labelled)) for i in range(count)], codec.ragged)


def batch(objective: Objective, rows: Columns, seed: int = 0) -> Batch:
    return objective.collate(rows, torch.Generator().manual_seed(seed))


class Known(nn.Module):
    """A velocity that is right: it was told the target."""

    def __init__(self, velocity: Tensor, off: float = 0.0) -> None:
        super().__init__()
        self.velocity, self.off = velocity, off

    def forward(self, noisy: Tensor, times: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.velocity + self.off


def test_a_prediction_of_another_shape_is_refused() -> None:
    objective = Objective(CODEC)
    found = batch(objective, columns(3))
    wide = Known(found.targets["velocity"].repeat(1, 2, 1))
    with pytest.raises(ModelwrightError, match=r"predicts \(12, 6\) for pictures of \(6, 6\)"):
        objective.loss(wide, found)


def test_pictures_noise_and_velocity_lie_on_one_line() -> None:
    rows = columns(200)
    found = batch(Objective(CODEC, label_dropout=0.0), rows)
    clean = CODEC.tensors(rows)["features"]
    velocity, t = found.targets["velocity"], 1 - found.inputs["times"] / 1000
    noise = clean - velocity
    line = (1 - t)[:, None, None] * noise + t[:, None, None] * clean
    torch.testing.assert_close(found.inputs["noisy"], line, rtol=0, atol=1e-5)
    assert found.count == 200
    assert torch.equal(found.inputs["labels"], torch.arange(200) % 2)
    assert abs(noise.mean()) < 0.05
    assert abs(noise.std() - 1) < 0.05
    assert 0 <= t.min() < 0.05
    assert 0.95 < t.max() <= 1
    assert abs(t.mean() - 0.5) < 0.06


def test_a_share_of_the_labels_is_left_out() -> None:
    for share in (0.0, 0.1, 0.5, 1.0):
        labels = batch(Objective(CODEC, label_dropout=share), columns(2000)).inputs["labels"]
        assert abs(float((labels == -1).float().mean()) - share) < 0.03
        assert set(labels.tolist()) <= {-1, 0, 1}


def test_without_classes_the_model_is_told_none() -> None:
    assert "labels" not in batch(Objective(PLAIN), columns(3, PLAIN)).inputs


def test_times_can_crowd_in_the_middle() -> None:
    def spread(times: str) -> float:
        objective = Objective(CODEC, times=times)  # type: ignore[arg-type]
        return float(batch(objective, columns(500)).inputs["times"].std())

    assert spread("logit_normal") < 0.85 * spread("uniform")


@settings(max_examples=20)
@given(
    rows=st.lists(st.integers(0, 19), min_size=1, max_size=8, unique=True),
    seed=st.integers(0, 2**31),
)
def test_a_row_is_drawn_alike_whatever_stands_beside_it(rows: list[int], seed: int) -> None:
    every = columns(20)
    objective = Objective(CODEC, label_dropout=0.5)
    whole, part = batch(objective, every, seed), batch(objective, take(every, np.array(rows)), seed)
    for key in ("noisy", "times", "labels"):
        assert torch.equal(part.inputs[key], whole.inputs[key][rows])
    assert torch.equal(part.targets["velocity"], whole.targets["velocity"][rows])


def test_another_number_draws_other_noise() -> None:
    objective, rows = Objective(CODEC), columns(3)
    one, same, other = (batch(objective, rows, seed).inputs["noisy"] for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.isclose(one, other).all()


def test_the_loss_is_the_mean_square_a_picture_summed() -> None:
    found = batch(Objective(CODEC), columns(5))
    right = Objective(CODEC).loss(Known(found.targets["velocity"]), found)
    off = Objective(CODEC).loss(Known(found.targets["velocity"], off=2.0), found)
    assert right == 0
    torch.testing.assert_close(off, torch.tensor(5 * 4.0))


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(ModelwrightError, match=r"label_dropout 1\.5 is not in \[0, 1\]"):
        Objective(CODEC, label_dropout=1.5)
