"""Norm, sum and activation in one: the same as PyTorch's operations, forward and backward."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modelwright.kernels import batch_norm
from modelwright.kernels.batch_norm import Act, available, fits
from modelwright.models.images import BatchNorm, ConvNorm, norm_layer, normed

pytestmark = pytest.mark.skipif(not available(), reason="no AVX-512 BF16 or no C++ compiler here")
BF16 = torch.bfloat16


def planes(*shape: int) -> Tensor:
    return torch.randn(shape).to(BF16).to(memory_format=torch.channels_last)


def passed(
    x: Tensor, added: Tensor | None, act: Act, *, kernel: bool, threads: int = 1
) -> list[Tensor]:
    """Result, gradients and running statistics by the kernel, or by PyTorch in float64."""
    torch.manual_seed(1)
    channels = x.shape[1]
    norm = BatchNorm(channels)
    torch.nn.init.uniform_(norm.weight, -1, 2)
    torch.nn.init.normal_(norm.bias)
    kind = BF16 if kernel else torch.float64
    norm = norm if kernel else norm.double()
    leaves = [t.detach().to(kind).requires_grad_() for t in (x, added) if t is not None]
    statistics = statistics_of(norm)
    weight = torch.linspace(-1, 2, x.numel()).view(x.shape).to(BF16)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        other = leaves[1] if added is not None else None
        assert fits(leaves[0], act, other, norm.weight, norm.bias, *statistics) == kernel
        y = norm(leaves[0], act, other)
        torch.autograd.backward(y, weight.to(kind))
    finally:
        torch.set_num_threads(before)
    slopes = [p.grad for p in (*leaves, norm.weight, norm.bias)]
    return [t.detach() for t in (y, *slopes, *statistics) if t is not None]


def statistics_of(norm: BatchNorm) -> tuple[Tensor, Tensor]:
    return norm.get_buffer("running_mean"), norm.get_buffer("running_var")


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 150), st.integers(2, 9), st.integers(1, 9)),
    act=st.sampled_from(["none", "relu", "gelu"]),
    summed=st.booleans(),
    far=st.sampled_from([0.0, 100.0]),
)
def test_the_kernel_is_torchs_norm(
    shape: tuple[int, int, int, int], act: Act, summed: bool, far: float
) -> None:
    torch.manual_seed(sum(shape))
    x = (planes(*shape) + far).contiguous(memory_format=torch.channels_last)
    added = planes(*shape) if summed and act != "gelu" else None
    ours = passed(x, added, act, kernel=True)
    theirs = passed(x, added, act, kernel=False)
    assert ours[0].is_contiguous(memory_format=torch.channels_last)
    wide = 0.05 if act == "relu" else 0.02  # a value near zero may fall on either side
    for one, other in zip(ours, theirs, strict=True):
        scale = max(1.0, float(other.abs().max()))
        difference = (one.double() - other).abs() / scale
        assert float(difference.mean()) <= 0.004
        if act != "relu":
            assert float(difference.max()) <= wide


def test_sums_of_float32_lose_nothing_to_a_far_mean() -> None:
    torch.manual_seed(0)
    x = (planes(16, 24, 14, 14) + 1000).contiguous(memory_format=torch.channels_last)
    ours, theirs = (passed(x, None, "none", kernel=k) for k in (True, False))
    assert torch.allclose(ours[-2].double(), theirs[-2], rtol=1e-6)
    assert torch.allclose(ours[-1].double(), theirs[-1], rtol=1e-4)


def test_threads_do_not_decide() -> None:
    torch.manual_seed(1)
    x, added = planes(6, 70, 17, 19), planes(6, 70, 17, 19)
    for act, other in (("relu", added), ("relu", None), ("gelu", None)):
        first, *rest = (passed(x, other, act, kernel=True, threads=t) for t in (1, 2, 3))  # type: ignore[arg-type]
        for found in rest:
            assert all(torch.equal(a, b) for a, b in zip(first, found, strict=True))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("act", ["relu", "gelu"])
def test_what_is_not_finite_is_seen_and_leaves_the_statistics(bad: float, act: Act) -> None:
    x = planes(4, 20, 3, 3)
    x[0, 17, 0, 0] = bad
    norm = BatchNorm(20)
    y = norm(x, act)
    assert y[:, 17].isnan().any()
    assert y[:, :17].isfinite().all()
    mean, variance = statistics_of(norm)
    assert mean[17] == 0
    assert variance[17] == 1
    assert (mean[:17] != 0).all()
    assert norm.num_batches_tracked == 1


def test_the_gelu_is_the_exact_one_of_every_number() -> None:
    x = torch.linspace(-1, 1, 20_001).to(BF16).view(1, 1, -1, 1)
    norm = BatchNorm(1)
    torch.nn.init.constant_(norm.weight, 7.0)
    y = norm(x, "gelu")
    seen = x.double()
    u = 7 * (seen - seen.mean()) / seen.std(correction=0)
    assert float(u.max()) > 12
    wanted, half = torch.nn.functional.gelu(u), 2.0**-8  # of a unit in the last place
    assert ((y.detach().double() - wanted).abs() <= half * wanted.abs() + 1e-5).all()


@pytest.mark.parametrize("kind", ["batch", "group"])
def test_every_norm_takes_the_sum_and_the_activation(kind: str) -> None:
    norm = norm_layer(kind, 8)  # type: ignore[arg-type]
    x, added = torch.randn(3, 8, 5, 5), torch.randn(3, 8, 5, 5)
    wanted = torch.relu(norm(x) + added)
    assert torch.equal(normed(norm, x, "relu", added), wanted)
    assert torch.equal(normed(norm.eval(), x, "gelu"), torch.nn.functional.gelu(norm(x)))


def test_no_gradient_of_a_small_convolution_leaves_channels_last() -> None:
    layer = ConvNorm(16, 24, 1, stride=2)
    x = torch.randn(2, 16, 9, 9).to(memory_format=torch.channels_last).requires_grad_()
    seen: list[Tensor] = []
    x.register_hook(seen.append)  # type: ignore[no-untyped-call]
    y = layer(x * 1)
    assert torch.equal(layer.conv(x), layer._convolved(x))
    y.square().sum().backward()
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_where_the_kernel_cannot_go_the_operators_do(monkeypatch: pytest.MonkeyPatch) -> None:
    x, norm = planes(4, 8, 5, 5), BatchNorm(8)
    statistics = (norm.weight, norm.bias, *statistics_of(norm))
    assert fits(x, "relu", None, *statistics)
    assert not fits(x.float(), "relu", None, *statistics)
    assert not fits(x.contiguous(), "relu", None, *statistics)
    assert not fits(x, "relu", x.contiguous(), *statistics)
    assert not fits(x, "gelu", x, *statistics)
    assert not fits(x[:0], "relu", None, *statistics)
    monkeypatch.setattr(batch_norm, "available", lambda: False)
    assert not fits(x, "relu", None, *statistics)
