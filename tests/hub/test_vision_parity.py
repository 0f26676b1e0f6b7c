"""ViT, ResNet and ConvNeXt answer as transformers' do on real images, in both directions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.hub import convnext, resnet, vit
from modelwright.hub.files import find
from modelwright.hub.loading import load
from modelwright.models.model import ModelConfig
from tests.hub.real_images import images

transformers = pytest.importorskip("transformers")

LABELS = {"num_labels": 5}
CASES: list[tuple[str, Any, dict[str, Any]]] = [
    ("ViT", vit, {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}),
    (
        "ViT",
        vit,
        {
            "hidden_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 40,
            "patch_size": 8,
        },
    ),
    (
        "ViT",
        vit,
        {
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "layer_norm_eps": 1e-6,
            "image_size": [48, 80],
        },
    ),
    ("ResNet", resnet, {"hidden_sizes": [16, 32, 64], "depths": [1, 2, 1], "embedding_size": 8}),
    (
        "ResNet",
        resnet,
        {
            "hidden_sizes": [12, 16, 20, 24],
            "depths": [2, 1, 1, 2],
            "embedding_size": 12,
            "layer_type": "basic",
        },
    ),
    ("ResNet", resnet, {"hidden_sizes": [32, 48], "depths": [2, 2], "embedding_size": 16}),
    ("ConvNext", convnext, {"hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 2, 1]}),
    (
        "ConvNext",
        convnext,
        {"hidden_sizes": [12, 16], "depths": [2, 1], "num_stages": 2, "patch_size": 8},
    ),
    (
        "ConvNext",
        convnext,
        {
            "hidden_sizes": [16, 20, 24],
            "depths": [1, 2, 1],
            "num_stages": 3,
            "layer_scale_init_value": 0.5,
            "drop_path_rate": 0.1,
        },
    ),
]
every_case = pytest.mark.parametrize(
    ("name", "family", "fields"), CASES, ids=[f"{c[0]}-{i % 3}" for i, c in enumerate(CASES)]
)


def theirs(name: str, fields: dict[str, Any]) -> nn.Module:
    """A random model of transformers' whose statistics and gains are no longer those of a start."""
    sizes = {} if name == "ResNet" else {"image_size": 64}
    config = getattr(transformers, f"{name}Config")(**{**sizes, **fields, **LABELS})
    torch.manual_seed(3)
    model: nn.Module = getattr(transformers, f"{name}ForImageClassification")(config)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                drawn = torch.randn(tensor.shape, generator=generator) * 0.1
                tensor.add_(drawn.abs() if key.endswith("running_var") else drawn)
    return model.eval()


def pixels_for(fields: dict[str, Any], data: Callable[[str], Path]) -> Tensor:
    side = fields.get("image_size", [64, 64])
    return images(data, *side)


@every_case
def test_theirs_loads_here_and_answers_the_same(
    name: str,
    family: Any,
    fields: dict[str, Any],
    data: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    model = theirs(name, fields)
    model.save_pretrained(tmp_path)  # type: ignore[operator]
    loaded = load(find(str(tmp_path)))
    pixels = pixels_for(fields, data)
    with torch.no_grad():
        wanted = model(pixel_values=pixels.permute(0, 3, 1, 2)).logits
        found = loaded.model(pixels)
    assert wanted.abs().max() > 1e-2
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    assert loaded.fresh == ()


@every_case
def test_ours_loads_there_and_answers_the_same(
    name: str,
    family: Any,
    fields: dict[str, Any],
    data: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    theirs(name, fields).save_pretrained(tmp_path)  # type: ignore[operator]
    config = family.config_from(find(str(tmp_path)).config)
    torch.manual_seed(5)
    ours = stirred(config)
    out = tmp_path / "ours"
    out.mkdir()
    write(out, family, config, ours)
    cls = getattr(transformers, f"{name}ForImageClassification")
    model, said = cls.from_pretrained(out, output_loading_info=True)
    assert not said["missing_keys"]
    assert not said["unexpected_keys"]
    pixels = pixels_for(fields, data)
    with torch.no_grad():
        wanted = model.eval()(pixel_values=pixels.permute(0, 3, 1, 2)).logits
        torch.testing.assert_close(ours(pixels), wanted, atol=1e-4, rtol=0)


def stirred(config: ModelConfig) -> nn.Module:
    model = config.build()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.1)
    return model.eval()


def write(folder: Path, family: Any, config: ModelConfig, model: nn.Module) -> None:
    import json

    state = model.state_dict()
    layout = family.layout(config)
    tensors = {entry.theirs: state[entry.ours].contiguous() for entry in layout.entries}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(family.config_to(config)))


@every_case
def test_the_config_comes_back(name: str, family: Any, fields: dict[str, Any]) -> None:
    sizes = {} if name == "ResNet" else {"image_size": 64}
    stored = getattr(transformers, f"{name}Config")(**{**sizes, **fields, **LABELS}).to_dict()
    config = family.config_from(stored)
    assert family.config_from(family.config_to(config)) == config
    assert config.classes == 5


@pytest.mark.parametrize(
    ("family", "field", "value"),
    [
        (vit, "hidden_act", "relu"),
        (vit, "qkv_bias", False),
        (vit, "patch_size", [16, 8]),
        (resnet, "downsample_in_bottleneck", True),
        (resnet, "layer_type", "wide"),
        (convnext, "layer_scale_init_value", 0),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_its_field(
    family: Any, field: str, value: Any
) -> None:
    with pytest.raises(ModelwrightError, match=f"config.json: {field} = "):
        family.config_from({field: value})
