"""How answers are graded: pure functions of a reference and an answer."""

from __future__ import annotations

import re
from collections import Counter

_WORDS = re.compile(r"[㐀-鿿豈-﫿]|[^\W㐀-鿿豈-﫿]+")
_ENDED = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*")


def words(text: str) -> list[str]:
    """Lower-cased words; a Chinese character is a word of its own."""
    return _WORDS.findall(text.lower())


def sentences(text: str) -> list[str]:
    """The sentences of a text, by the marks that end them."""
    return [part.strip() for part in _ENDED.split(text) if part.strip()]


def token_f1(reference: str, answer: str) -> float:
    """Harmonic mean of precision and recall of the answer's words, with multiplicity."""
    a, b = Counter(words(reference)), Counter(words(answer))
    if not a or not b:
        return float(a == b)
    common = sum((a & b).values())
    return 2 * common / (sum(a.values()) + sum(b.values()))
