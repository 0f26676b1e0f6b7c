"""How answers to questions about passages are graded, as SQuAD and CMRC 2018 do it.

SQuAD (arXiv:1606.05250): letters are lower-cased, punctuation and the words a, an and the left out;
then an answer matches exactly or not, and F1 is of the words that it shares with the reference, the
best over all references. CMRC 2018 (arXiv:1810.07366): a Chinese character is a word, and shared is
the longest run of words that both have. The latter is taken where a reference has Chinese.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

_CHINESE = re.compile("[㐀-鿿豈-﫿]")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_SEGMENTS = re.compile(r"[㐀-鿿豈-﫿]|[^\s㐀-鿿豈-﫿]+")


def normalised(text: str) -> list[str]:
    """The words that count."""
    kept = "".join(" " * (c == "-") if _is_mark(c) else c for c in text.lower())
    return _SEGMENTS.findall(_ARTICLES.sub(" ", kept))


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] == "P"


def exact(references: Sequence[str], answer: str) -> float:
    """1 if the answer is one of the references, else 0; without references, if nothing is said."""
    if not references:
        return float(not answer)
    said = normalised(answer)
    return float(any(normalised(reference) == said for reference in references))


def best_f1(references: Sequence[str], answer: str) -> float:
    """F1 of the words, the best over the references; without any, 1 if nothing is said."""
    if not references:
        return float(not answer)
    said = normalised(answer)
    return max(_f1(reference, said) for reference in references)


def _f1(reference: str, said: list[str]) -> float:
    meant = normalised(reference)
    if not meant or not said:
        return float(meant == said)
    if _CHINESE.search(reference):
        shared = _longest_run(meant, said)
    else:
        shared = sum((Counter(meant) & Counter(said)).values())
    return 2 * shared / (len(meant) + len(said))


def _longest_run(one: Sequence[str], other: Sequence[str]) -> int:
    """The most neighbours that stand in both, in the same order."""
    best, before = 0, [0] * (len(other) + 1)
    for word in one:
        now = [0] * (len(other) + 1)
        for at, against in enumerate(other, start=1):
            if word == against:
                now[at] = before[at - 1] + 1
        best, before = max(best, *now), now
    return best
