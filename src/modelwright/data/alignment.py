"""Which frames each character of a text takes, found from recordings and their texts alone.

A text is a chain of states, one for each of its symbols, each a normal distribution of the sound's
cepstra; a recording walks through all of them in order and stays at least one frame in each. From
an even walk on, two things are done in turn (Viterbi training, or segmental k-means: Juang and
Rabiner 1990): the distributions are fitted to the frames that walks give them, and the likeliest
walks are found again. A symbol is another state before another symbol, as far as there are frames
enough: its mean is drawn towards that of the symbol alone (maximum a posteriori).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelwright.types import Array

CEPSTRA = 13  # of a frame, and as many differences to the frames beside it
ROUNDS = (8, 6)  # with states of symbols alone, and then of symbols before another
WEIGHT = 10.0  # frames that the mean of a symbol alone counts for
LEAST_VARIANCE = 0.02  # of the variance of all frames: no state is surer of itself
AT_ONCE = 64  # recordings walked through together: 200 MB of scores where they last 20 s


def features(frames: Array) -> Array:
    """Cepstra of log-mel frames (T, bands) and their differences, (T, 26) float64."""
    bands = frames.shape[1]
    waves = np.cos(np.pi * np.outer(np.arange(CEPSTRA), np.arange(bands) + 0.5) / bands)
    cepstra = frames.astype(np.float64) @ waves.T / bands
    around = np.concatenate((cepstra[:1], cepstra, cepstra[-1:]))
    found: Array = np.concatenate((cepstra, (around[2:] - around[:-2]) / 2), axis=1)
    return found


def walks(scores: Array, frames: Array, symbols: Array) -> Array:
    """Frames in each state (B, S) int32 of the best walks from the first state to the last.

    Args:
        scores: log-likelihoods (B, T, S) of every frame in every state.
        frames: how many there are of each row, (B,); at least as many as symbols.
        symbols: how many states each row has, (B,).
    """
    rows, total, states = scores.shape
    best = np.full((rows, states), -np.inf)
    best[:, 0] = scores[:, 0, 0]
    moved = np.zeros((total, rows, states), np.bool_)
    for t in range(1, total):
        before = np.concatenate((np.full((rows, 1), -np.inf), best[:, :-1]), axis=1)
        moved[t] = before > best
        best = np.maximum(best, before) + scores[:, t]
    durations = np.zeros((rows, states), np.int32)
    every, at = np.arange(rows), symbols - 1
    for t in range(total - 1, -1, -1):
        here = t < frames
        durations[every, at] += here
        at = np.where(here & moved[t, every, at], at - 1, at)
    return durations


class Aligner:
    """The states: ``means`` and ``variances`` (states, 26), and which pairs have one of their own.

    State n < ``alone`` is the symbol n before any other; state ``alone`` + i is that of
    ``pairs`` (n, 2), row i: a symbol and the one after it.
    """

    def __init__(self, means: Array, variances: Array, pairs: Array) -> None:
        self.means, self.variances, self.pairs = means, variances, pairs
        self.alone = len(means) - len(pairs)
        self._states = {(int(a), int(b)): self.alone + i for i, (a, b) in enumerate(pairs)}

    @classmethod
    def fit(cls, frames: Sequence[Array], texts: Sequence[Array], symbols: int) -> Aligner:
        """Fit the states to recordings with their texts.

        Args:
            frames: log-mel (T, bands) of each.
            texts: the numbers of the symbols of each, fewer than its frames; the first and the
                last one stand for the silence around it.
            symbols: how many symbols there are.
        """
        seen = [features(f) for f in frames]
        walked = [_even(f, len(t)) for f, t in zip(seen, texts, strict=True)]
        everything = np.concatenate(seen)
        spread = everything.var(axis=0) + 1e-8
        start = np.tile(everything.mean(axis=0), (symbols, 1))
        found = cls(start, np.tile(spread, (symbols, 1)), np.zeros((0, 2), np.int64))
        for rounds, in_pairs in zip(ROUNDS, (False, True), strict=True):
            for _ in range(rounds):
                found = found._refitted(seen, texts, walked, spread, in_pairs=in_pairs)
                walked = found._walked(seen, texts)
        return found

    def durations(self, frames: Array, text: Array) -> Array:
        """Frames of each symbol of a text, int32, in log-mel frames (T, bands) that speak it.

        With fewer frames than symbols there is no walk, and they are given out evenly.
        """
        if len(frames) < len(text):
            return _even(features(frames), len(text))
        return self._walked([features(frames)], [text])[0]

    def _numbered(self, text: Array) -> Array:
        """The state of every symbol of a text."""
        follows = np.append(text[1:], -1)
        pairs = zip(text.tolist(), follows.tolist(), strict=True)
        return np.array([self._states.get(pair, pair[0]) for pair in pairs], np.int64)

    def _walked(self, seen: Sequence[Array], texts: Sequence[Array]) -> list[Array]:
        order = np.argsort([len(f) for f in seen], kind="stable")
        found: list[Array] = [np.zeros(0, np.int32)] * len(seen)
        for first in range(0, len(order), AT_ONCE):
            rows = order[first : first + AT_ONCE]
            total, states = (max(len(of[r]) for r in rows) for of in (seen, texts))
            scores = np.full((len(rows), total, states), -1e9)
            for i, r in enumerate(rows):
                scores[i, : len(seen[r]), : len(texts[r])] = self._scores(seen[r], texts[r])
            sizes = [np.array([len(of[r]) for r in rows]) for of in (seen, texts)]
            for r, path in zip(rows, walks(scores, *sizes), strict=True):
                found[r] = path[: len(texts[r])]
        return found

    def _scores(self, seen: Array, text: Array) -> Array:
        """Log-likelihoods (T, S), without what is the same of all states."""
        numbers = self._numbered(text)
        weights = 1 / self.variances[numbers]
        means = self.means[numbers]
        inner = seen**2 @ weights.T - 2 * seen @ (means * weights).T
        constant = (means**2 * weights - np.log(weights)).sum(axis=1)
        found: Array = -0.5 * (inner + constant)
        return found

    def _refitted(
        self,
        seen: Sequence[Array],
        texts: Sequence[Array],
        walked: Sequence[Array],
        spread: Array,
        *,
        in_pairs: bool,
    ) -> Aligner:
        """The states that fit the frames that the walks give them."""
        every = np.concatenate(seen)
        symbols = np.concatenate([np.repeat(t, d) for t, d in zip(texts, walked, strict=True)])
        least = LEAST_VARIANCE * spread
        means, variances = _moments(every, symbols, self.alone, self.means[: self.alone], spread)
        variances = np.maximum(variances, least)
        pairs = np.zeros((0, 2), np.int64)
        if in_pairs:
            follows = np.concatenate(
                [np.repeat(np.append(t[1:], -1), d) for t, d in zip(texts, walked, strict=True)]
            )
            both = np.stack((symbols, follows), axis=1)
            pairs, which = np.unique(both, axis=0, return_inverse=True)
            sums = np.zeros((len(pairs), every.shape[1]))
            np.add.at(sums, which.ravel(), every)
            counts = np.bincount(which.ravel(), minlength=len(pairs))[:, None]
            drawn = (sums + WEIGHT * means[pairs[:, 0]]) / (counts + WEIGHT)
            means = np.concatenate((means, drawn))
            variances = np.concatenate((variances, variances[pairs[:, 0]]))
        return Aligner(means, variances, pairs)


def _moments(
    every: Array, numbers: Array, states: int, means: Array, spread: Array
) -> tuple[Array, Array]:
    """Mean and variance of the frames of each state; one without frames keeps its mean."""
    counts = np.bincount(numbers, minlength=states)[:, None]
    sums, squares = (np.zeros((states, every.shape[1])) for _ in range(2))
    np.add.at(sums, numbers, every)
    found = np.where(counts > 0, sums / np.maximum(counts, 1), means)
    np.add.at(squares, numbers, (every - found[numbers]) ** 2)
    return found, np.where(counts > 1, squares / np.maximum(counts, 1), spread)


def _even(seen: Array, symbols: int) -> Array:
    """A walk that gives quiet frames at both ends to the outer symbols, the others alike."""
    loudness = seen[:, 0]
    low, high = np.percentile(loudness, (5, 95))
    loud = np.flatnonzero(loudness > (low + high) / 2)
    first, last = (int(loud[0]), int(loud[-1]) + 1) if len(loud) else (1, len(seen) - 1)
    inner = symbols - 2
    if symbols < 3 or min(last - first, len(seen) - 2) < inner:  # too short for that
        return np.diff(np.arange(symbols + 1) * len(seen) // symbols).astype(np.int32)
    first = min(max(first, 1), len(seen) - inner - 1)
    last = max(min(last, len(seen) - 1), first + inner)
    cuts = first + np.arange(inner + 1) * (last - first) // inner
    edges = np.concatenate(([0], cuts, [len(seen)]))
    return np.diff(edges).astype(np.int32)
