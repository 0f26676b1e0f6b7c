"""How far a recording is from another, by mel-cepstral distortion, and how long making it took."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from modelwright.data.melscale import log_mel
from modelwright.data.sounds import resampled
from modelwright.tasks.task import Measured
from modelwright.types import Array, Sound, Turn

RATE = 16_000  # both are compared at this rate, so that figures mean the same everywhere
BANDS = 80
COEFFICIENTS = 24  # without the first, which is the loudness
DECIBELS = 10 / math.log(10) * math.sqrt(2)


def cepstra(sound: Sound) -> Array:
    """Mel-cepstra c_1 .. c_24 (T, 24) of windows of 25 ms every 10 ms.

    c_k = (2 / M) Σ_m log s_m cos(π k (m + 1/2) / M) of the magnitudes s_m of M = 80 mel bands up
    to 8 kHz: the coefficients with which log s_m ~ c_0 / 2 + Σ_k c_k cos(π k (m + 1/2) / M).
    """
    samples = resampled(sound.samples, sound.rate, RATE)
    sizes = 0.5 * log_mel(samples, RATE, bands=BANDS, highest=RATE / 2).astype(np.float64)
    angles = np.pi * np.outer(np.arange(1, COEFFICIENTS + 1), np.arange(BANDS) + 0.5) / BANDS
    found: Array = sizes @ np.cos(angles).T * (2 / BANDS)
    return found


def mel_cepstral_distortion(one: Sound, other: Sound, *, warped: bool = False) -> float:
    """The mean over frames of (10 / ln 10) sqrt(2 Σ_k (c_k - c'_k)^2), in dB.

    The measure of Kubichek (1993). The cepstra are those of ``cepstra``, not mel-generalised ones
    of a vocoder such as WORLD, so figures compare only with others of this program.

    Args:
        one: a recording.
        other: another, as long, unless they are warped.
        warped: frames are paired by dynamic time warping, of texts that are spoken at another
            pace; the mean is then over the pairs.
    """
    a, b = cepstra(one), cepstra(other)
    if not warped:
        both = min(len(a), len(b))
        return float(DECIBELS * np.linalg.norm(a[:both] - b[:both], axis=1).mean())
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return float(DECIBELS * _warped_mean(np.sqrt(np.maximum(squares, 0.0))))


def _warped_mean(distances: Array) -> float:
    """The mean distance along the cheapest path of steps (1, 0), (0, 1) and (1, 1).

    Anti-diagonals are filled at once: a cell needs only cells of the two before its own.
    """
    rows, columns = distances.shape
    cost = np.full((rows + 1, columns + 1), np.inf)
    steps = np.zeros((rows + 1, columns + 1))
    cost[0, 0] = 0.0
    for diagonal in range(2, rows + columns + 1):
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        before = np.stack((cost[i - 1, j - 1], cost[i - 1, j], cost[i, j - 1]))
        walked = np.stack((steps[i - 1, j - 1], steps[i - 1, j], steps[i, j - 1]))
        best = before.argmin(axis=0)[None]
        cost[i, j] = np.take_along_axis(before, best, 0)[0] + distances[i - 1, j - 1]
        steps[i, j] = np.take_along_axis(walked, best, 0)[0] + 1
    return float(cost[rows, columns] / steps[rows, columns])


def real_time_factor(seconds: float, answers: Sequence[Turn]) -> Measured:
    """Seconds of work for a second of sound."""
    made = sum(turn.sound.seconds for turn in answers)
    return Measured(
        "real-time factor",
        seconds / max(made, 1e-9),
        "lower",
        f"seconds of work a second of sound, {torch.get_num_threads()} threads; below 1 is faster "
        "than it is heard",
    )
