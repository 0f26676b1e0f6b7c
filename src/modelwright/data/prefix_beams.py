"""Prefix beam search: the likeliest transcript of all paths, with a language model if there is one.

Of every prefix l the probability of the frames so far is kept apart for paths that end with a
blank, b(l), and with its last letter, n(l); each frame extends them (Graves 2012, Hannun et al.
2014, arXiv:1408.2873). Kept are the prefixes with the highest

    log(b(l) + n(l)) + α log p_LM(l) + β |l|.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from modelwright.types import Array

UNLIKELY = -8.0  # log-probability below which a letter is not looked at in a frame
Prefix = tuple[int, ...]
Language = Callable[[Prefix], Array]  # log-probabilities of every letter after a prefix


@dataclass(frozen=True)
class Search:
    """How a transcript is looked for.

    Attributes:
        beams: prefixes that are kept.
        blank: the number of the blank.
        weight: α, of the language model.
        bonus: β, for every letter: a language model alone prefers short texts.
    """

    beams: int
    blank: int
    weight: float = 0.0
    bonus: float = 0.0

    def best(self, scores: Array, language: Language | None = None) -> list[int]:
        """The letters of the best prefix for log-probabilities ``scores`` (T, letters)."""
        kept: dict[Prefix, tuple[float, float]] = {(): (0.0, -math.inf)}
        prior: dict[Prefix, float] = {(): 0.0}
        follow: dict[Prefix, Array] = {}
        for frame in np.asarray(scores, dtype=np.float64):
            likely = [int(c) for c in np.flatnonzero(frame > UNLIKELY)] or [int(frame.argmax())]
            found: dict[Prefix, tuple[float, float]] = {}
            for prefix, (blank, letter) in kept.items():
                whole = _sum(blank, letter)
                for c in likely:
                    p = float(frame[c])
                    if c == self.blank:
                        _add(found, prefix, whole + p, -math.inf)
                        continue
                    longer: Prefix = (*prefix, c)
                    if prefix and prefix[-1] == c:
                        _add(found, prefix, -math.inf, letter + p)  # the same letter goes on
                        _add(found, longer, -math.inf, blank + p)  # a new one, after a blank
                    else:
                        _add(found, longer, -math.inf, whole + p)
                    if longer not in prior:
                        prior[longer] = prior[prefix] + self._added(prefix, c, language, follow)
            order = sorted(found, key=lambda q: -(_sum(*found[q]) + prior[q]))
            kept = {prefix: found[prefix] for prefix in order[: self.beams]}
        best: Prefix = max(kept, key=lambda q: _sum(*kept[q]) + prior[q])
        return list(best)

    def _added(
        self, prefix: Prefix, c: int, language: Language | None, follow: dict[Prefix, Array]
    ) -> float:
        if language is None or not self.weight:
            return self.bonus
        if prefix not in follow:
            follow[prefix] = language(prefix)
        return self.weight * float(follow[prefix][c]) + self.bonus


def _sum(a: float, b: float) -> float:
    """log(e^a + e^b)."""
    high, low = max(a, b), min(a, b)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def _add(found: dict[Prefix, tuple[float, float]], at: Prefix, blank: float, letter: float) -> None:
    b, n = found.get(at, (-math.inf, -math.inf))
    found[at] = (_sum(b, blank), _sum(n, letter))
