"""State files with torchvision's and timm's names: strict, and back as they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from modelwright.errors import ModelwrightError
from modelwright.hub import timm, torchvision
from modelwright.hub.files import Published
from modelwright.hub.loading import load
from modelwright.hub.names import Layout
from modelwright.models import convnext, fast_cnn, inception, resnet, vit
from modelwright.models.images import parameter_count
from modelwright.models.model import ModelConfig
from tests.hub.real_images import images

# Parameters of ImageNet's 1,000 classes, as torchvision and timm publish them.
PUBLISHED: list[tuple[Any, str, dict[str, Any], int]] = [
    (resnet, "resnet18", {}, 11_689_512),
    (resnet, "resnet34", {}, 21_797_672),
    (resnet, "resnet50", {}, 25_557_032),
    (resnet, "resnet101", {}, 44_549_160),
    (resnet, "resnet152", {}, 60_192_808),
    (inception, "inception-v3", {"auxiliary": True}, 27_161_264),
    (inception, "inception-v3", {}, 23_834_568),
    (convnext, "convnext-tiny", {}, 28_589_128),
    (convnext, "convnext-small", {}, 50_223_688),
    (convnext, "convnext-base", {}, 88_591_464),
    (vit, "vit-tiny-16", {}, 5_717_416),
    (vit, "vit-small-16", {}, 22_050_664),
    (vit, "vit-base-16", {}, 86_567_656),
    (vit, "vit-large-16", {}, 304_326_632),
]

# Some of the names that a file of each must have, and their shapes; all are in the counts above.
NAMED: list[tuple[Any, Any, str, dict[str, tuple[int, ...]]]] = [
    (
        torchvision,
        resnet,
        "resnet50",
        {
            "conv1.weight": (64, 3, 7, 7),
            "bn1.running_var": (64,),
            "bn1.num_batches_tracked": (),
            "layer1.0.downsample.0.weight": (256, 64, 1, 1),
            "layer3.5.conv2.weight": (256, 256, 3, 3),
            "layer4.2.bn3.running_mean": (2048,),
            "fc.bias": (1000,),
        },
    ),
    (
        torchvision,
        inception,
        "inception-v3",
        {
            "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
            "Conv2d_4a_3x3.bn.weight": (192,),
            "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
            "Mixed_6a.branch3x3dbl_3.bn.running_mean": (96,),
            "Mixed_6c.branch7x7dbl_5.conv.weight": (192, 160, 1, 7),
            "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
            "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
            "Mixed_7c.branch_pool.conv.weight": (192, 2048, 1, 1),
            "AuxLogits.conv1.conv.weight": (768, 128, 5, 5),
            "AuxLogits.fc.weight": (1000, 768),
            "fc.weight": (1000, 2048),
        },
    ),
    (
        torchvision,
        convnext,
        "convnext-tiny",
        {
            "features.0.0.weight": (96, 3, 4, 4),
            "features.1.2.block.5.weight": (96, 384),
            "features.3.0.layer_scale": (192, 1, 1),
            "features.6.1.bias": (768,),
            "classifier.0.weight": (768,),
            "classifier.2.weight": (1000, 768),
        },
    ),
    (
        torchvision,
        vit,
        "vit-base-16",
        {
            "class_token": (1, 1, 768),
            "encoder.pos_embedding": (1, 197, 768),
            "encoder.layers.encoder_layer_11.self_attention.in_proj_weight": (2304, 768),
            "encoder.layers.encoder_layer_0.mlp.3.weight": (768, 3072),
            "heads.head.weight": (1000, 768),
        },
    ),
    (
        timm,
        vit,
        "vit-small-16",
        {
            "cls_token": (1, 1, 384),
            "pos_embed": (1, 197, 384),
            "patch_embed.proj.weight": (384, 3, 16, 16),
            "blocks.3.attn.qkv.bias": (1152,),
            "blocks.11.mlp.fc2.weight": (384, 1536),
            "norm.weight": (384,),
            "head.weight": (1000, 384),
        },
    ),
    (
        timm,
        convnext,
        "convnext-tiny",
        {
            "stem.0.weight": (96, 3, 4, 4),
            "stages.0.blocks.2.conv_dw.weight": (96, 1, 7, 7),
            "stages.2.blocks.8.gamma": (384,),
            "stages.3.downsample.1.weight": (768, 384, 2, 2),
            "head.norm.weight": (768,),
            "head.fc.weight": (1000, 768),
        },
    ),
]

SMALL: list[tuple[str, ModelConfig]] = [
    ("torchvision", resnet.Config(5, (64, 64), depths=(1, 2), widths=(8, 12), stem="large")),
    (
        "torchvision",
        resnet.Config(5, (70, 64), depths=(2, 1), widths=(4, 6), bottleneck=True, stem="large"),
    ),
    ("torchvision", inception.Config(5, (75, 81), width=0.05)),
    ("torchvision", inception.Config(5, (299, 299), width=0.04, auxiliary=True)),
    ("torchvision", convnext.Config(5, (64, 64), depths=(1, 2), widths=(8, 12), patch=4)),
    ("torchvision", vit.Config(5, (32, 48), width=16, depth=2, heads=2, patch=16)),
    ("timm", vit.Config(5, (32, 32), width=24, depth=1, heads=3, patch=8)),
    ("timm", convnext.Config(5, (64, 64), depths=(2, 1), widths=(8, 12), patch=2)),
    ("timm", resnet.Config(5, (64, 64), depths=(1, 1), widths=(8, 12), stem="large")),
]


@pytest.mark.parametrize(("family", "size", "more", "count"), PUBLISHED)
def test_parameters_are_the_published_ones(
    family: Any, size: str, more: dict[str, Any], count: int
) -> None:
    config = family.Config(classes=1000, **family.Config.sizes[size], **more)
    assert parameter_count(config) == count


@pytest.mark.parametrize(("naming", "family", "size", "names"), NAMED)
def test_tensors_have_the_published_names_and_shapes(
    naming: Any, family: Any, size: str, names: dict[str, tuple[int, ...]]
) -> None:
    more = {"auxiliary": True} if family is inception else {}
    config = family.Config(classes=1000, **family.Config.sizes[size], **more)
    with torch.device("meta"):
        state = config.build().state_dict()
    stored = written(naming.layout(config), state)
    for name, shape in names.items():
        assert tuple(stored[name].shape) == shape, name
    assert sum(t.numel() for t in stored.values()) == sum(t.numel() for t in state.values())


@pytest.mark.parametrize(("naming", "config"), SMALL)
def test_a_state_file_comes_back_bit_for_bit(
    naming: str, config: ModelConfig, data: Callable[[str], Path], tmp_path: Path
) -> None:
    layout = {"torchvision": torchvision, "timm": timm}[naming].layout(config)
    torch.manual_seed(0)
    model = config.build().eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor), alpha=0.1)
    path = tmp_path / "state.safetensors"
    save_file({k: v.contiguous() for k, v in written(layout, model.state_dict()).items()}, path)
    loaded = load(state_file(path, config, naming))
    pixels = images(data, *config.image)  # type: ignore[attr-defined]
    with torch.no_grad():
        assert torch.equal(loaded.model(pixels), model(pixels))
    again = written(layout, loaded.model.state_dict())
    stored = load_file(path)
    assert again.keys() == stored.keys()
    assert all(torch.equal(again[name], stored[name]) for name in stored)


def state_file(path: Path, config: ModelConfig, naming: str) -> Published:
    """A lone file of a known model."""
    stored = {"torchvision": torchvision, "timm": timm}[naming].config_to(config)
    return Published(str(path), path.parent, None, stored, {path.name: ()})


def test_a_tensor_too_many_or_too_few_is_named(tmp_path: Path) -> None:
    naming, config = SMALL[0]
    tensors = written(torchvision.layout(config), config.build().state_dict())
    path = tmp_path / "state.safetensors"
    save_file({**tensors, "layer9.0.conv1.weight": torch.zeros(2)}, path)
    with pytest.raises(ModelwrightError, match=r"layer9\.0\.conv1\.weight"):
        load(state_file(path, config, naming))
    save_file({k: v for k, v in tensors.items() if k != "layer1.0.conv2.weight"}, path)
    with pytest.raises(ModelwrightError, match=r"layer1\.0\.conv2\.weight"):
        load(state_file(path, config, naming))
    save_file({**tensors, "bn1.bias": torch.zeros(9)}, path)
    with pytest.raises(ModelwrightError, match=r"bn1\.bias has the shape \[9\], \[64\]"):
        load(state_file(path, config, naming))


def test_an_inception_without_second_head_reads_a_file_that_has_it(tmp_path: Path) -> None:
    with_head = inception.Config(5, (299, 299), width=0.04, auxiliary=True)
    path = tmp_path / "state.safetensors"
    save_file(written(torchvision.layout(with_head), with_head.build().state_dict()), path)
    without = inception.Config(5, (299, 299), width=0.04)
    loaded = load(state_file(path, without, "torchvision"))
    assert loaded.passed
    assert all(name.startswith("AuxLogits.") for name in loaded.passed)


@pytest.mark.parametrize(
    "config",
    [
        fast_cnn.Config(5),
        resnet.Config(5, norm="group", stem="large"),
        resnet.Config(5, (32, 32)),
        vit.Config(5, pool="mean"),
    ],
)
@pytest.mark.parametrize("naming", [torchvision, timm])
def test_what_their_files_do_not_have_is_refused(naming: Any, config: ModelConfig) -> None:
    with pytest.raises(ModelwrightError, match=r"have no such (fast_cnn|resnet|vit)"):
        naming.layout(config)


def written(layout: Layout, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The stored tensors of ours: parts joined, dimensions of one added."""
    found: dict[str, Tensor] = {}
    parts: dict[str, list[tuple[int, Tensor]]] = {}
    for entry in layout.entries:
        tensor = state[entry.ours]
        if entry.part is not None:
            parts.setdefault(entry.theirs, []).append((entry.part[0], tensor))
        else:
            found[entry.theirs] = tensor if entry.shape is None else tensor.view(entry.shape)
    for name, pieces in parts.items():
        found[name] = torch.cat([t for _, t in sorted(pieces, key=lambda p: p[0])])
    return found
