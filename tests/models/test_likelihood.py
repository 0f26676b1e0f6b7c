"""The fused head is the plain cross-entropy, in value and in gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modelwright.models import likelihood
from modelwright.models.likelihood import linear_cross_entropy


def plain(hidden: Tensor, weight: Tensor, targets: Tensor, cap: float) -> Tensor:
    logits = hidden @ weight.T
    capped = cap * torch.tanh(logits / cap) if cap else logits
    return F.cross_entropy(capped, targets, reduction="sum")


def leaves(rows: int, width: int, vocabulary: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    hidden = torch.randn(rows, width, requires_grad=True)
    weight = torch.randn(vocabulary, width, requires_grad=True)
    return hidden, weight, torch.randint(0, vocabulary, (rows,))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 200),
    st.integers(1, 16),
    st.integers(2, 60),
    st.sampled_from([0.0, 5.0, 15.0]),
    st.integers(0, 99),
)
def test_value_and_gradient_equal_the_plain_ones(
    rows: int, width: int, vocabulary: int, cap: float, seed: int
) -> None:
    hidden, weight, targets = leaves(rows, width, vocabulary, seed)
    wanted = plain(hidden, weight, targets, cap)
    wanted_grads = torch.autograd.grad(3 * wanted, [hidden, weight])
    found = linear_cross_entropy(hidden, weight, targets, cap)
    found_grads = torch.autograd.grad(3 * found, [hidden, weight])
    assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-3)
    for one, other in zip(found_grads, wanted_grads, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, targets = leaves(300, 8, 40, 0)
    whole = linear_cross_entropy(hidden, weight, targets, 15.0)
    whole_grad = torch.autograd.grad(whole, hidden)[0]
    monkeypatch.setattr(likelihood, "CHUNK_BYTES", 4 * 40 * 70)  # 70 rows a chunk, then 20
    cut = linear_cross_entropy(hidden, weight, targets, 15.0)
    assert torch.allclose(cut, whole, rtol=1e-6)
    assert torch.allclose(torch.autograd.grad(cut, hidden)[0], whole_grad, atol=1e-6)


def test_without_gradients_the_value_is_the_same() -> None:
    hidden, weight, targets = leaves(90, 8, 40, 1)
    with torch.inference_mode():
        found = linear_cross_entropy(hidden, weight, targets, 15.0)
    assert torch.allclose(found, plain(hidden, weight, targets, 15.0), rtol=1e-5)


def test_bfloat16_is_near_float32() -> None:
    hidden, weight, targets = leaves(128, 16, 64, 2)
    exact = torch.autograd.grad(plain(hidden, weight, targets, 15.0), weight)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = linear_cross_entropy(hidden, weight, targets, 15.0)
    near = torch.autograd.grad(loss, weight)[0]
    assert near.dtype == torch.float32
    assert (near - exact).norm() / exact.norm() < 0.02
