"""The passes around matrix products: the same as PyTorch's operations, forward and backward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modelwright.kernels import elementwise
from modelwright.kernels.elementwise import available, mix, norm_rotate, relu_squared_, rms_norm
from modelwright.models.layers import Rotary

pytestmark = pytest.mark.skipif(not available(), reason="no AVX-512 BF16 or no C++ compiler here")
BF16 = torch.bfloat16
few = settings(deadline=None, max_examples=25)


def both(
    monkeypatch: pytest.MonkeyPatch, function: Callable[..., Tensor], *given: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Result and gradients by the kernel in the types given, and by PyTorch in float32."""
    found = []
    for kernel in (True, False):
        with monkeypatch.context() as patch:
            if not kernel:
                patch.setattr(elementwise, "_fits", lambda *_: False)
            leaves = [(x if kernel else x.float()).detach().clone().requires_grad_() for x in given]
            out = function(*leaves)
            weight = torch.linspace(-1, 2, out.numel()).view(out.shape).to(BF16).float()
            (out.float() * weight).sum().backward()
            found.append([out.detach(), *(x.grad for x in leaves if x.grad is not None)])
    return found[0], found[1]


def assert_close(ours: list[Tensor], theirs: list[Tensor], bound: float = 0.008) -> None:
    """Within a rounding of bfloat16 of the largest number, or of one; float32 sums far nearer."""
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        if other.numel():
            allowed = bound if one.dtype == BF16 else 1e-4
            difference = float((one.float() - other).abs().max())
            assert difference <= allowed * max(float(other.abs().max()), 1.0)


@few
@given(rows=st.integers(0, 70), width=st.integers(1, 70))
def test_rms_norm(rows: int, width: int) -> None:
    torch.manual_seed(rows * 71 + width)
    x, gain = torch.randn(rows, width).to(BF16), torch.randn(width)
    ours, theirs = both(pytest.MonkeyPatch(), lambda x, g: rms_norm(x, g, 1e-6), x, gain)
    assert ours[0].dtype == BF16
    assert_close(ours, theirs)


@few
@given(rows=st.integers(1, 70), width=st.integers(1, 70))
def test_a_wide_stream_feeds_narrow_products(rows: int, width: int) -> None:
    torch.manual_seed(rows * 71 + width)
    x, gain = torch.randn(rows, width), torch.randn(width)

    def narrow(x: Tensor, gain: Tensor) -> Tensor:
        with torch.autocast("cpu", BF16):
            return rms_norm(x, gain, 1e-6, feeds_product=True)

    ours, theirs = both(pytest.MonkeyPatch(), narrow, x, gain)
    assert ours[0].dtype == BF16
    assert ours[1].dtype == torch.float32
    assert_close(ours, theirs)


@few
@given(rows=st.integers(1, 40), heads=st.integers(1, 5), pairs=st.integers(1, 40))
def test_norm_and_rotation(rows: int, heads: int, pairs: int) -> None:
    torch.manual_seed(rows + 71 * heads + 1000 * pairs)
    x, gain = torch.randn(rows, heads, 2 * pairs).to(BF16), torch.randn(2 * pairs)
    tables = Rotary(2 * pairs, 64).tables(torch.randint(64, (rows,)))
    ours, theirs = both(
        pytest.MonkeyPatch(), lambda x, g: norm_rotate(x, g, 1e-6, *tables), x, gain
    )
    assert_close(ours, theirs, bound=0.016)


@few
@given(count=st.integers(0, 100))
def test_relu_squared(count: int) -> None:
    torch.manual_seed(count)

    def squared(x: Tensor) -> Tensor:
        return relu_squared_(x * 1)

    ours, theirs = both(pytest.MonkeyPatch(), squared, torch.randn(count).to(BF16))
    assert_close(ours, theirs)


@few
@given(rows=st.integers(1, 70), width=st.integers(1, 70), wide=st.booleans())
def test_mix(rows: int, width: int, wide: bool) -> None:
    torch.manual_seed(rows * 71 + width)
    x = torch.randn(rows, width).to(torch.float32 if wide else BF16)
    y, scales = torch.randn(rows, width), torch.randn(2)

    def mixed(scales: Tensor, x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast("cpu", BF16):
            return mix(scales, x, y)

    ours, theirs = both(pytest.MonkeyPatch(), mixed, scales, x, y)
    assert ours[0].dtype == x.dtype
    assert_close(ours, theirs)


def test_threads_do_not_decide() -> None:
    torch.manual_seed(1)
    x, gain = torch.randn(1000, 96).to(BF16), torch.randn(96)
    kept, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            leaf, weight = x.clone().requires_grad_(), gain.clone().requires_grad_()
            rms_norm(leaf, weight, 1e-6).sum().backward()
            kept.append((leaf.grad, weight.grad))
    finally:
        torch.set_num_threads(before)
    for found in kept[1:]:
        assert all(torch.equal(a, b) for a, b in zip(kept[0], found, strict=True))  # type: ignore[arg-type]


def test_a_nan_stays_one() -> None:
    """What hides it would hide a model that has gone wrong from the guard of its training."""
    x = torch.tensor([1.0, float("nan"), -2.0, float("inf")], dtype=BF16)
    assert relu_squared_(x).tolist()[2:] == [0.0, float("inf")]
    assert x.isnan().tolist() == [False, True, False, False]


def test_a_gain_of_another_width_is_refused() -> None:
    """As PyTorch does: nothing is read beside it."""
    with pytest.raises(RuntimeError):
        rms_norm(torch.randn(3, 32).to(BF16), torch.ones(16), 1e-6)


@pytest.mark.parametrize("rows", [3, 1])
def test_tables_of_one_row_for_many_go_pytorchs_way(rows: int) -> None:
    x, (cos, sin) = torch.randn(2, 3, 4, 8).to(BF16), Rotary(8, 64).tables(torch.arange(3)[:rows])
    whole = [t.expand(2, 3, 1, 4) for t in (cos, sin)]
    shared = norm_rotate(x, torch.ones(8), 1e-6, cos, sin)
    assert_close([shared], [norm_rotate(x, torch.ones(8), 1e-6, *whole).float()], bound=0.016)


def test_a_mix_of_other_shapes_goes_pytorchs_way() -> None:
    x, y = torch.randn(40, 48).to(BF16), torch.randn(1, 48).to(BF16)
    scales = torch.tensor([0.5, 2.0])
    torch.testing.assert_close(mix(scales, x, y), mix(scales, x, y.expand(40, 48)))


def test_parameters_that_lie_apart_are_read_where_they_lie() -> None:
    x, gains = torch.randn(4, 32).to(BF16), torch.randn(32, 3)
    ours = rms_norm(x, gains[:, 1], 1e-6)
    torch.testing.assert_close(ours, rms_norm(x, gains[:, 1].contiguous(), 1e-6))
