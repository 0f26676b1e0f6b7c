"""The answer to the most similar question: what must be beaten by whoever answers questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from modelwright.errors import ModelwrightError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class NearestAnswer:
    """The answer of the training question most like the one asked: a copy, not a thought.

    Likeness is the cosine of TF-IDF vectors over the character 2- to 4-grams of each word
    between single spaces: weight = tf · (ln((1 + N) / (1 + df)) + 1), as scikit-learn's
    ``TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4))`` has it. The earliest of equally
    near questions wins, and so does the first of all when nothing is shared.
    """

    def __init__(self) -> None:
        self._answers: list[str] = []
        self._column: dict[str, int] = {}  # n-gram -> column
        self._idf: Floats = np.zeros(0)
        # Inverted index: column c has the rows _rows[_start[c]:_start[c+1]] and their weights.
        self._start: Ints = np.zeros(1, dtype=np.int64)
        self._rows: Ints = np.zeros(0, dtype=np.int64)
        self._weights: Floats = np.zeros(0)

    def fit(self, questions: Sequence[str], answers: Sequence[str]) -> Self:
        """Index the questions; they replace any seen before."""
        if len(questions) != len(answers) or not questions:
            raise ModelwrightError(
                f"nearest-answer baseline: {len(questions)} questions and {len(answers)} answers; "
                "give one answer to each of at least one question"
            )
        self._answers = list(answers)
        column: dict[str, int] = {}
        rows, columns, counts = [], [], []
        for row, question in enumerate(questions):
            for gram, count in _grams(question).items():
                rows.append(row)
                columns.append(column.setdefault(gram, len(column)))
                counts.append(count)
        of_row = np.array(rows, dtype=np.int64)
        of_column = np.array(columns, dtype=np.int64)
        df = np.bincount(of_column, minlength=len(column))
        self._idf = np.log((1 + len(questions)) / (1 + df)) + 1
        weights = np.array(counts, dtype=np.float64) * self._idf[of_column]
        norm = np.sqrt(np.bincount(of_row, weights * weights, minlength=len(questions)))
        order = np.argsort(of_column, kind="stable")
        self._column = column
        self._start = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(df)])
        self._rows = of_row[order]
        self._weights = (weights / norm[of_row])[order]
        return self

    def scores(self, question: str) -> Floats:
        """Cosine (N,) with every training question, times the norm of the question asked."""
        if not self._answers:
            raise ModelwrightError("nearest-answer baseline: no questions yet; call fit first")
        scores = np.zeros(len(self._answers))
        for gram, count in _grams(question).items():
            c = self._column.get(gram)
            if c is not None:
                inside = slice(self._start[c], self._start[c + 1])
                # A row stands once in a column, so plain indexing adds all of it.
                scores[self._rows[inside]] += count * self._idf[c] * self._weights[inside]
        return scores

    def answer(self, question: str) -> str:
        """The answer to the nearest training question."""
        return self._answers[int(np.argmax(self.scores(question)))]


def _grams(text: str) -> Counter[str]:
    """Character 2- to 4-grams within the lower-cased words, each word between two spaces."""
    found: Counter[str] = Counter()
    for word in text.lower().split():
        padded = f" {word} "
        for n in (2, 3, 4):
            found.update(padded[i : i + n] for i in range(len(padded) - n + 1))
    return found
