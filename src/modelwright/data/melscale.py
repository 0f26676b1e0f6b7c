"""Sound to log-mel frames: what a recogniser of speech sees instead of samples.

Windows of 25 ms every 10 ms, a Hann window, the power spectrum, triangular filters whose centres
are evenly spaced on the mel scale of pitch, and the logarithm of each filter's power.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from modelwright.errors import ModelwrightError
from modelwright.types import Array

WINDOW_SECONDS = 0.025
HOP_SECONDS = 0.010
FLOOR = 1e-6  # power added before the logarithm: -60 dB below a full-scale signal of power 1


def mel_of(hertz: Array | float) -> Array:
    """Pitch m = 2595 log10(1 + f / 700), the form of the HTK book (Young et al.)."""
    return np.asarray(2595.0 * np.log10(1.0 + np.asarray(hertz) / 700.0))


def hertz_of(mel: Array | float) -> Array:
    """Frequency f = 700 (10^(m / 2595) - 1), the inverse of ``mel_of``."""
    return np.asarray(700.0 * (10.0 ** (np.asarray(mel) / 2595.0) - 1.0))


def log_mel(samples: Array, rate: int, *, bands: int = 128, highest: float = 4000.0) -> Array:
    """Log-mel frames (time, ``bands``), float32: log(1e-6 + filters @ power), in nats.

    Args:
        samples: mono sound (n,) in [-1, 1]; less than one window is padded with silence.
        rate: samples a second.
        bands: number of filters.
        highest: upper edge of the last filter in hertz. It does not follow ``rate``, so that
            recordings of different rates give the same features.

    Raises:
        ModelwrightError: not mono sound, or ``rate`` too low to hold frequencies to ``highest``.
    """
    if rate < 2 * highest:
        raise ModelwrightError(
            f"sound: {rate} samples a second hold frequencies up to {rate / 2:g} Hz, less than"
            f" highest={highest:g}; lower it to {rate / 2:g} for all recordings"
        )
    size = transform_size(rate, bands, highest)
    power = power_spectrum(samples, rate, size)
    banded = power @ mel_filters(rate, size, bands, highest).T
    return np.log(FLOOR + banded).astype(np.float32)


def power_spectrum(samples: Array, rate: int, size: int) -> Array:
    """Power |FFT|^2 / Σ window^2 of each window, (time, size / 2 + 1), float64.

    White noise of variance v has the expected power v in every bin. By Parseval, the mean of all
    ``size`` bins (inner ones count twice) times Σ window^2 is Σ (window * samples)^2.
    """
    sound = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float64))
    if sound.ndim != 1:
        raise ModelwrightError(f"sound: samples of shape {tuple(sound.shape)}, mono (n,) is meant")
    window = window_of(rate)
    hop = max(1, round(HOP_SECONDS * rate))
    short = len(window) - len(sound)
    if short > 0:
        sound = torch.nn.functional.pad(sound, (0, short))
    spectrum = torch.fft.rfft(sound.unfold(0, len(window), hop) * window, n=size)
    power: Array = (spectrum.abs().square() / window.square().sum()).numpy()
    return power


def window_of(rate: int) -> torch.Tensor:
    """The periodic Hann window sin^2(π i / n) of 25 ms, float64."""
    return torch.hann_window(max(2, round(WINDOW_SECONDS * rate)), dtype=torch.float64)


@lru_cache(maxsize=16)
def mel_filters(rate: int, size: int, bands: int, highest: float) -> Array:
    """Triangles (bands, size / 2 + 1) of height 1 between neighbouring centres.

    Band i rises from centre i - 1 to centre i and falls to centre i + 1, in hertz; the centres
    0, ..., bands + 1 are evenly spaced in mel from 0 Hz to ``highest``.
    """
    edges = _edges(bands, highest)[:, None]
    bins = np.arange(size // 2 + 1) * (rate / size)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters: Array = np.maximum(0.0, np.minimum(rising, falling))
    return filters


def _edges(bands: int, highest: float) -> Array:
    return hertz_of(np.linspace(0.0, float(mel_of(highest)), bands + 2))


def transform_size(rate: int, bands: int, highest: float) -> int:
    """The power of two that holds a window and puts a bin inside every filter.

    Many narrow bands need more bins than a window has samples; silence after the window gives
    them, by interpolating the spectrum.
    """
    narrowest = float(np.diff(_edges(bands, highest)).min())
    needed = max(len(window_of(rate)), rate / narrowest)
    return int(2 ** np.ceil(np.log2(needed)))


def product(x: Tensor, y: Tensor) -> Tensor:
    """X y in the numbers' own precision, also where a model around it computes in fewer bits.

    Features are part of the data: validation under bfloat16 hears what training heard.
    """
    if not torch.is_autocast_enabled(x.device.type):
        return x @ y
    with torch.autocast(x.device.type, enabled=False):
        return x @ y
