"""Grad-CAM and integrated gradients: what their formulas promise, of every family that has them."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelwright.errors import MachineError, ModelwrightError
from modelwright.evaluation.attribution import (
    captum,
    grad_cam,
    integrated_gradients,
    of_class,
    token_gradients,
)
from modelwright.models import reading
from modelwright.models.model import config_class, families

# Of pictures to classes; boards and detectors say more than a class.
CLASSIFIERS = [
    n
    for n in families()
    if config_class(n).inputs is reading.images and n not in ("board", "detector")
]


def stirred(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator), alpha=0.1)
    return model.eval()


def built(family: str) -> tuple[nn.Module, Tensor]:
    cls = config_class(family)
    config = cls(**cls.specimen)
    torch.manual_seed(0)
    model = stirred(config.build())
    made = config.inputs(2)
    assert made is not None
    return model, made.tensors["features"]


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_every_family_of_pictures_says_where_to_look(family: str) -> None:
    model, features = built(family)
    maps = grad_cam(model, features, 1)
    assert len(CLASSIFIERS) >= 5
    assert maps.shape == features.shape[:3]
    assert maps.min() >= 0
    assert all(float(one.max()) in (0.0, pytest.approx(1.0)) for one in maps)
    assert not any(m._forward_hooks for m in model.modules())  # nothing stays on the model
    alone = grad_cam(model, features[1:], 1)
    torch.testing.assert_close(alone[0], maps[1], rtol=1e-3, atol=1e-4)


def test_grad_cam_is_its_formula() -> None:
    model, features = built("resnet")
    module, _ = model.seen()
    kept: list[Tensor] = []
    hook = module.register_forward_hook(lambda *a: kept.append(a[2]))
    logits = model(features=features)
    hook.remove()
    (slopes,) = torch.autograd.grad(logits[:, 2].sum(), kept[0])
    weighed = (slopes.mean((2, 3), keepdim=True) * kept[0]).sum(1, keepdim=True).relu()
    maps = F.interpolate(weighed, features.shape[1:3], mode="bilinear", align_corners=False)[:, 0]
    largest = maps.amax((1, 2), keepdim=True)
    expected = maps / largest.where(largest > 0, 1.0)
    assert expected.max() > 0
    torch.testing.assert_close(grad_cam(model, features, 2), expected.detach())


def test_a_token_of_the_models_own_is_no_patch() -> None:
    model, features = built("vit")
    module, patches = model.seen()
    assert patches == (2, 3)
    kept: list[Tensor] = []
    hook = module.register_forward_hook(lambda *a: kept.append(a[2]))
    logits = model(features=features)
    hook.remove()
    (slopes,) = torch.autograd.grad(logits[:, 0].sum(), kept[0])
    stream, slopes = kept[0][:, 1:], slopes[:, 1:]
    weighed = (slopes.mean(1, keepdim=True) * stream).sum(2).relu().view(-1, 1, *patches)
    maps = F.interpolate(weighed, features.shape[1:3], mode="bilinear", align_corners=False)[:, 0]
    largest = maps.amax((1, 2), keepdim=True)
    expected = maps / largest.where(largest > 0, 1.0)
    torch.testing.assert_close(grad_cam(model, features, 0), expected.detach())


def test_the_parts_add_up_to_what_the_logit_gained() -> None:
    model, features = built("convnext")
    one, nothing = features[:1], torch.zeros_like(features[:1])
    found = integrated_gradients(lambda x: model(features=x), one, 1, nothing)
    with torch.no_grad():
        gained = float(model(features=one)[0, 1] - model(features=nothing)[0, 1])
    assert gained != 0
    assert float(found.values.sum()) == pytest.approx(gained, rel=1e-2, abs=1e-4)
    assert found.missing == pytest.approx(abs(float(found.values.sum()) - gained), abs=1e-5)


class LeftHalf(nn.Module):
    """Reads the left half of a picture alone."""

    def forward(self, features: Tensor) -> Tensor:
        half = features[:, :, : features.shape[2] // 2]
        return torch.stack((half.mean((1, 2)), -half.square().mean((1, 2))), dim=1)


def test_what_a_model_does_not_read_counts_nothing() -> None:
    model, pixels = LeftHalf(), torch.randn(1, 6, 8)
    values = integrated_gradients(model, pixels, 1, torch.zeros_like(pixels)).values[0]
    assert (values[:, 4:] == 0).all()
    assert (values[:, :4] != 0).all()


@pytest.mark.parametrize("family", ["encoder", "bert", "modernbert"])
def test_every_token_has_its_share(family: str) -> None:
    cls = config_class(family)
    torch.manual_seed(0)
    model = stirred(cls(**cls.specimen).build())
    tokens = torch.tensor([5, 17, 3, 40, 9, 2, 2])
    found = token_gradients(model, {"tokens": tokens}, 1, nothing=2)
    with torch.no_grad():
        full = model(tokens=tokens[None])[0, 1]
        empty = model(tokens=torch.full((1, 7), 2))[0, 1]
    assert found.values.shape == (7,)
    assert float(found.values[-1]) == 0.0  # it, and what is before it, stand in the baseline too
    assert (found.values[:-2] != 0).all()
    assert (float(found.values[-2]) != 0) == (family == "encoder")  # the pair of 9 and 2
    assert float(found.values.sum()) == pytest.approx(float(full - empty), rel=5e-2, abs=1e-3)


def test_a_single_logit_is_that_of_the_second_class() -> None:
    logit = torch.tensor([[2.0], [-1.0]])
    assert of_class(logit, 1).tolist() == [2.0, -1.0]
    assert of_class(logit, 0).tolist() == [-2.0, 1.0]
    assert of_class(torch.tensor([[1.0, 3.0]]), 1).tolist() == [3.0]


def test_a_model_without_planes_and_one_without_tokens_are_named() -> None:
    with pytest.raises(ModelwrightError, match="LeftHalf names no planes to look at"):
        grad_cam(LeftHalf(), torch.zeros(1, 4, 4), 0)
    with pytest.raises(ModelwrightError, match="LeftHalf has no table of tokens"):
        token_gradients(LeftHalf(), {"tokens": torch.zeros(3, dtype=torch.int64)}, 0, 0)


def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(MachineError, match=r"pip install 'modelwright\[interpret\]'"):
        captum()
