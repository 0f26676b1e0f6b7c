"""Matrices in few bits: the published levels, the bound of the error, rows, products, gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modelwright.errors import ModelwrightError
from modelwright.models import lora, narrow
from modelwright.models.lora import Adapter
from modelwright.models.model import config_class
from modelwright.pipeline.trace import meta

# arXiv:2305.14314, appendix E
LOWER = (1.0, 0.6961928009986877, 0.5250730514526367, 0.39491748809814453, 0.28444138169288635)
LOWER += (0.18477343022823334, 0.09105003625154495)
UPPER = (0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224)
UPPER += (0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0)
PUBLISHED = (*(-level for level in LOWER), *UPPER)
shapes = st.tuples(st.integers(1, 70), st.integers(1, 200))


def matrix(shape, seed, spread):
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return numbers * 10.0**spread


def test_the_levels_are_those_of_the_paper():
    assert narrow.levels() == pytest.approx(PUBLISHED, abs=3e-7)


@given(shapes, st.integers(0, 9), st.floats(-6, 3), st.sampled_from(narrow.KINDS))
@settings(max_examples=60, deadline=None)
def test_a_weight_is_off_by_half_a_step_of_its_block_at_most(shape, seed, spread, kind):
    weight = matrix(shape, seed, spread)
    held = narrow.Narrow(weight, kind)
    blocks = F.pad(weight.flatten(), (0, -weight.numel() % narrow.BLOCK)).view(-1, narrow.BLOCK)
    largest = blocks.abs().amax(1)
    # Half the widest gap, and what the largest of a block is off by, rounded itself.
    known = torch.tensor(narrow.levels())
    gap = float(known.diff().max()) / 2 if kind == "nf4" else 0.5 / 127
    off = (largest - largest.mean()).abs().max() / 127
    bound = (gap * (largest + off) + off)[:, None].expand(-1, narrow.BLOCK).flatten()
    error = (held.unpacked() - weight).flatten().abs()
    assert bool((error <= bound[: len(error)] * (1 + 1e-4) + 1e-30).all())
    assert held.unpacked().shape == weight.shape


@given(shapes, st.integers(0, 9), st.sampled_from(narrow.KINDS))
@settings(max_examples=40, deadline=None)
def test_rows_are_those_of_the_whole(shape, seed, kind):
    held = narrow.Narrow(matrix(shape, seed, 0.0), kind)
    numbers = torch.randint(0, shape[0], (2, 3), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(held.rows(numbers), held.unpacked()[numbers])


@given(shapes, st.integers(0, 9), st.sampled_from(narrow.KINDS), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_product_and_its_gradient_are_those_of_the_unpacked(shape, seed, kind, wide):
    held, bias = narrow.Narrow(matrix(shape, seed, 0.0), kind), torch.ones(shape[0])
    x = matrix((3, shape[1]), seed + 1, 0.0).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=not wide):
        y = held.product(x, bias)
        z = F.linear(x, held.unpacked()) + bias.to(y.dtype)
    assert y.dtype == z.dtype
    torch.testing.assert_close(y, z, rtol=1e-5, atol=1e-5)
    (one,) = torch.autograd.grad(y.float().square().sum(), x)
    (other,) = torch.autograd.grad(z.float().square().sum(), x)
    scale = float(other.abs().max())
    torch.testing.assert_close(one, other, rtol=2e-2, atol=(1e-5 if wide else 2e-2) * scale)


def test_rounding_what_is_rounded_changes_little_and_zeros_stay_zero():
    assert not narrow.Narrow(torch.zeros(3, 50), "nf4").unpacked().any()
    mixed = torch.cat((torch.zeros(64), torch.ones(64))).view(2, 64)
    assert not narrow.Narrow(mixed, "nf4").unpacked()[0].any()


@pytest.mark.parametrize("kind", narrow.KINDS)
def test_bytes_are_as_said_and_few(kind):
    held = narrow.Narrow(torch.randn(256, 1024), kind)
    assert held.nbytes * 8 / (256 * 1024) == pytest.approx(narrow.bits(kind), rel=1e-3)
    assert narrow.bits("nf4") < 0.27 * 16


def test_a_base_is_under_two_fifths_of_bfloat16():
    """A decoder of usual proportions, its embedding and head in 8 bits."""
    model = meta(config_class("decoder")(vocabulary=4096, depth=6, width=384))
    count = sum(p.numel() for p in model.parameters())
    lora.adapt(model, Adapter(rank=4, quantize="nf4"))
    held = sum(m.nbytes for m in narrow.held_in(model).values())
    frozen = [p for n, p in model.named_parameters() if not p.requires_grad]
    assert held + sum(4 * p.numel() for p in frozen) < 0.4 * 2 * count


def test_a_shared_weight_stays_one():
    model = nn.ModuleDict({"embedding": nn.Embedding(9, 64), "output": nn.Linear(64, 9)})
    model["blocks"] = nn.ModuleList([nn.Linear(64, 64)])
    model["output"].weight = model["embedding"].weight
    count = narrow.parameter_count(model)
    narrow.hold(model, "nf4", (), lora.is_head)
    assert model["output"].narrow is model["embedding"].narrow
    assert model["output"].narrow.kind == "int8" and model["blocks"][0].narrow.kind == "nf4"
    assert narrow.parameter_count(model) == count
    narrow.widen(model)
    assert model["output"].weight is model["embedding"].weight
    assert type(model["output"]) is nn.Linear and narrow.parameter_count(model) == count


def test_merged_and_unmerged_over_a_held_base():
    torch.manual_seed(1)
    model = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(64, 8), nn.Linear(8, 8)])})
    lora.adapt(model, Adapter(rank=2, targets=["blocks.0"], quantize="nf4"))
    nn.init.normal_(model["blocks"][0].lora_b)
    x = torch.randn(3, 64)
    live, before = model["blocks"][0](x), set(model.state_dict())
    lora.merge(model)
    torch.testing.assert_close(model["blocks"][0](x), live, rtol=1e-5, atol=1e-5)
    lora.unmerge(model)
    assert torch.equal(model["blocks"][0](x), live) and set(model.state_dict()) == before
    lora.plain(model)
    assert all(type(layer) is nn.Linear for layer in model["blocks"])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_cannot_be_held_is_refused(bad):
    model = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(4, 4)])})
    with torch.no_grad():
        model["blocks"][0].weight[0, 0] = bad
    with pytest.raises(ModelwrightError, match=r"blocks\.0\.weight is not of finite"):
        lora.adapt(model, Adapter(rank=2, quantize="nf4"))
    with pytest.raises(ModelwrightError, match="no linear layer or embedding"):
        narrow.hold(nn.ModuleDict({"norm": nn.LayerNorm(4)}), "nf4", (), lora.is_head)
