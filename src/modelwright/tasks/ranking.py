"""How well what is meant is found: recall@k, MRR and nDCG@10, and BM25 to stand beside.

With r the rank, from 1, of the best of the meant texts of a query among all texts:

    recall@k = [r <= k],   MRR = 1 / r,   nDCG@10 = DCG / the greatest DCG,
    DCG = sum over meant texts of rank <= 10 of 1 / log2(rank + 1)

each the mean over queries (Järvelin and Kekäläinen 2002 for nDCG).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from modelwright.tasks.grading import words

AT = (1, 5, 10)
DEEP = 10  # of nDCG

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]


def ranks(scores: Floats, meant: Sequence[Sequence[int]]) -> list[NDArray[np.int64]]:
    """The ranks, from 1 and rising, of the meant texts of each query among all, (texts,) scores.

    Equal scores do not help: a text is ranked behind all others of its score.
    """
    found = []
    for row, wanted in zip(scores, meant, strict=True):
        own = np.zeros(len(row), dtype=np.bool_)
        own[list(wanted)] = True
        order = np.lexsort((own, -row))  # by falling score, the meant ones last among equals
        found.append(np.flatnonzero(own[order]) + 1)
    return found


def measured(found: Sequence[NDArray[np.int64]]) -> Mapping[str, Floats]:
    """Every measure of every query, by name: (queries,) each."""
    best = np.array([r[0] for r in found], dtype=np.float64)
    gains = [(1 / np.log2(r[r <= DEEP] + 1)).sum() for r in found]
    ideal = [(1 / np.log2(np.arange(1, min(len(r), DEEP) + 1) + 1)).sum() for r in found]
    return {
        f"nDCG@{DEEP}": np.array(gains) / np.array(ideal),
        "MRR": 1 / best,
        **{f"recall@{k}": (best <= k).astype(np.float64) for k in AT},
    }


def bm25(
    queries: Sequence[str], passages: Sequence[str], *, k: float = 1.2, b: float = 0.75
) -> Floats:
    """Okapi BM25 over words, (queries, texts) (Robertson and Zaragoza 2009).

    score(q, d) = sum over words w of q of idf(w) f (k + 1) / (f + k (1 - b + b |d| / mean |d|)),
    idf(w) = ln(1 + (N - n + 0.5) / (n + 0.5)), f the count of w in d, n the texts that have w.
    """
    places, sizes = _places(passages)
    norm = k * (1 - b + b * sizes / max(sizes.mean(), 1.0))
    total = len(passages)

    def weight(at: Numbers, count: Floats) -> Floats:
        idf = np.log(1 + (total - len(at) + 0.5) / (len(at) + 0.5))
        return np.asarray(idf * count * (k + 1) / (count + norm[at]))

    weights = {word: (at, weight(at, count)) for word, (at, count) in places.items()}
    return _summed(queries, weights, total)


def tf_idf(queries: Sequence[str], passages: Sequence[str]) -> Floats:
    """Cosines of TF-IDF vectors of words, (queries, texts), but for the length of the query's.

    Weights are (1 + ln f) (1 + ln((1 + N) / (1 + n))). A query's length orders nothing.
    """
    places, sizes = _places(passages)
    total = len(passages)

    def idf(texts: int) -> float:
        return float(1 + np.log((1 + total) / (1 + texts)))

    weights = {w: (at, (1 + np.log(count)) * idf(len(at))) for w, (at, count) in places.items()}
    squares = np.zeros(len(sizes))
    for at, weight in weights.values():
        squares[at] += weight**2
    asked = {w: (at, weight * idf(len(at))) for w, (at, weight) in weights.items()}
    return _summed(queries, asked, total) / np.sqrt(np.maximum(squares, 1e-12))


def _places(passages: Sequence[str]) -> tuple[dict[str, tuple[Numbers, Floats]], Floats]:
    """Of every word the texts that have it and how often, and the number of words of each text."""
    held = [Counter(words(text)) for text in passages]
    places: dict[str, list[tuple[int, int]]] = {}
    for i, counts in enumerate(held):
        for word, count in counts.items():
            places.setdefault(word, []).append((i, count))
    tables = {
        word: (np.array([i for i, _ in of]), np.array([n for _, n in of], dtype=np.float64))
        for word, of in places.items()
    }
    return tables, np.array([sum(c.values()) for c in held], dtype=np.float64)


def _summed(
    queries: Sequence[str], weights: Mapping[str, tuple[Numbers, Floats]], total: int
) -> Floats:
    found = np.zeros((len(queries), total))
    for row, text in zip(found, queries, strict=True):
        for word, times in Counter(words(text)).items():
            if word in weights:
                at, weight = weights[word]
                row[at] += times * weight
    return found
