"""Walks against all walks there are; states that were hidden are found; real speech."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.data.alignment import Aligner, features, walks
from modelwright.data.codecs.waveforms import frames_of
from modelwright.data.sound_rows import recording, sound_rows
from modelwright.data.spectrograms import MelSettings
from modelwright.types import Array


def every_walk(frames: int, symbols: int) -> list[tuple[int, ...]]:
    """All ways to cut so many frames into so many pieces of at least one."""
    cuts = ((0, *c, frames) for c in combinations(range(1, frames), symbols - 1))
    return [tuple(np.diff(c).tolist()) for c in cuts]


@given(frames=st.integers(1, 8), symbols=st.integers(1, 8), seed=st.integers(0, 1000))
def test_the_walk_is_the_best_of_all(frames: int, symbols: int, seed: int) -> None:
    symbols = min(frames, symbols)
    scores = np.random.default_rng(seed).normal(size=(frames, symbols))

    def worth(durations: tuple[int, ...]) -> float:
        states = np.repeat(np.arange(symbols), durations)
        return float(scores[np.arange(frames), states].sum())

    padded = np.full((2, frames + 3, symbols + 2), 7.0)  # what lies beyond must not be looked at
    padded[0, :frames, :symbols] = scores
    found = walks(padded, np.array([frames, frames + 3]), np.array([symbols, symbols + 2]))[0]
    durations = tuple(found[:symbols].tolist())
    assert not found[symbols:].any()
    assert sum(durations) == frames
    assert min(durations) >= 1
    assert worth(durations) == pytest.approx(max(map(worth, every_walk(frames, symbols))))


def spoken(rng: np.random.Generator, voices: Array, count: int) -> tuple[list[Array], ...]:
    """Texts of random symbols with a silence around, their frames, and how long each lasts."""
    texts, frames, durations = [], [], []
    for _ in range(count):
        steps = rng.integers(
            1, len(voices) - 1, 8
        )  # no symbol beside itself: where it ends, who knows
        text = np.array([0, *(1 + steps.cumsum() % (len(voices) - 1)), 0])
        lasting = rng.integers(2, 9, len(text))
        made = np.repeat(voices[text], lasting, axis=0)
        texts.append(text)
        frames.append(made + 0.1 * rng.standard_normal(made.shape))
        durations.append(lasting)
    return texts, frames, durations


def test_states_that_made_the_frames_are_found() -> None:
    rng = np.random.default_rng(1)
    voices = rng.normal(size=(6, 20))
    voices[0] = -3.0  # silence is quieter than anything
    texts, frames, durations = spoken(rng, voices, 60)
    aligner = Aligner.fit(frames[:50], texts[:50], 6)
    found = [aligner.durations(f, t) for f, t in zip(frames[50:], texts[50:], strict=True)]
    apart = np.concatenate([np.abs(a - b) for a, b in zip(found, durations[50:], strict=True)])
    assert apart.mean() < 0.2  # frames; an even walk is far from it


def test_too_few_frames_are_given_out_evenly() -> None:
    rng = np.random.default_rng(1)
    texts, frames, _ = spoken(rng, rng.normal(size=(4, 10)), 5)
    aligner = Aligner.fit(frames, texts, 4)
    found = aligner.durations(frames[0][:6], np.array([0, 1, 2, 3, 1, 2, 3, 0]))
    assert found.sum() == 6
    assert found.min() >= 0


def test_in_real_speech_hisses_are_where_the_letter_s_is(data: Callable[[str], Path]) -> None:
    settings = MelSettings(16_000)
    alphabet = " abcdefghijklmnopqrstuvwxyz"
    texts, frames = [], []
    for row, _ in zip(sound_rows(data("kathleen")), range(60), strict=False):
        sound = recording(row)
        assert not isinstance(sound, str)
        letters = [alphabet.index(c) + 1 for c in row["text"].lower() if c in alphabet]
        texts.append(np.array([0, *letters, 0]))
        frames.append(frames_of(sound, settings))
    aligner = Aligner.fit(frames, texts, len(alphabet) + 1)
    gathered: dict[str, list[Array]] = {"s": [], "o": [], "#": []}
    for f, t in zip(frames, texts, strict=True):
        names = np.array([alphabet[c - 1] if c else "#" for c in t])
        at = np.repeat(names, aligner.durations(f, t))
        for name, found in gathered.items():
            found.append(f[at == name])
    high = {k: np.concatenate(v)[:, 60:].mean() for k, v in gathered.items()}  # above 4 kHz
    low = {k: np.concatenate(v)[:, 5:15].mean() for k, v in gathered.items()}  # a voice's own
    assert high["s"] > high["o"] + 1 > high["#"] + 1
    assert low["o"] > low["s"] + 1
    assert low["o"] > low["#"] + 2


def test_features_of_a_steady_sound_do_not_differ_in_time() -> None:
    found = features(np.tile(np.linspace(0, 1, 16), (7, 1)))
    assert found.shape == (7, 26)
    assert np.allclose(found[:, 13:], 0)
    assert np.allclose(found[0, 0], 0.5)
