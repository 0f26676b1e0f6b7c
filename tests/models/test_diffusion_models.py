"""U-Net and diffusion Transformer: published sizes, times and labels, and where they start."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from modelwright.errors import ModelwrightError
from modelwright.models import dit, unet
from modelwright.models.images import parameter_count

every_family = pytest.mark.parametrize("family", [unet, dit])


def stirred(family: Any, **more: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    model: torch.nn.Module = family.Config(**{**family.Config.specimen, **more}).build()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.1)
    return model.eval()


@pytest.mark.parametrize(
    ("size", "millions"),  # table 1 of arXiv:2212.09748, at 32 x 32 x 4 of 1,000 classes
    [("dit-small", 33), ("dit-base", 130), ("dit-large", 458), ("dit-xlarge", 675)],
)
def test_transformers_have_the_published_parameters(size: str, millions: float) -> None:
    fields = dit.Config.sizes[size]
    config = dit.Config((32, 32), channels=4, classes=1000, variance=True, **fields)
    assert parameter_count(config) == pytest.approx(millions * 1e6, abs=0.5e6)


def test_the_unet_of_cifar_has_the_published_parameters() -> None:
    assert parameter_count(unet.Config(**unet.Config.sizes["unet-cifar"])) == 35_746_307  # 35.7M


@every_family
def test_it_predicts_zero_before_it_has_learned(family: Any) -> None:
    model = family.Config(**family.Config.specimen).build()
    config = model.config
    noisy = torch.randn(2, *config.image, config.channels)
    found = model(noisy, torch.tensor([1, 900]))
    assert found.shape == noisy.shape
    assert found.abs().max() == 0


@every_family
def test_time_and_label_matter_and_none_is_a_label_of_its_own(family: Any) -> None:
    model = stirred(family)
    noisy = torch.randn(2, *model.config.image, 3)
    times, labels = torch.tensor([10, 10]), torch.tensor([0, 1])
    with torch.no_grad():
        found = model(noisy, times, labels)
        assert (found - model(noisy, times + 500, labels)).abs().max() > 1e-3
        assert (found - model(noisy, times, labels.flip(0))).abs().max() > 1e-3
        assert (found - model(noisy, times)).abs().max() > 1e-3
        torch.testing.assert_close(
            model(noisy, times), model(noisy, times, torch.full((2,), -1)), rtol=0, atol=0
        )
        mixed = model(noisy, times, torch.tensor([0, -1]))
        torch.testing.assert_close(mixed[0], found[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(mixed[1], model(noisy, times)[1], rtol=1e-4, atol=1e-5)


@every_family
def test_without_classes_labels_are_refused(family: Any) -> None:
    model = stirred(family, classes=0)
    noisy = torch.randn(1, *model.config.image, 3)
    assert model(noisy, torch.tensor([3])).shape == noisy.shape
    with pytest.raises(ModelwrightError, match=r"set model\.classes"):
        model(noisy, torch.tensor([3]), torch.tensor([0]))


@every_family
def test_grey_images_need_no_dimension_for_their_channel(family: Any) -> None:
    model = stirred(family, channels=1)
    noisy = torch.randn(2, *model.config.image)
    times = torch.tensor([1, 2])
    assert torch.equal(model(noisy, times), model(noisy[..., None], times)[..., 0])


def test_patches_come_back_where_they_were() -> None:
    """With the head as the identity of a patch, what goes in comes out at its place."""
    config = dit.Config((4, 6), channels=1, patch=2, width=8, depth=1, heads=1)
    model = config.build()
    with torch.no_grad():
        model.head.bias.copy_(torch.arange(4.0))
    found = model(torch.zeros(1, 4, 6), torch.tensor([0]))[0]
    assert found[:2, :2].flatten().tolist() == [0, 1, 2, 3]
    assert torch.equal(found, found[:2, :2].tile(2, 3))


def test_variance_doubles_the_channels() -> None:
    model = stirred(dit, variance=True)
    noisy = torch.randn(1, 4, 8, 3)
    assert model(noisy, torch.tensor([1])).shape == (1, 4, 8, 6)


def test_shapes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ModelwrightError, match=r"model\.image: 30 x 32.*multiples of 4"):
        unet.Config((30, 32))
    with pytest.raises(ModelwrightError, match=r"model\.attention: level 3"):
        unet.Config(attention=(3,))
    with pytest.raises(ModelwrightError, match=r"model\.width: 6 is not"):
        dit.Config(width=6, heads=2)
