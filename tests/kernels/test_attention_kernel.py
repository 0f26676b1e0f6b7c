"""The attention kernel against PyTorch's in float64: any documents, heads, widths."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from modelwright.kernels import attention
from modelwright.kernels.attention import packed_attention

needs_kernel = pytest.mark.skipif(
    not attention.available(), reason="no AVX-512 BF16 or no C++ compiler here"
)
lengths = st.lists(st.integers(0, 150), min_size=1, max_size=5).filter(sum)


def inputs(lengths: list[int], heads: int, kv_heads: int, width: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    rows = sum(lengths)
    shapes = [(rows, heads, width), (rows, kv_heads, width), (rows, kv_heads, width)]
    return [torch.randn(s, generator=generator).bfloat16() for s in [*shapes, shapes[0]]]


def bounds(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])


def results(
    tensors: list[Tensor], starts: Tensor, *, dtype: torch.dtype, causal: bool
) -> list[Tensor]:
    """Output and gradients of q, k, v."""
    q, k, v = (x.detach().to(dtype).clone().requires_grad_() for x in tensors[:3])
    out = packed_attention(q, k, v, starts, q.shape[-1] ** -0.5, causal=causal)
    out.backward(tensors[3].to(dtype))
    grads = [x.grad for x in (q, k, v)]
    assert all(g is not None for g in grads)
    return [out.detach(), *(g for g in grads if g is not None)]


@needs_kernel
@settings(deadline=None, max_examples=40)
@given(
    lengths=lengths,
    kv_heads=st.integers(1, 2),
    group=st.integers(1, 3),
    width=st.sampled_from([16, 48, 64, 128]),
    causal=st.booleans(),
)
@example(lengths=[1], kv_heads=1, group=1, width=16, causal=True)
@example(lengths=[64, 128, 65], kv_heads=2, group=2, width=64, causal=True)
@example(lengths=[129], kv_heads=1, group=1, width=64, causal=False)
def test_kernel_is_attention(
    lengths: list[int], kv_heads: int, group: int, width: int, causal: bool
) -> None:
    tensors, starts = inputs(lengths, kv_heads * group, kv_heads, width), bounds(lengths)
    assert attention.fits(tensors[0])
    ours = results(tensors, starts, dtype=torch.bfloat16, causal=causal)
    exact = results(tensors, starts, dtype=torch.float64, causal=causal)
    for got, wanted in zip(ours, exact, strict=True):
        # Rounding to bfloat16 (8 bits) of inputs, products and results.
        assert (got.double() - wanted).norm() <= 0.01 * wanted.norm() + 1e-3


@needs_kernel
def test_a_document_is_the_same_alone_and_among_others() -> None:
    tensors = inputs([37, 70, 5], 4, 2, 32)
    together = results(tensors, bounds([37, 70, 5]), dtype=torch.bfloat16, causal=True)
    alone = results([x[37:107] for x in tensors], bounds([70]), dtype=torch.bfloat16, causal=True)
    for a, b in zip(together, alone, strict=True):
        assert torch.equal(a[37:107], b)


@needs_kernel
def test_threads_change_nothing() -> None:
    tensors, starts = inputs([90, 30, 200, 1], 4, 2, 64), bounds([90, 30, 200, 1])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = results(tensors, starts, dtype=torch.bfloat16, causal=True)
        torch.set_num_threads(3)
        three = results(tensors, starts, dtype=torch.bfloat16, causal=True)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))


@needs_kernel
def test_extreme_scores_stay_finite() -> None:
    tensors = [x * 60 for x in inputs([50], 2, 2, 32)]
    ours = results(tensors, bounds([50]), dtype=torch.bfloat16, causal=True)
    assert all(bool(x.isfinite().all()) for x in ours)


@needs_kernel
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_nan_reaches_every_row_that_sees_it(which: int) -> None:
    """Of a query, a key or a value; in what is given and in the gradients."""
    tensors = inputs([6, 3], 2, 2, 32)
    tensors[which][2, 0, 5] = float("nan")
    out, *slopes = results(tensors, bounds([6, 3]), dtype=torch.bfloat16, causal=True)
    rows = out.isnan().any(-1).any(-1)
    assert bool(rows[2])
    assert bool(rows[3:6].all()) == (which > 0)
    assert not bool(rows[6:].any())
    assert any(bool(slope.isnan().any()) for slope in slopes)


@needs_kernel
def test_bounds_that_lie_apart_are_read_where_they_lie() -> None:
    tensors = inputs([6, 3], 2, 2, 32)
    apart = torch.stack((bounds([6, 3]), torch.full((3,), 1 << 20)), dim=1)[:, 0]
    assert not apart.is_contiguous()
    ours = results(tensors, apart, dtype=torch.bfloat16, causal=True)
    theirs = results(tensors, bounds([6, 3]), dtype=torch.bfloat16, causal=True)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@needs_kernel
@pytest.mark.parametrize("cap", [0.0, 15.0])
def test_a_nan_among_logits_is_one_in_the_loss(cap: float) -> None:
    from modelwright.kernels.likelihood import likelihood_, likelihoods_

    logits = torch.randn(3, 40).bfloat16()
    logits[1, 7] = float("nan")
    targets = torch.tensor([1, 2, 3])
    losses = likelihoods_(logits.clone(), targets, cap)
    assert losses.isnan().tolist() == [False, True, False]
    assert math.isnan(likelihood_(logits, targets, cap))
    assert bool(logits[1].isnan().all())


@needs_kernel
def test_targets_of_another_type_are_refused() -> None:
    from modelwright.kernels.likelihood import likelihood_

    with pytest.raises(TypeError, match="int64"):
        likelihood_(torch.zeros(2, 5).bfloat16(), torch.zeros(2, dtype=torch.int32), 0.0)


@pytest.mark.parametrize("causal", [True, False])
def test_without_the_kernel_it_is_the_same_function(causal: bool) -> None:
    """Float32 takes PyTorch's operators: each document alone gives the same rows."""
    tensors = inputs([9, 1, 0, 30], 4, 2, 12)
    together = results(tensors, bounds([9, 1, 0, 30]), dtype=torch.float32, causal=causal)
    alone = results([x[10:] for x in tensors], bounds([30]), dtype=torch.float32, causal=causal)
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[10:], b)


