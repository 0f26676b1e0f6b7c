"""Probabilities from a classifier that has not seen the row: logistic regression in folds.

Quick, without seed in its optimisation (the loss is convex), good enough to rank labels; a
stronger model's own out-of-fold probabilities can always be given instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag

from modelwright.errors import ModelwrightError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
STEPS = 60  # of L-BFGS: ranks settle long before the last digit of the loss
LARGEST = 1 << 23  # weights of the folds that are fitted at once


@dataclass(frozen=True, eq=False)
class Sparse:
    """Rows of few features: row i has ``columns[offsets[i]:offsets[i + 1]]`` with ``values``.

    ``columns`` int64 and ``values`` float32 (entries,), ``offsets`` int64 (rows + 1,),
    ``width`` the number of features.
    """

    columns: Ints
    values: NDArray[np.float32]
    offsets: Ints
    width: int


Features = Sparse | NDArray[np.float32]
Product = Callable[[Tensor], Tensor]


def out_of_fold(
    features: Features,
    given: Ints,
    labels: int,
    folds: Ints,
    *,
    strength: float = 1.0,
) -> Floats:
    """Probabilities (rows, labels) of each row from the other folds' rows.

    For each fold f minimises Σ_{i not in f} cross-entropy + ||W||² / (2 strength) by L-BFGS from
    zero. Folds share the passes over the features, which is what the time goes into.

    Args:
        features: a Sparse, or float32 (rows, width).
        given: int64 (rows,), the labels as they are.
        labels: how many there are.
        folds: int64 (rows,), any numbers; equal ones are held out together.
        strength: inverse of the penalty, as scikit-learn's C.

    Raises:
        ModelwrightError: fewer than two folds.
    """
    names, fold = np.unique(folds, return_inverse=True)
    if len(names) < 2:
        raise ModelwrightError("out-of-fold probabilities: at least 2 folds are needed; give more")
    rows, width = len(given), _width(features)
    forward, backward = _products(features)
    target = torch.from_numpy(given)
    found = torch.zeros(rows, labels)
    at_once = max(1, min(len(names), LARGEST // max(1, width * labels)))
    for first in range(0, len(names), at_once):
        held = [torch.from_numpy(fold == f) for f in range(first, min(first + at_once, len(names)))]
        logits = _fit(
            forward, backward, target, held=held, width=width, labels=labels, strength=strength
        )
        for f, mask in enumerate(held):
            found[mask] = logits[mask, f].softmax(dim=1)
    result: Floats = found.double().numpy()
    result /= result.sum(axis=1, keepdims=True)
    return result


def _fit(
    forward: Product,
    backward: Product,
    target: Tensor,
    *,
    held: list[Tensor],
    width: int,
    labels: int,
    strength: float,
) -> Tensor:
    """Logits (rows, folds, labels) of the models that each leave one of ``held`` out."""
    folds, rows = len(held), len(target)
    used = torch.stack([~mask for mask in held], dim=1).float()[:, :, None]
    counts = used.sum(dim=0, keepdim=True).clamp(min=1)
    weight = torch.zeros(width, folds * labels)
    bias = torch.zeros(folds * labels)
    hot = torch.nn.functional.one_hot(target, labels).float()[:, None, :]
    penalty = 1 / (strength * counts.reshape(folds, 1).expand(folds, labels).reshape(-1))
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=STEPS,
        tolerance_grad=1e-6,
        tolerance_change=1e-9,
        history_size=6,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        logits = (forward(weight) + bias).view(rows, folds, labels)
        log = logits.log_softmax(dim=2)
        loss = -(log * hot * used / counts).sum() + 0.5 * (penalty * weight.square()).sum()
        slope = ((log.exp() - hot) * used / counts).view(rows, folds * labels)
        weight.grad = backward(slope) + penalty * weight
        bias.grad = slope.sum(dim=0)
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return (forward(weight) + bias).view(rows, folds, labels)


def _width(features: Features) -> int:
    return features.width if isinstance(features, Sparse) else int(features.shape[1])


def _products(features: Features) -> tuple[Product, Product]:
    """X @ W and X.T @ G; of a sparse X both are sums of rows, which embedding bags do."""
    if not isinstance(features, Sparse):
        dense = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))
        return dense.mm, dense.T.mm
    rows = np.repeat(np.arange(len(features.offsets) - 1), np.diff(features.offsets))
    order = np.argsort(features.columns, kind="stable")
    starts = np.searchsorted(features.columns[order], np.arange(features.width + 1))
    there = _bags(features.columns, features.offsets, features.values)
    back = _bags(rows[order], starts, features.values[order])
    return there, back


def _bags(columns: Any, offsets: Any, values: Any) -> Product:
    index, start, share = (torch.from_numpy(a) for a in (columns, offsets, values))

    def product(table: Tensor) -> Tensor:
        return embedding_bag(
            index, table, start, mode="sum", per_sample_weights=share, include_last_offset=True
        )

    return product
