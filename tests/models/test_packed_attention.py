"""Attention of documents of any lengths: padded together it is that of each by itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modelwright.models import packed
from modelwright.models.packed import attend

HEADS, WIDTH = 2, 4
lengths = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5)


def bounds(sizes: list[int]) -> Tensor:
    return torch.tensor([0, *sizes]).cumsum(0)


def one_by_one(
    x: tuple[Tensor, Tensor, Tensor],
    rows: Tensor,
    columns: Tensor,
    *,
    bias: Tensor | None,
    causal: bool,
) -> Tensor:
    q, k, v = x
    found = []
    for i in range(len(rows) - 1):
        a, b, c, d = rows[i], rows[i + 1], columns[i], columns[i + 1]
        scores = torch.einsum("thd,shd->hts", q[a:b], k[c:d]) * 0.7
        if bias is not None:
            scores = scores + bias[:, : b - a, : d - c]
        if causal:
            later = torch.arange(d - c) > torch.arange(b - a)[:, None]
            scores = scores.masked_fill(later, -torch.inf)
        found.append(torch.einsum("hts,shd->thd", scores.softmax(-1), v[c:d]))
    return torch.cat(found)


@pytest.mark.parametrize("way", ["products", "pytorch", "one by one"])
@given(lengths, st.booleans(), st.booleans())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_it_is_attention_within_every_document(
    way: str, sizes: list[tuple[int, int]], own: bool, biased: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if way != "products":
            patch.setattr(packed, "SHORT", 0)
        if way == "one by one":
            patch.setattr(packed, "PADDING", 0)
        rows = bounds([t for t, _ in sizes])
        columns = rows if own else bounds([s for _, s in sizes])
        generator = torch.Generator().manual_seed(len(sizes))

        def drawn(count: Tensor) -> Tensor:
            made = torch.randn(int(count), HEADS, WIDTH, generator=generator, dtype=torch.float64)
            return made.requires_grad_()

        q, k, v = drawn(rows[-1]), drawn(columns[-1]), drawn(columns[-1])
        # A causal bias hides what comes later itself, as T5's does.
        bias = None
        if biased:
            bias = torch.randn(HEADS, 9, 9, generator=generator, dtype=torch.float64)
            if own:
                bias = bias.masked_fill(torch.ones(9, 9).triu(1).bool(), -torch.inf)
        found = attend(q, k, v, rows, 0.7, sources=None if own else columns, causal=own, bias=bias)
        wanted = one_by_one((q, k, v), rows, columns, bias=bias, causal=own)
        torch.testing.assert_close(found, wanted)
        weights = torch.randn(found.shape, generator=generator, dtype=torch.float64)
        mine = torch.autograd.grad((found * weights).sum(), (q, k, v))
        theirs = torch.autograd.grad((wanted * weights).sum(), (q, k, v))
        for a, b in zip(mine, theirs, strict=True):
            torch.testing.assert_close(a, b)


def test_dropped_weights_keep_their_mean() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(6, HEADS, WIDTH), torch.randn(6, HEADS, WIDTH)
    v, rows = torch.ones(6, HEADS, WIDTH), bounds([4, 2])
    columns = bounds([2, 4])
    found = torch.stack(
        [attend(q, k, v, rows, 1.0, sources=columns, dropout=0.5) for _ in range(400)]
    )
    assert found.std() > 0.1
    torch.testing.assert_close(found.mean(0), torch.ones(6, HEADS, WIDTH), rtol=0, atol=0.2)
