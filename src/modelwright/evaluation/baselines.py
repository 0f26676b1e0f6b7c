"""What a model must beat: compressors, counts, copies and a linear map. All deterministic."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from modelwright.data.moments import Moments
from modelwright.data.ngram import NGram
from modelwright.errors import ModelwrightError
from modelwright.types import Array

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

__all__ = [
    "LinearProbe",
    "Majority",
    "NGram",
    "NearestAnswer",
    "bag_of_frames",
    "gzip_bits_per_byte",
]


def gzip_bits_per_byte(data: bytes) -> float:
    """8 · len(gzip -9 of the data) / len(data): DEFLATE, RFC 1951, header and all."""
    if not data:
        raise ModelwrightError("gzip baseline: no bytes to compress; give at least one")
    return 8 * len(gzip.compress(data, 9, mtime=0)) / len(data)


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


WIDEST = 8192  # features of which the linear model looks at every pair: 0.5 GB


class Majority:
    """Always the most common label; of equally common ones, the first in order."""

    def __init__(self) -> None:
        self._label: str | None = None

    def fit(self, labels: Iterable[str]) -> Self:
        """Count the labels."""
        counts = Counter(labels)
        if not counts:
            raise ModelwrightError("majority baseline: no labels to count; give at least one")
        self._label = min(counts, key=lambda label: (-counts[label], label))
        return self

    def answer(self, question: object = None) -> str:  # noqa: ARG002 - it answers without looking
        """The most common label, whatever is asked."""
        if self._label is None:
            raise ModelwrightError("majority baseline: no labels yet; call fit first")
        return self._label


class LinearProbe:
    """Multinomial logistic regression on standardised features, fitted to convergence.

    Minimises mean cross-entropy(W x + b) + l2/2 · ||W||² over the whole set with L-BFGS (Liu and
    Nocedal 1989, strong Wolfe line search) from zero in float64: the loss is convex, so there
    is nothing to tune and no seed. The intercepts b are not penalised.

    It looks for V = W L instead, where L Lᵀ = XᵀX / (N K) + l2 · I is the curvature at the start,
    when each of K labels is as likely: neighbouring pixels say nearly the same, and without this
    the 3,072 of a small picture take a thousand steps where they now take some tens.
    """

    def __init__(self, l2: float = 1e-3) -> None:
        self.l2 = l2
        self._classes: Array = np.zeros(0)
        self._moments = Moments()
        self._weight = torch.zeros(0, 0, dtype=torch.float64)
        self._bias = torch.zeros(0, dtype=torch.float64)

    def fit(self, features: Array, labels: Sequence[str] | Sequence[int] | Array) -> Self:
        """Fit to ``features`` (N, F) and their N labels; mean and deviation come from here."""
        features = _matrix(features)
        if len(features) != len(labels) or not len(labels):
            raise ModelwrightError(
                f"linear baseline: {len(features)} rows of features and {len(labels)} labels; "
                "give one label to each of at least one row"
            )
        self._classes, indices = np.unique(np.asarray(labels), return_inverse=True)
        self._moments = Moments()
        self._moments.add(features)
        x, y = self._standardised(features), torch.from_numpy(indices.astype(np.int64))
        lower = self._root_of_curvature(x)
        if lower is not None:
            x = torch.linalg.solve_triangular(lower, x.T, upper=False).T
        turned = torch.zeros(len(self._classes), x.shape[1], dtype=torch.float64)
        bias = torch.zeros(len(self._classes), dtype=torch.float64)
        optimizer = torch.optim.LBFGS(
            [turned.requires_grad_(), bias.requires_grad_()],
            max_iter=1000,
            tolerance_grad=1e-7,
            tolerance_change=1e-12,
            line_search_fn="strong_wolfe",
        )

        def weight() -> torch.Tensor:
            if lower is None:
                return turned
            found: torch.Tensor = torch.linalg.solve_triangular(
                lower, turned, upper=False, left=False
            )
            return found

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(x @ turned.T + bias, y)
            loss = loss + self.l2 / 2 * weight().square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        self._weight, self._bias = weight().detach(), bias.detach()
        return self

    def predict(self, features: Array) -> Array:
        """The most likely label of each row of ``features`` (N, F)."""
        features = _matrix(features)
        if features.shape[1] != self._weight.shape[1]:
            raise ModelwrightError(
                f"linear baseline: rows of {features.shape[1]} features, but it was fitted on "
                f"{self._weight.shape[1]}; use the same features for both"
            )
        logits = self._standardised(features) @ self._weight.T + self._bias
        labels: Array = self._classes[logits.argmax(1).numpy()]
        return labels

    def _root_of_curvature(self, x: torch.Tensor) -> torch.Tensor | None:
        """L of the class's docstring (F, F); none where so many features would fill the memory."""
        if x.shape[1] > WIDEST:
            return None
        curvature = x.T @ x / (len(x) * len(self._classes))
        curvature.diagonal().add_(max(self.l2, 1e-6))  # a feature that never changes has none
        root: torch.Tensor = torch.linalg.cholesky(curvature)
        return root

    def _standardised(self, features: Array) -> torch.Tensor:
        """Zero mean and unit deviation on the train rows; constant features become 0."""
        mean, deviation = self._moments.scale()
        return torch.from_numpy((features - mean) / deviation)


def _matrix(features: Array) -> Floats:
    """Features as float64 (N, F), or an error that says what is wrong with them."""
    matrix = np.asarray(features, dtype=np.float64)
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise ModelwrightError(
            f"linear baseline: features of shape {matrix.shape}; "
            "give finite numbers (rows, features)"
        )
    return matrix


def bag_of_frames(frames: Array) -> Floats:
    """Mean and deviation over time of ``frames`` (time, F), joined to (2 F,): no order is left."""
    matrix = np.asarray(frames, dtype=np.float64)
    if matrix.ndim != 2 or not len(matrix):
        raise ModelwrightError(
            f"bag of frames: frames of shape {matrix.shape}; give (time, features), time >= 1"
        )
    return np.concatenate([matrix.mean(axis=0), matrix.std(axis=0)])
