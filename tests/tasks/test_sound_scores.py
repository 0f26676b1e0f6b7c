"""Mel-cepstral distortion: zero where it must be, its formula, and warping against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.data.melscale import log_mel
from modelwright.tasks.sound_scores import (
    COEFFICIENTS,
    _warped_mean,
    cepstra,
    mel_cepstral_distortion,
)
from modelwright.types import Array, Sound

RATE = 16_000
RNG = np.random.default_rng(3)
NOISE = (RNG.standard_normal(8000) / 10).astype(np.float32)


def test_a_recording_is_no_distance_from_itself_nor_from_a_louder_one() -> None:
    sound = Sound(NOISE, RATE)
    assert mel_cepstral_distortion(sound, sound) == 0
    assert mel_cepstral_distortion(sound, sound, warped=True) == pytest.approx(0, abs=1e-4)
    louder = Sound(NOISE * 2, RATE)  # loudness is the coefficient that is left out
    assert mel_cepstral_distortion(sound, louder) < 0.05


def test_it_is_the_difference_of_smooth_spectra_in_decibels() -> None:
    """A spectrum that differs by one cosine of pitch of a dB is sqrt(1/2) dB away, by Parseval."""
    found = cepstra(Sound(NOISE, RATE))
    bands = np.arange(80) + 0.5
    sizes = 0.5 * log_mel(NOISE, RATE, bands=80, highest=8000.0)
    tilt = np.cos(np.pi * 3 * bands / 80) * np.log(10) / 20  # a cosine of 1 dB, in nats
    waves = np.cos(np.pi * np.outer(np.arange(1, COEFFICIENTS + 1), bands) / 80)
    tilted = (sizes + tilt) @ waves.T * (2 / 80)
    distance = 10 / np.log(10) * np.sqrt(2 * np.square(found - tilted).sum(axis=1))
    assert distance == pytest.approx(np.full(len(found), np.sqrt(0.5)), rel=1e-3)


def test_another_rate_is_compared_at_the_same_one() -> None:
    at = np.arange(8000) / 8000
    slow = Sound((np.sin(2 * np.pi * 500 * at) / 2).astype(np.float32), 8000)
    fast = np.sin(2 * np.pi * 500 * np.arange(16_000) / RATE) / 2
    assert mel_cepstral_distortion(slow, Sound(fast.astype(np.float32), RATE)) < 2


def test_a_slower_reading_is_near_by_warping_alone() -> None:
    pieces = [RNG.standard_normal(1600) * 0.1 for _ in range(2)]
    pieces[1] = np.convolve(pieces[1], np.ones(9) / 9, "same")
    one = Sound(np.concatenate(pieces).astype(np.float32), RATE)
    slow = Sound(np.concatenate([p for p in pieces for _ in range(2)]).astype(np.float32), RATE)
    plain = mel_cepstral_distortion(one, slow)
    assert mel_cepstral_distortion(one, slow, warped=True) < 0.6 * plain


def by_hand(distances: Array) -> float:
    """The same walk, cell by cell."""
    rows, columns = distances.shape
    best = {(0, 0): (float(distances[0, 0]), 1)}
    for i in range(rows):
        for j in range(columns):
            before = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
            known = [best[b] for b in before if b in best]
            if known:
                cost, steps = min(known, key=lambda k: k[0])
                best[i, j] = (cost + float(distances[i, j]), steps + 1)
    cost, steps = best[rows - 1, columns - 1]
    return cost / steps


@given(rows=st.integers(1, 9), columns=st.integers(1, 9), seed=st.integers(0, 500))
def test_warping_takes_the_cheapest_path(rows: int, columns: int, seed: int) -> None:
    distances = np.random.default_rng(seed).random((rows, columns))
    assert _warped_mean(distances) == pytest.approx(by_hand(distances))
