"""Prefix beam search against the sum over every path, with and without a language model."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.ngram import NGram
from modelwright.data.prefix_beams import Prefix, Search


def scores_of(seed: int, frames: int) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(0, 2, (frames, 3))
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def exact(scores: np.ndarray) -> dict[tuple[int, ...], float]:
    found: dict[tuple[int, ...], float] = defaultdict(float)
    for path in itertools.product(range(3), repeat=len(scores)):
        letters = tuple(c for c, _ in itertools.groupby(path) if c)
        found[letters] += math.exp(sum(scores[t, c] for t, c in enumerate(path)))
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_with_room_for_all_it_finds_the_likeliest_transcript(seed: int, frames: int) -> None:
    scores = scores_of(seed, frames)
    shares = exact(scores)
    found = tuple(Search(1000, 0).best(scores))
    assert shares[found] >= max(shares.values()) * (1 - 1e-2)  # unlikely letters are passed over


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 2), st.floats(-1, 1))
def test_a_language_model_and_a_bonus_weigh_as_they_say(
    seed: int, weight: float, bonus: float
) -> None:
    scores = scores_of(seed, 4)
    likes = np.log(np.array([1e-9, 0.9, 0.1]))

    def language(prefix: Prefix) -> np.ndarray:
        return likes if len(prefix) % 2 == 0 else likes[[0, 2, 1]]

    def worth(letters: tuple[int, ...], share: float) -> float:
        prior = sum(weight * language(letters[:i])[c] + bonus for i, c in enumerate(letters))
        return math.log(share) + prior

    shares = exact(scores)
    best = max(worth(letters, share) for letters, share in shares.items())
    found = tuple(Search(1000, 0, weight, bonus).best(scores, language))
    assert worth(found, shares[found]) >= best - 1e-2


def test_a_language_model_decides_between_equal_sounds() -> None:
    model = NGram(3).fit([bytes([1, 2, 1, 2, 1, 2])] * 5)

    def language(prefix: Prefix) -> np.ndarray:
        shares = model.distribution(bytes(prefix))[:3]
        return np.log(shares / shares.sum())

    even = np.log(np.array([[0.02, 0.49, 0.49], [0.96, 0.02, 0.02], [0.02, 0.49, 0.49]]))
    assert Search(8, 0, 1.0).best(even, language) == [1, 2]


def test_a_model_of_counted_ngrams_is_the_same() -> None:
    model = NGram(4).fit([b"hello hello", b"help"])
    assert model.counted is not None
    again = NGram(4).restored(*model.counted)
    assert np.array_equal(again.distribution(b"hel"), model.distribution(b"hel"))
