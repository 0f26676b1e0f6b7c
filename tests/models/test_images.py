"""Parts of image families: planes, norms and what they do to the laws, counted FLOPs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modelwright.data.sources import read_rows
from modelwright.errors import ModelwrightError
from modelwright.models import convnext, fast_cnn, resnet, vit
from modelwright.models.images import (
    BatchNorm,
    ConvNorm,
    DropPath,
    counted_flops,
    image_fields,
    plane_means,
    planes,
)
from modelwright.models.model import ModelConfig


class Codec:
    labels = ("a", "b", "c")

    def __init__(self, *shape: int) -> None:
        self.shape = shape


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_cosines_are_an_orthonormal_basis_of_patches_and_its_negatives(channels: int) -> None:
    filters = fast_cnn.cosines(channels).flatten(1)
    half = 4 * channels
    torch.testing.assert_close(filters[:half] @ filters[:half].T, torch.eye(half))
    assert torch.equal(filters[half:], -filters[:half])


def test_cosines_whiten_natural_patches(data: Callable[[str], Path]) -> None:
    rows = islice(read_rows("cifar10", path=data("cifar10")), 200)
    images = torch.stack([torch.from_numpy(np.array(r["pixels"])).float() / 255 for r in rows])
    model = fast_cnn.Config(10, (32, 32), widths=(24, 8), stem="cosines").build()
    seen = model.stem.conv(planes(images, 3))
    assert seen.shape == (200, 24, 31, 31)
    patches = F.unfold(planes(images, 3), 2)
    between = [
        torch.corrcoef(x.transpose(0, 1).flatten(1)).fill_diagonal_(0).abs().mean()
        for x in (patches, seen[:, :12])
    ]
    assert between[0] > 0.7  # of pixels side by side
    assert between[1] < 0.1
    assert model(images).shape == (200, 10)


def test_planes_are_the_same_memory_channels_last() -> None:
    features = torch.randn(2, 5, 4, 3)
    x = planes(features, 3)
    assert x.shape == (2, 3, 5, 4)
    assert x.data_ptr() == features.data_ptr()
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(planes(features[..., 0], 1)[:, 0], features[..., 0])
    with pytest.raises(ModelwrightError, match=r"shape \(2, 5, 4, 3\).*width, 1\)"):
        planes(features, 1)


def test_the_codec_decides_size_channels_and_classes() -> None:
    assert image_fields(Codec(28, 28)) == {"image": (28, 28), "channels": 1, "classes": 3}
    assert image_fields(Codec(32, 24, 3))["channels"] == 3
    for table in ((1, 13), (13,), (2, 2, 2, 2)):
        with pytest.raises(ModelwrightError, match="use the family mlp"):
            image_fields(Codec(*table))


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(2, 5), side=st.integers(1, 4), seed=st.integers(0, 9))
def test_the_batch_norm_is_torchs_on_finite_numbers(rows: int, side: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    ours, theirs = BatchNorm(3), nn.BatchNorm2d(3)
    for _ in range(3):
        x = torch.randn(rows, 3, side, side, generator=generator) * 3 + 1
        assert torch.equal(ours(x), theirs(x))
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_batch_that_is_not_finite_leaves_the_statistics(bad: float) -> None:
    norm = BatchNorm(2)
    x = torch.randn(4, 2, 3, 3)
    norm(x)
    before = norm.running_mean.clone(), norm.running_var.clone()
    x[0, 1, 0, 0] = bad
    norm(x)
    assert norm.running_mean.isfinite().all()
    assert torch.equal(norm.running_mean[1], before[0][1])
    assert torch.equal(norm.running_var[1], before[1][1])
    assert not torch.equal(norm.running_mean[0], before[0][0])  # the sound channel went on


def test_a_single_number_is_no_batch_which_is_said() -> None:
    norm, x = BatchNorm(2), torch.randn(1, 2, 1, 1)
    with pytest.raises(ModelwrightError, match=r"raise train\.batch, or set model\.norm to group"):
        norm(x)
    assert norm.eval()(x).isfinite().all()


SHAPES: dict[str, ModelConfig] = {
    "resnet": resnet.Config(3, (16, 16), depths=(1, 1), widths=(8, 8), stem_width=8, norm="group"),
    "fast_cnn": fast_cnn.Config(3, (16, 16), widths=(8, 8), norm="group"),
    "convnext": convnext.Config(3, (16, 16), depths=(1, 1), widths=(8, 8)),
    "vit": vit.Config(3, (16, 16), width=8, depth=1, heads=2),
}


def gradients(model: nn.Module, parts: list[torch.Tensor]) -> list[torch.Tensor]:
    model.zero_grad()
    for part in parts:
        model(part).square().sum().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("name", SHAPES)
def test_law_2_without_batch_norm_a_step_may_be_cut(name: str) -> None:
    torch.manual_seed(0)
    model, x = SHAPES[name].build(), torch.randn(6, 16, 16, 3)
    for whole, cut in zip(
        gradients(model, [x]), gradients(model, list(x.split([1, 3, 2]))), strict=True
    ):
        torch.testing.assert_close(cut, whole, rtol=1e-3, atol=1e-4)


def test_law_2_does_not_hold_with_batch_norm_which_the_documentation_says() -> None:
    torch.manual_seed(0)
    model, x = fast_cnn.Config(3, (16, 16), widths=(8, 8)).build(), torch.randn(6, 16, 16, 3)
    whole, cut = gradients(model, [x])[0], gradients(model, [x[:2], x[2:]])[0]
    assert (whole - cut).abs().max() > 1e-2 * whole.abs().max()
    from modelwright.models import images

    assert "law 2" in str(images.__doc__)


def test_drop_path_keeps_the_mean_and_is_off_in_evaluation() -> None:
    torch.manual_seed(0)
    drop, x = DropPath(0.25), torch.ones(4000, 2, 1)
    found = drop(x)
    kept = found[found != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 4 / 3))
    assert 0 < len(kept) < found.numel()
    assert torch.equal(found[:, 0], found[:, 1])
    assert found.mean().item() == pytest.approx(1, abs=0.05)
    assert drop.eval()(x) is x


@pytest.mark.parametrize("bottleneck", [True, False])
def test_residual_blocks_start_as_the_identity(bottleneck: bool) -> None:
    torch.manual_seed(0)
    config = resnet.Config(
        3, (16, 16), depths=(2,), widths=(8,), stem_width=32, bottleneck=bottleneck
    )
    block = config.build().trunk.stages[0][1]  # the second: no shortcut of its own
    x = torch.randn(2, config.made[0], 6, 6).relu()
    assert torch.equal(block(x), x)


@pytest.mark.parametrize(
    ("config", "products"),  # multiplications of one image of 224 x 224, as their papers state
    [
        (resnet.Config(1000, **resnet.Config.sizes["resnet18"]), 1.8e9),
        (resnet.Config(1000, **resnet.Config.sizes["resnet50"]), 4.1e9),
        (convnext.Config(1000), 4.5e9),
        (vit.Config(1000, **vit.Config.sizes["vit-small-16"]), 4.6e9),
        (vit.Config(1000, **vit.Config.sizes["vit-base-16"]), 17.6e9),
    ],
)
def test_flops_are_those_of_the_papers(config: ModelConfig, products: float) -> None:
    assert config.flops_per_item() / 6 == pytest.approx(products, rel=0.02)


def test_flops_grow_with_the_image() -> None:
    small, large = (resnet.Config(3, (n, n), stem="large").flops_per_item() for n in (64, 128))
    assert large / small == pytest.approx(4, rel=0.01)
    assert counted_flops(vit.Config(3, (32, 32)), {"features": (32, 32, 3)}) > 0


@pytest.mark.parametrize(
    ("config", "small"),
    [
        (resnet.Config(3, (32, 32)), True),
        (resnet.Config(3, (65, 32)), False),
        (resnet.Config(3, (32, 32), stem="large"), False),
        (resnet.Config(3, stem="small"), True),
    ],
)
def test_small_images_keep_their_resolution(config: resnet.Config, small: bool) -> None:
    assert config.small_stem == small
    first = config.build().trunk(torch.randn(2, 3, *config.image))[0]
    assert first.shape[2:] == tuple(-(-n // (1 if small else 4)) for n in config.image)


def test_a_vit_reads_its_patches_row_by_row_and_refuses_other_sizes() -> None:
    torch.manual_seed(0)
    model = vit.Config(3, (4, 8), patch=4, width=8, depth=0 + 1, heads=2, pool="mean").build()
    with torch.no_grad():
        model.positions.zero_()
    x = torch.zeros(1, 4, 8, 3)
    x[:, :, 4:] = 1  # the right patch
    left, right = model.hidden(x)[0]
    swapped = model.hidden(x.flip(2))[0]
    torch.testing.assert_close(swapped, torch.stack((right, left)))
    with pytest.raises(
        ModelwrightError, match="images of 8 x 4, the model has positions for 4 x 8"
    ):
        model(torch.zeros(1, 8, 4, 3))


@pytest.mark.parametrize(
    ("family", "fields", "said"),
    [
        (vit, {"image": (30, 32)}, r"model\.image: 30 x 32.*multiples of 4"),
        (vit, {"width": 10, "heads": 4}, r"model\.width: 10 is not a multiple of heads=4"),
        (resnet, {"depths": (1, 1)}, r"model\.depths: 2 stages, but model\.widths has 4"),
        (convnext, {"image": (7, 32)}, r"model\.image: 7 x 32.*at least 8"),
        (fast_cnn, {"image": (2, 2)}, r"model\.image: 2 x 2.*at least 4"),
        (fast_cnn, {"stem": "cosines"}, r"model\.stem: cosines of 3 .*model\.widths with 24"),
        (fast_cnn, {"stem": "cosines", "image": (4, 4)}, r"model\.image: 4 x 4.*at least 5"),
    ],
)
def test_shapes_that_cannot_be_are_refused(family: Any, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelwrightError, match=said):
        family.Config(classes=3, **fields)


@pytest.mark.parametrize("name", ["resnet", "convnext", "fast_cnn"])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_gradients_of_planes_lie_channels_last(name: str, norm: str) -> None:
    config: Any = SHAPES[name]
    config = config if name == "convnext" else replace(config, norm=norm)
    found: list[torch.Tensor] = []

    def listen(_module: nn.Module, _given: object, made: torch.Tensor) -> None:
        made.register_hook(found.append)  # type: ignore[no-untyped-call]

    model = config.build().train()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | ConvNorm | resnet.Residual | convnext.Block):
            module.register_forward_hook(listen)
    model(features=torch.randn(3, *config.image, 3)).sum().backward()
    assert len(found) > 4
    assert all(g.is_contiguous(memory_format=torch.channels_last) for g in found)


def test_the_means_of_planes_are_those() -> None:
    for memory in (torch.channels_last, torch.contiguous_format):
        x = torch.randn(3, 5, 4, 7).to(memory_format=memory)
        assert torch.allclose(plane_means(x), x.mean((2, 3)), atol=1e-6)
