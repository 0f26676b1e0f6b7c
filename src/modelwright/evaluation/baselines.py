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
from modelwright.data.nearest import NearestAnswer
from modelwright.data.ngram import NGram
from modelwright.errors import ModelwrightError
from modelwright.types import Array

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
