"""The multi-resolution distance by its formula, pieces that are pieces, and whole answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from modelwright.data.codecs.waveforms import Codec
from modelwright.data.spectrograms import log_mel
from modelwright.errors import ModelwrightError
from modelwright.models.vocos import Config
from modelwright.objectives.spectral import Objective
from modelwright.types import Columns, Example, Sound, Turn, stack

RNG = np.random.default_rng(5)
OPTIONS = {"size": 64, "hop": 16, "bands": 8}


def recorded(length: int) -> Example:
    sound = Sound((RNG.standard_normal(length) / 8).astype(np.float32), 16_000)
    return Example((Turn("user", (sound,)), Turn("assistant", (sound,), learn=True)))


EXAMPLES = [recorded(n) for n in (1600, 160, 3200)]
CODEC = Codec.fit(EXAMPLES, **OPTIONS)
COLUMNS: Columns = stack([CODEC.encode(e) for e in EXAMPLES], CODEC.ragged)


def objective(**options: object) -> Objective:
    return Objective(CODEC, **{"crop": 20, "sizes": (32, 64), **options})  # type: ignore[arg-type]


class Known(nn.Module):
    """Says what it was told to."""

    def __init__(self, samples: Tensor) -> None:
        super().__init__()
        self.samples = samples

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        return self.samples


def test_pieces_are_pieces_of_the_recordings_with_their_frames() -> None:
    made = objective()
    batch = made.collate(COLUMNS, torch.Generator().manual_seed(3))
    assert batch.inputs["lengths"].tolist() == [20, 10, 20]
    whole = batch.targets["whole"]
    every = CODEC.standardised(log_mel(whole, CODEC.settings))
    for row, length in enumerate(batch.inputs["lengths"].tolist()):
        piece = batch.targets["samples"][row, : length * 16]
        places = [
            first
            for first in range(whole.shape[1] // 16 - length + 1)
            if torch.equal(whole[row, first * 16 : (first + length) * 16], piece)
        ]
        assert len(places) == 1
        meant = every[row, places[0] : places[0] + length]
        torch.testing.assert_close(batch.inputs["frames"][row, :length], meant)
    other = made.collate(COLUMNS, torch.Generator().manual_seed(4))
    assert not torch.equal(other.targets["samples"], batch.targets["samples"])


def test_the_right_samples_cost_nothing_and_others_their_distance() -> None:
    made = objective(mel=0.0)
    batch = made.collate(COLUMNS, torch.Generator().manual_seed(3))
    target = batch.targets["samples"]
    assert float(made.loss(Known(target), batch)) == pytest.approx(0, abs=1e-6)
    half = float(made.loss(Known(target / 2), batch))
    # Half as large everywhere: |s - s/2| / |s| = 1/2, and log 2 in every bin that is not silent.
    assert 0.5 + 0.5 * np.log(2) < half / 3 < 0.5 + np.log(2)
    flipped = float(made.loss(Known(-target), batch))
    assert flipped == pytest.approx(0, abs=1e-6)  # phases are free


def test_the_mel_distance_is_that_of_the_frames_given() -> None:
    made = objective(mel=2.0)
    batch = made.collate(COLUMNS, torch.Generator().manual_seed(3))
    target, lengths = batch.targets["samples"], batch.inputs["lengths"]
    louder = made.mel_distances(target * 2, target, lengths)
    torch.testing.assert_close(louder, torch.full((3,), float(np.log(2))), rtol=1e-4, atol=1e-4)
    alone = objective(mel=0.0).loss(Known(target * 2), batch)
    both = made.loss(Known(target * 2), batch)
    assert float(both - alone) == pytest.approx(3 * 2 * np.log(2), rel=1e-3)


def test_the_distance_by_hand() -> None:
    made = objective(sizes=(32,))
    one, other = torch.randn(1, 320), torch.randn(1, 320)

    def sizes(x: Tensor) -> Tensor:
        padded = nn.functional.pad(x, (32, 32))
        window = torch.hann_window(32)
        found = torch.stft(padded, 32, 8, window=window, center=False, return_complex=True)
        return found.abs().clamp(min=1e-5 * 8) / 8

    s, t = sizes(one), sizes(other)
    meant = (s - t).norm() / t.norm() + (s.log() - t.log()).abs().mean()
    found = made.distances(one, other, torch.tensor([20]))
    torch.testing.assert_close(found[0], meant, rtol=1e-4, atol=1e-5)


def test_a_silent_piece_has_a_finite_gradient() -> None:
    made = objective()
    samples = torch.zeros(1, 320, requires_grad=True)
    found = made.distances(samples, torch.zeros(1, 320), torch.tensor([20]))
    found.sum().backward()
    assert found.isfinite().all()
    assert samples.grad is not None
    assert samples.grad.isfinite().all()


def test_answers_are_whole_recordings() -> None:
    torch.manual_seed(0)
    model = Config(**{**Config.specimen, **Config.data_fields(CODEC)}).build()
    made = objective()
    batch = made.collate(COLUMNS, torch.Generator().manual_seed(3))
    outputs = made.predict(model, batch)
    sounds = [turn.sound for turn in CODEC.decode(outputs)]
    assert [len(s.samples) for s in sounds] == [1600, 160, 3200]
    torch.testing.assert_close(
        made.predict(model, made.collate(COLUMNS, torch.Generator().manual_seed(9))),
        outputs,
        equal_nan=True,
    )


def test_no_sizes_are_refused() -> None:
    with pytest.raises(ModelwrightError, match="sizes is empty"):
        objective(sizes=())