@needs_kernel
@pytest.mark.parametrize("starts", [[0, 9], [1, 8], [0, 5, 3, 8], [0, 8, 8, 7]])
def test_bounds_beside_the_rows_are_refused(starts: list[int]) -> None:
    q, k, v, _ = inputs([8], 2, 2, 16)
    with pytest.raises(ValueError, match="starts do not rise from 0 to 8"):
        packed_attention(q, k, v, torch.tensor(starts), 1.0)


@needs_kernel
def test_another_type_or_shape_is_refused() -> None:
    q, k, v, _ = inputs([8], 2, 2, 16)
    for keys, values in ((k.float(), v), (k[:7], v[:7]), (k, v[:, :1])):
        with pytest.raises(ValueError, match="do not go together"):
            packed_attention(q, keys, values, bounds([8]), 1.0)


@needs_kernel
@pytest.mark.parametrize("target", [-1, 5])
def test_a_target_beside_the_vocabulary_is_refused(target: int) -> None:
    from modelwright.kernels.likelihood import likelihood_

    with pytest.raises(IndexError, match=r"not in 0\.\.4"):
        likelihood_(torch.zeros(2, 5, dtype=torch.bfloat16), torch.tensor([0, target]), 0.0)


def test_kernels_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    from modelwright.kernels.build import library

    library.cache_clear()
    monkeypatch.setenv("MODELWRIGHT_KERNELS", "0")
    assert library("attention", ()) is None
    library.cache_clear()


@needs_kernel
def test_short_memory_is_an_error_and_no_crash() -> None:
    """In a process that may not take more memory than it has, and a little."""
    program = """
import resource, torch
from modelwright.kernels.attention import packed_attention
torch.set_num_threads(1)
small, large = 64, 200_000
def attend(rows):
    q = torch.zeros(rows, 1, 16, dtype=torch.bfloat16)
    packed_attention(q, q, q, torch.tensor([0, rows]), 1.0)
attend(small)
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (24 << 20), now + (24 << 20)))
try:
    attend(large)
except MemoryError as error:
    print("short:", error)
attend(small)
print("goes on")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.splitlines() == [
        "short: attention: not enough memory for its scratch",
        "goes on",
    ], done.stderr
