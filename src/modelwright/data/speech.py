"""Sound as published speech models read it: Whisper's log-mel frames, wav2vec2's samples.

The filters are those of Slaney's Auditory Toolbox: centres on a scale that is linear up to 1 kHz
and logarithmic above, triangles of area 1. ``melscale.py`` has the other common scale.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from modelwright.data.melscale import product
from modelwright.errors import ModelwrightError
from modelwright.types import Array

RATE = 16_000  # samples a second of all these models
WINDOW, HOP = 400, 160  # samples: 25 ms every 10 ms
HIGHEST = 8000.0  # hertz, the upper edge of the last filter
SECONDS = 30.0  # one window of Whisper
KNEE = 1000.0  # hertz, below which the scale is linear
PER_BAND = 200 / 3  # hertz of one step below the knee
STEP = np.log(6.4) / 27  # 27 steps from the knee to 6.4 times of it
FLOOR = 1e-10  # power
RANGE = 8.0  # tens: quieter than this below the loudest is cut off, 80 dB
VARIANCE_FLOOR = 1e-7


def whisper_frames(
    samples: Array, rate: int, *, bands: int = 80, seconds: float = SECONDS
) -> Array:
    """Log-mel frames (``bands``, 100 x ``seconds``), float32, of a window of sound.

    The window is cut, or padded with silence, to ``seconds``; windows of a Hann of 400 samples
    every 160 (the sound mirrored at both ends), power, filters, log10 of at least 1e-10, raised
    to 8 below the largest, and then (x + 4) / 4 (arXiv:2212.04356, section 2.2).

    Args:
        samples: mono sound (n,) in [-1, 1].
        rate: samples a second; must be 16000.
        bands: 80, and 128 from large-v3 on.
        seconds: the length of a window; published models have 30.

    Raises:
        ModelwrightError: another rate, or not mono.
    """
    sound = torch.from_numpy(_checked(samples, rate))
    length = round(seconds * RATE)
    sound = torch.nn.functional.pad(sound[:length], (0, max(0, length - len(sound))))
    spectrum = torch.stft(sound, WINDOW, HOP, window=torch.hann_window(WINDOW), return_complex=True)
    power = spectrum[:, :-1].abs().square()
    banded = product(torch.from_numpy(slaney_filters(bands).astype(np.float32)), power)
    levels = banded.clamp(min=FLOOR).log10()
    levels = torch.maximum(levels, levels.max() - RANGE)
    frames: Array = ((levels + 4.0) / 4.0).numpy()
    return frames


def standardised(samples: Array, rate: int) -> Array:
    """Samples (n,) float32 less their mean, over sqrt(variance + 1e-7): wav2vec2's input.

    Raises:
        ModelwrightError: another rate than 16000, not mono, or no sample at all.
    """
    sound = _checked(samples, rate)
    if not len(sound):
        raise ModelwrightError("sound: no samples; leave the recording out")
    scaled: Array = (sound - sound.mean()) / np.sqrt(sound.var() + np.float32(VARIANCE_FLOOR))
    return scaled


def _checked(samples: Array, rate: int) -> Array:
    if rate != RATE:
        raise ModelwrightError(
            f"sound: {rate} samples a second, but speech models read {RATE}; resample it"
        )
    if np.ndim(samples) != 1:
        raise ModelwrightError(f"sound: samples of shape {np.shape(samples)}, mono (n,) is meant")
    sound: Array = np.ascontiguousarray(samples, dtype=np.float32)
    return sound


def slaney_of(hertz: Array | float) -> Array:
    """Pitch on Slaney's scale: f / (200 / 3) below 1 kHz, then a step for each 6.4^(1/27)."""
    f = np.asarray(hertz, dtype=np.float64)
    high = KNEE / PER_BAND + np.log(np.maximum(f, KNEE) / KNEE) / STEP
    return np.where(f < KNEE, f / PER_BAND, high)


def hertz_of(pitch: Array | float) -> Array:
    """The inverse of ``slaney_of``."""
    m = np.asarray(pitch, dtype=np.float64)
    knee = KNEE / PER_BAND
    return np.where(m < knee, m * PER_BAND, KNEE * np.exp(STEP * (np.maximum(m, knee) - knee)))


@lru_cache(maxsize=8)
def slaney_filters(bands: int) -> Array:
    """Triangles (bands, 201) over the bins of the spectrum, each of area 1 in hertz, float64."""
    edges = hertz_of(np.linspace(0.0, float(slaney_of(HIGHEST)), bands + 2))[:, None]
    bins = np.arange(WINDOW // 2 + 1) * (RATE / WINDOW)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    heights = 2.0 / (edges[2:] - edges[:-2])
    filters: Array = np.maximum(0.0, np.minimum(rising, falling)) * heights
    return filters
