"""The fused head is plain cross-entropy: its value and both gradients, at every chunk border."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modelwright.models import likelihood
from modelwright.models.likelihood import linear_cross_entropy, token_log_probabilities

caps = st.sampled_from([0.0, 0.5, 5.0, 15.0])


def parts(rows: int, width: int, vocabulary: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, width, generator=generator)
    weight = torch.randn(vocabulary, width, generator=generator)
    targets = torch.randint(vocabulary, (rows,), generator=generator)
    return hidden.requires_grad_(), weight.requires_grad_(), targets


def plain(hidden: Tensor, weight: Tensor, targets: Tensor, cap: float) -> Tensor:
    """The formula as the textbook has it, all logits at once."""
    logits = (hidden @ weight.T).float()
    logits = cap * torch.tanh(logits / cap) if cap else logits
    return F.cross_entropy(logits, targets, reduction="sum")


def gradients(loss: Tensor, *of: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, of)


@given(
    shape=st.tuples(st.integers(1, 200), st.integers(1, 12), st.integers(1, 50)), cap=caps,
    seed=st.integers(0, 99), scale=st.sampled_from([1.0, 0.01, -3.0]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_value_and_gradients_are_those_of_plain_cross_entropy(
    shape: tuple[int, int, int], cap: float, seed: int, scale: float
) -> None:
    rows, width, vocabulary = shape
    hidden, weight, targets = parts(rows, width, vocabulary, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likelihood, "CHUNK_BYTES", 4 * vocabulary * 70)  # several chunks of 70 rows
        ours = linear_cross_entropy(hidden, weight, targets, cap)
        mine = gradients(scale * ours, hidden, weight)
        with torch.no_grad():
            silent = linear_cross_entropy(hidden, weight, targets, cap)
    theirs = plain(hidden, weight, targets, cap)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(silent, theirs, rtol=1e-5, atol=1e-4)
    for a, b in zip(mine, gradients(scale * theirs, hidden, weight), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cap", [0.0, 15.0])
@pytest.mark.parametrize("rows", [1, 63, 64, 65, 127, 128, 129, 192])
def test_chunk_borders_change_nothing(
    monkeypatch: pytest.MonkeyPatch, rows: int, cap: float
) -> None:
    """64 rows are the smallest chunk: below, at and beyond its borders."""
    hidden, weight, targets = parts(rows, 8, 30, rows)
    whole = linear_cross_entropy(hidden, weight, targets, cap)
    whole_gradients = gradients(whole, hidden, weight)
    monkeypatch.setattr(likelihood, "CHUNK_BYTES", 1)
    cut = linear_cross_entropy(hidden, weight, targets, cap)
    torch.testing.assert_close(cut, whole, rtol=1e-6, atol=1e-5)
    for a, b in zip(gradients(cut, hidden, weight), whole_gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cap", [0.0, 15.0])
def test_in_bfloat16_it_is_as_near_as_bfloat16_is(cap: float) -> None:
    hidden, weight, targets = parts(150, 32, 200, 4)
    exact = plain(hidden, weight, targets, cap)
    exact_gradients = gradients(exact, hidden, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = linear_cross_entropy(hidden, weight, targets, cap)
        with torch.no_grad():
            silent = linear_cross_entropy(hidden, weight, targets, cap)
    assert ours.dtype == silent.dtype == torch.float32
    torch.testing.assert_close(ours, exact, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(silent, ours, rtol=1e-3, atol=1e-2)
    for a, b in zip(gradients(ours, hidden, weight), exact_gradients, strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() < 0.02 * b.norm()


def test_large_logits_stay_finite() -> None:
    hidden, weight, targets = parts(5, 4, 9, 0)
    hidden, weight = (1e4 * hidden).detach().requires_grad_(), (1e4 * weight).detach()
    loss = linear_cross_entropy(hidden, weight.requires_grad_(), targets, 0.0)
    assert loss.isfinite()
    assert all(g.isfinite().all() for g in gradients(loss, hidden, weight))


def test_a_sum_over_rows() -> None:
    hidden, weight, targets = parts(90, 6, 20, 7)
    whole = linear_cross_entropy(hidden, weight, targets, 15.0)
    pieces = [
        linear_cross_entropy(hidden[a:b], weight, targets[a:b], 15.0)
        for a, b in ((0, 1), (1, 50), (50, 90))
    ]
    torch.testing.assert_close(whole, torch.stack(pieces).sum(), rtol=1e-6, atol=1e-4)


@given(
    shape=st.tuples(st.integers(1, 200), st.integers(1, 12), st.integers(1, 50)), cap=caps,
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_every_row_is_given_its_own_weight(
    shape: tuple[int, int, int], cap: float, seed: int
) -> None:
    hidden, weight, targets = parts(*shape, seed)
    logits = (hidden @ weight.T).float()
    logits = cap * torch.tanh(logits / cap) if cap else logits
    plainly = logits.log_softmax(1).gather(1, targets[:, None])[:, 0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likelihood, "CHUNK_BYTES", 4 * shape[2] * 70)
        ours = token_log_probabilities(hidden, weight, targets, cap)
        mine = gradients(ours.square().sum(), hidden, weight)
        frozen = token_log_probabilities(hidden, weight.detach(), targets, cap)
        alone = gradients(frozen.square().sum(), hidden)
    torch.testing.assert_close(ours, plainly, rtol=1e-5, atol=1e-4)
    theirs = gradients(plainly.square().sum(), hidden, weight)
    for a, b in zip((*mine, *alone), (*theirs, theirs[0]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("cap", [0.0, 15.0])
def test_rows_in_bfloat16_are_as_near_as_bfloat16_is(cap: float) -> None:
    hidden, weight, targets = parts(1100, 32, 200, 4)  # more than a chunk of the kernel's
    exact = plain(hidden, weight, targets, cap)
    exact_gradients = gradients(exact, hidden, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = -token_log_probabilities(hidden, weight, targets, cap)
        with torch.no_grad():
            silent = -token_log_probabilities(hidden, weight, targets, cap)
    assert ours.dtype == silent.dtype == torch.float32
    assert torch.equal(ours, silent)
    torch.testing.assert_close(ours.sum(), exact, rtol=1e-2, atol=1e-2)
    for a, b in zip(gradients(ours.sum(), hidden, weight), exact_gradients, strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() < 0.02 * b.norm()


@pytest.mark.parametrize("narrow", [False, True])
def test_a_frozen_head_costs_no_gradient_and_changes_none(narrow: bool) -> None:
    hidden, weight, targets = parts(150, 32, 200, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=narrow):
        trained = linear_cross_entropy(hidden, weight, targets, 15.0)
        frozen = linear_cross_entropy(hidden, weight.detach(), targets, 15.0)
    assert torch.equal(trained, frozen)
    kept = {t.numel() for t in frozen.grad_fn.saved_tensors}  # type: ignore[union-attr]
    assert weight.numel() not in kept
    assert torch.equal(gradients(frozen, hidden)[0], gradients(trained, hidden)[0])
