"""Log-mel frames against facts that need no other library."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data import melscale
from modelwright.errors import ModelwrightError

RATE = 8000


def tone(hertz: float, rate: int = RATE, seconds: float = 0.5) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)


@settings(max_examples=40, deadline=None)
@given(hertz=st.floats(60, 3900), rate=st.sampled_from([8000, 11025, 16000, 44100]))
def test_a_pure_tone_peaks_in_the_band_whose_centre_is_nearest(hertz: float, rate: int) -> None:
    frames = melscale.log_mel(tone(hertz, rate), rate)
    centres = np.linspace(0, float(melscale.mel_of(4000)), 130)[1:-1]
    # Narrow low bands get the same peak of the window's spectrum: compare in hertz, to half a bin.
    found = melscale.hertz_of(centres[frames.mean(0).argmax()])
    apart = np.abs(melscale.hertz_of(centres) - hertz).min()
    assert abs(found - hertz) <= apart + RATE / 200


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.sampled_from([256, 512, 1024]))
def test_parseval(seed: int, size: int) -> None:
    samples = np.random.default_rng(seed).standard_normal(600)
    power = melscale.power_spectrum(samples, RATE, size)
    window = melscale.window_of(RATE).numpy()
    twice = np.full(size // 2 + 1, 2.0)
    twice[[0, -1]] = 1.0
    total = (power * twice).sum(1) / size * np.square(window).sum()
    expected = [np.square(window * samples[80 * t : 80 * t + 200]).sum() for t in range(len(power))]
    np.testing.assert_allclose(total, expected, rtol=1e-9)


def test_white_noise_of_variance_v_has_power_v_in_every_bin() -> None:
    samples = 0.5 * np.random.default_rng(0).standard_normal(RATE * 20)
    power = melscale.power_spectrum(samples, RATE, 256)[:, 5:-5]
    assert power.mean() == pytest.approx(0.25, rel=0.02)


def test_frames_come_every_10_ms() -> None:
    assert melscale.log_mel(np.zeros(RATE), RATE).shape == (98, 128)  # 1 + (8000 - 200) // 80
    assert melscale.log_mel(np.zeros(199), RATE).shape == (1, 128)
    assert melscale.log_mel(np.zeros(280), RATE).shape == (2, 128)
    assert melscale.log_mel(np.zeros(16000), 16000).shape == (98, 128)


def test_silence_is_the_floor() -> None:
    frames = melscale.log_mel(np.zeros(1000), RATE)
    assert frames.dtype == np.float32
    np.testing.assert_allclose(frames, math.log(1e-6), rtol=1e-6)


def test_ten_times_the_amplitude_adds_log_100() -> None:
    noise = np.random.default_rng(0).standard_normal(2000)
    apart = melscale.log_mel(10 * noise, RATE) - melscale.log_mel(noise, RATE)
    np.testing.assert_allclose(apart, math.log(100), rtol=1e-3)


@pytest.mark.parametrize(("rate", "bands"), [(8000, 128), (16000, 128), (44100, 40), (8000, 200)])
def test_every_filter_has_a_bin(rate: int, bands: int) -> None:
    size = melscale.transform_size(rate, bands, 4000.0)
    filters = melscale.mel_filters(rate, size, bands, 4000.0)
    assert filters.shape == (bands, size // 2 + 1)
    assert (filters.max(axis=1) > 0).all()
    assert filters.max() <= 1
    hertz = np.arange(size // 2 + 1) * rate / size
    assert (filters[:, hertz >= 4000] == 0).all()


def test_neighbouring_triangles_sum_to_one_between_the_outer_centres() -> None:
    filters = melscale.mel_filters(8000, 1024, 128, 4000.0)
    centres = melscale.hertz_of(np.linspace(0, float(melscale.mel_of(4000)), 130))[1:-1]
    hertz = np.arange(513) * 8000 / 1024
    inside = (hertz >= centres[0]) & (hertz <= centres[-1])
    np.testing.assert_allclose(filters.sum(0)[inside], 1.0, rtol=1e-9)


@given(st.floats(0, 20_000))
def test_mel_and_hertz_are_inverse(hertz: float) -> None:
    assert float(melscale.hertz_of(melscale.mel_of(hertz))) == pytest.approx(hertz, abs=1e-6)
    assert float(melscale.mel_of(1000)) == pytest.approx(1000, rel=1e-3)


def test_the_same_sound_at_another_rate_has_nearly_the_same_frames() -> None:
    low, high = (melscale.log_mel(tone(700, r), r).mean(0) for r in (8000, 16000))
    assert low.argmax() == high.argmax()
    assert abs(low.max() - (high.max() - math.log(2))) < 0.1  # twice the samples, twice the power


def test_it_is_the_same_at_any_thread_count() -> None:
    noise = np.random.default_rng(0).standard_normal(4000)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = melscale.log_mel(noise, RATE)
        torch.set_num_threads(2)
        assert np.array_equal(one, melscale.log_mel(noise, RATE))
    finally:
        torch.set_num_threads(before)


def test_sound_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ModelwrightError, match=r"6000 samples a second hold .* up to 3000 Hz"):
        melscale.log_mel(np.zeros(1000), 6000)
    with pytest.raises(ModelwrightError, match=r"samples of shape \(2, 5\), mono"):
        melscale.log_mel(np.zeros((2, 5)), 8000)
