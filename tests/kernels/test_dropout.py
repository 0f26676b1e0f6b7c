"""Dropout with a hashed mask: its share, its independence, its gradient, its seed."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.kernels.dropout import Dropout, available

needs_kernel = pytest.mark.skipif(not available(), reason="no AVX-512 BF16 or no C++ compiler here")
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


@dtypes
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_and_scale(dtype: torch.dtype, p: float) -> None:
    torch.manual_seed(3)
    out = Dropout(p)(torch.ones(1000, 1000, dtype=dtype))
    kept = out != 0
    deviation = math.sqrt(p * (1 - p) / out.numel())
    assert abs(float(kept.double().mean()) - (1 - p)) < 5 * deviation
    assert float(out[kept].double().min()) == pytest.approx(1 / (1 - p), rel=0.01)


@needs_kernel
@pytest.mark.parametrize("shift", [1, 2, 16, 17, 1024, 65536])
def test_positions_are_independent(shift: int) -> None:
    """Of two positions both are dropped as often as chance would have it."""
    torch.manual_seed(5)
    dropped = (Dropout(0.3)(torch.ones(1 << 20)) == 0).double()
    together = float((dropped[:-shift] * dropped[shift:]).mean())
    deviation = math.sqrt(0.09 * 0.91 / len(dropped)) * 2  # overlapping pairs: twice, to be safe
    assert abs(together - 0.09) < 5 * deviation


@needs_kernel
def test_seeds_are_independent() -> None:
    torch.manual_seed(6)
    drop, ones = Dropout(0.3), torch.ones(1 << 20)
    a, b = (drop(ones) == 0).double(), (drop(ones) == 0).double()
    assert abs(float((a * b).mean()) - 0.09) < 5 * math.sqrt(0.09 * 0.91 / len(a))


@dtypes
@settings(deadline=None, max_examples=20)
@given(count=st.integers(0, 70))
def test_gradient_has_the_same_mask(dtype: torch.dtype, count: int) -> None:
    x = torch.linspace(1, 2, count, dtype=dtype).requires_grad_()
    out = Dropout(0.4)(x)
    out.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x.detach(), out.detach(), rtol=0.02, atol=0)


@needs_kernel
def test_generator_decides_and_threads_do_not() -> None:
    x, drop, before = torch.ones(5000), Dropout(0.5), torch.get_num_threads()
    torch.manual_seed(1)
    first = drop(x)
    try:
        torch.set_num_threads(1)
        torch.manual_seed(1)
        assert torch.equal(drop(x), first)
    finally:
        torch.set_num_threads(before)
    assert not torch.equal(drop(x), first)


def test_off_in_evaluation_and_at_zero() -> None:
    x = torch.ones(100)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x
