"""How much a stretch of a passage has in common with a question: counts, no learning.

A word of the question weighs by how rare it is in the passage (Richardson et al. 2013):

    ic(w) = log(1 + 1 / C(w)),   C(w) how often w stands in the passage.

These weights make the sliding-window baseline, and tell a reader that learns from few questions
which words of the passage the question names (Chen et al. 2017 call that exact match).
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from modelwright.data.word_bounds import word_bounds
from modelwright.types import Array

Floats = NDArray[np.float64]
WINDOW = 12  # words to both sides that ``levels`` looks at
LEVELS = 8  # of overlap
MATCHES = 3  # a word is not in the question, is in it and common in the passage, or rare
KINDS = 1 + MATCHES * LEVELS  # of tokens: a question's, and those of a passage
_RARE = 2  # times that a word stands in the passage at most


def lowered(text: str, bounds: Array) -> list[str]:
    """The words of a text, lower-cased, as ``word_bounds`` has them."""
    return [text[a:b].lower() for a, b in bounds.tolist()]


def is_mark(word: str) -> bool:
    """Whether a word is punctuation or a sign."""
    return all(unicodedata.category(c)[0] in "PSZC" for c in word)


def weights(words: Sequence[str], asked: Iterable[str]) -> Floats:
    """The ic of every word of a passage that the question has, 0 for others and marks: (words,)."""
    count = Counter(words)
    wanted = {word for word in asked if not is_mark(word)}
    found = {word: np.log1p(1 / count[word]) for word in wanted & count.keys()}
    return np.array([found.get(word, 0.0) for word in words], dtype=np.float64)


def levels(passage: str, question: str, places: Array) -> Array:
    """What every token of a passage is to the question: uint8 (T,), 1 to KINDS - 1.

    Of the word that a token begins in: whether the question has it, and how much of the question's
    weight stands within WINDOW words of it, in LEVELS steps up to the most of any word.

    Args:
        passage: its text.
        question: its text.
        places: the characters of every token, (T, 2).
    """
    bounds = word_bounds(passage)
    if not len(bounds) or not len(places):
        return np.ones(len(places), dtype=np.uint8)
    words = lowered(passage, bounds)
    found = weights(words, lowered(question, word_bounds(question)))
    count = Counter(words)
    rare = np.array([count[word] <= _RARE for word in words])
    match = np.where(found > 0, 1 + rare, 0)
    total = np.append(0.0, np.cumsum(found))
    at = np.arange(len(words))
    near = total[np.minimum(at + WINDOW + 1, len(words))] - total[np.maximum(at - WINDOW, 0)]
    most = near.max()
    level = np.zeros(len(words), dtype=np.int64)
    if most > 0:
        level = np.minimum((near / most * LEVELS).astype(np.int64), LEVELS - 1)
    word = np.minimum(np.searchsorted(bounds[:, 1], places[:, 0], side="right"), len(words) - 1)
    kinds: Array = (1 + match * LEVELS + level)[word].astype(np.uint8)
    return kinds
