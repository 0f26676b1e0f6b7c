"""Spectra and back: exact inverses, pieces, scales; Griffin-Lim on real speech."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelwright.data.sound_rows import recording, sound_rows
from modelwright.data.spectrograms import (
    FLOOR,
    MelSettings,
    analysed,
    filters,
    griffin_lim,
    log_mel,
    magnitudes,
    spectrum,
    synthesised,
    whole_frames,
)
from modelwright.errors import ModelwrightError

SMALL = MelSettings(8000, size=64, hop=16, bands=8, highest=4000.0)
SPEECH = MelSettings(16_000)


def noise(frames: int, settings: MelSettings = SMALL, rows: int = 2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, frames * settings.hop, generator=generator)


@pytest.fixture(scope="module")
def speech(data: Callable[[str], Path]) -> torch.Tensor:
    row = next(iter(sound_rows(data("kathleen"))))
    sound = recording(row)
    assert not isinstance(sound, str)
    return torch.from_numpy(whole_frames(sound.samples, SPEECH.hop))[None]


@given(frames=st.integers(1, 30), hop=st.sampled_from([8, 16, 32]), seed=st.integers(0, 99))
def test_samples_come_back_from_their_spectra(frames: int, hop: int, seed: int) -> None:
    settings = MelSettings(8000, size=64, hop=hop, bands=4, highest=4000.0)
    samples = noise(frames, settings, seed=seed)
    spectra = analysed(samples, settings)
    assert spectra.shape == (2, frames, 33)
    again = synthesised(spectra, 64, hop)
    torch.testing.assert_close(again, samples, rtol=1e-4, atol=1e-5)


@given(first=st.integers(0, 10), length=st.integers(1, 10))
def test_a_piece_of_a_recording_has_a_piece_of_its_frames(first: int, length: int) -> None:
    samples = noise(20, rows=1)
    around = torch.nn.functional.pad(samples, (SMALL.side, SMALL.side))
    piece = around[:, first * 16 : (first + length) * 16 + 2 * SMALL.side]
    whole = log_mel(samples, SMALL)
    torch.testing.assert_close(log_mel(piece, SMALL, padded=True), whole[:, first : first + length])


def test_rows_end_where_their_frames_end() -> None:
    samples = noise(9)
    spectra = analysed(samples, SMALL)
    made = synthesised(spectra, 64, 16, torch.tensor([9, 4]))
    torch.testing.assert_close(made[0], samples[0], rtol=1e-4, atol=1e-5)
    alone = synthesised(spectra[1:, :4], 64, 16)
    torch.testing.assert_close(made[1:, :64], alone)
    assert not made[1, 64:].any()


def test_the_spectrum_is_that_of_torch_scaled() -> None:
    samples = noise(12, rows=1)
    theirs = torch.stft(
        samples, 64, 16, window=torch.hann_window(64), center=False, return_complex=True
    )
    torch.testing.assert_close(spectrum(samples, 64, 16), theirs.transpose(1, 2) * 2 / 32)


def test_a_sine_of_full_scale_has_a_magnitude_of_one() -> None:
    angles = 2 * torch.pi * 1000 * torch.arange(3200) / 8000  # 1000 Hz is bin 8
    found = spectrum(angles.sin()[None], 64, 16).abs()
    torch.testing.assert_close(found[0, :, 8], torch.ones(found.shape[1]), rtol=1e-4, atol=1e-4)


def test_silence_stands_at_the_floor() -> None:
    found = log_mel(torch.zeros(1, 64), SMALL)
    torch.testing.assert_close(found, torch.full((1, 4, 8), FLOOR).log())


def test_magnitudes_gather_to_the_bands_that_they_were_found_for(speech: torch.Tensor) -> None:
    frames = log_mel(speech, SPEECH)[:, 40:80]
    found = magnitudes(frames, SPEECH)
    assert (found >= 0).all()
    bands = found @ filters(SPEECH).T
    assert ((bands.clamp(min=FLOOR).log() - frames).abs() > 0.2).float().mean() < 0.05


def test_griffin_lim_makes_speech_whose_spectrum_is_the_given_one(speech: torch.Tensor) -> None:
    frames = log_mel(speech, SPEECH)

    def distance(iterations: int, seed: int = 0) -> float:
        made = griffin_lim(frames, SPEECH, iterations=iterations, seed=seed)
        assert made.shape == speech.shape
        return float((log_mel(made, SPEECH) - frames).abs().mean())

    few, many = distance(1), distance(40)
    assert many < 0.15 < few
    one, same = (griffin_lim(frames, SPEECH, iterations=3, seed=1) for _ in range(2))
    assert torch.equal(one, same)
    assert not torch.equal(one, griffin_lim(frames, SPEECH, iterations=3, seed=2))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rate": 8000}, "codec.highest: 8000 samples a second"),
        ({"rate": 16000, "hop": 2048}, "codec.hop: 2048 of a window of 1024"),
        ({"rate": 16000, "hop": 255}, "codec.hop: 255"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, int], said: str) -> None:
    with pytest.raises(ModelwrightError, match=said):
        MelSettings(**settings)


def test_a_recording_is_filled_up_to_whole_frames() -> None:
    assert whole_frames(np.ones(17), 16).tolist() == [1.0] * 17 + [0.0] * 15
    assert len(whole_frames(np.ones(32), 16)) == 32
