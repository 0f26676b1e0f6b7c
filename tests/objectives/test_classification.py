"""Cross-entropy of labels: the formulas, and the cases at the edge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.objectives.classification import Objective
from modelwright.types import Columns


class Given(nn.Module):
    """A model whose logits are its input."""

    def forward(self, logits: Tensor) -> Tensor:
        return logits


class Passing:
    """A codec that passes logits and labels through."""

    ragged: tuple[str, ...] = ()

    def tensors(self, columns: Columns) -> dict[str, Tensor]:
        return {k: torch.as_tensor(np.asarray(v)) for k, v in columns.items()}


def cost(logits: np.ndarray, label: list[int], **options: object) -> tuple[float, int]:
    objective = Objective(Passing(), **options)  # type: ignore[arg-type]
    columns = {"logits": logits.astype(np.float32), "label": np.array(label, dtype=np.int64)}
    batch = objective.collate(columns, torch.Generator())
    return float(objective.loss(Given(), batch)), batch.count


@settings(max_examples=40, deadline=None)
@given(
    classes=st.integers(2, 6),
    rows=st.integers(1, 5),
    smoothing=st.sampled_from([0.0, 0.1, 0.5]),
    seed=st.integers(0, 2**31),
)
def test_softmax_cross_entropy(classes: int, rows: int, smoothing: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    z, y = 3 * rng.standard_normal((rows, classes)), rng.integers(classes, size=rows)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    q = (1 - smoothing) * np.eye(classes)[y] + smoothing / classes
    loss, count = cost(z, y.tolist(), label_smoothing=smoothing)
    assert loss == pytest.approx(-(q * np.log(p)).sum(), rel=1e-4, abs=1e-5)
    assert count == rows


@settings(max_examples=40, deadline=None)
@given(
    outputs=st.integers(1, 4),
    rows=st.integers(1, 5),
    smoothing=st.sampled_from([0.0, 0.1, 0.5]),
    seed=st.integers(0, 2**31),
)
def test_sigmoid_cross_entropy(outputs: int, rows: int, smoothing: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    z, y = 3 * rng.standard_normal((rows, outputs)), rng.integers(max(2, outputs), size=rows)
    target = y[:, None].astype(float) if outputs == 1 else np.eye(outputs)[y]
    q = (1 - smoothing) * target + smoothing / 2
    s = 1 / (1 + np.exp(-z))
    loss, _ = cost(z, y.tolist(), label_smoothing=smoothing, sigmoid=True)
    assert loss == pytest.approx(-(q * np.log(s) + (1 - q) * np.log(1 - s)).sum(), rel=1e-4)


def test_one_output_is_the_softmax_of_two_with_the_first_at_zero() -> None:
    z, y = np.array([[1.5], [-0.3]]), [0, 1]
    two = np.concatenate([np.zeros_like(z), z], axis=1)
    assert cost(z, y)[0] == pytest.approx(cost(two, y)[0], rel=1e-6)


def test_large_logits_stay_finite() -> None:
    assert cost(np.array([[1e4], [-1e4]]), [0, 1]) == (pytest.approx(2e4), 2)
    assert cost(np.array([[1e4, -1e4]]), [1]) == (pytest.approx(2e4), 1)


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_rows_without_a_label_cost_and_count_nothing(columns: int, smoothing: float) -> None:
    z = np.random.default_rng(0).standard_normal((3, columns))
    some, count = cost(z, [1, -1, 0], label_smoothing=smoothing)
    assert (some, count) == (
        pytest.approx(cost(z[[0, 2]], [1, 0], label_smoothing=smoothing)[0]),
        2,
    )
    assert cost(z, [-1, -1, -1], label_smoothing=smoothing) == (0.0, 0)


def test_more_labels_than_outputs_are_refused() -> None:
    with pytest.raises(ModelwrightError, match=r"label number 3, but the model has 2 outputs"):
        cost(np.zeros((2, 2)), [0, 3])
    with pytest.raises(ModelwrightError, match=r"label number 2, but the model has 1 output"):
        cost(np.zeros((2, 1)), [0, 2])


def test_the_smoothing_must_be_a_share() -> None:
    with pytest.raises(ModelwrightError, match=r"label_smoothing 1.0 is not in \[0, 1\)"):
        Objective(Passing(), label_smoothing=1.0)  # type: ignore[arg-type]
