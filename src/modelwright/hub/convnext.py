"""Published checkpoints of ConvNeXt: facebook/convnext-tiny-224 to convnext-base-384."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelwright.errors import ModelwrightError
from modelwright.hub.names import Layout
from modelwright.hub.renamed import renamed
from modelwright.hub.resnet import classes_of, labels_of, only
from modelwright.models.convnext import Config
from modelwright.models.model import ModelConfig

model_types = ("convnext",)
architectures = ("ConvNextForImageClassification",)

_BLOCK = r"stages\.(\d+)\.(\d+)\."
_THEIRS = r"convnext.encoder.stages.\1.layers.\2."


def config_from(stored: Mapping[str, Any]) -> Config:
    """Our config of their config.json.

    Raises:
        ModelwrightError: a field has a value that our family does not have.
    """
    only(stored, "hidden_act", "gelu")
    scale = stored.get("layer_scale_init_value", 1e-6)
    if not scale > 0:
        raise ModelwrightError(
            f"config.json: layer_scale_init_value = {scale!r}; only models with gains are read"
        )
    return Config(
        classes=classes_of(stored),
        image=image_of(stored),
        channels=stored.get("num_channels", 3),
        depths=tuple(stored.get("depths", (3, 3, 9, 3))),
        widths=tuple(stored.get("hidden_sizes", (96, 192, 384, 768))),
        patch=stored.get("patch_size", 4),
        drop_path=float(stored.get("drop_path_rate", 0.0)),
        scale=float(scale),
        head_eps=float(stored.get("layer_norm_eps", 1e-12)),
    )


def image_of(stored: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of a config.json, which states one side for both or a pair."""
    side = stored.get("image_size", 224)
    return (side, side) if isinstance(side, int) else (side[0], side[1])


def config_to(config: ModelConfig) -> dict[str, Any]:
    """Their config.json of our config."""
    c = _ours(config)
    return {
        "model_type": "convnext",
        "architectures": list(architectures),
        "image_size": list(c.image) if c.image[0] != c.image[1] else c.image[0],
        "num_channels": c.channels,
        "num_stages": len(c.depths),
        "depths": list(c.depths),
        "hidden_sizes": list(c.widths),
        "patch_size": c.patch_side,
        "hidden_act": "gelu",
        "drop_path_rate": c.drop_path,
        "layer_scale_init_value": c.scale,
        "layer_norm_eps": c.head_eps,
        **labels_of(c.classes),
    }


def layout(config: ModelConfig) -> Layout:
    """Where every tensor lies."""
    c = _ours(config)
    rules = [
        (r"stem\.(.+)", r"convnext.embeddings.patch_embeddings.\1"),
        (r"stem_norm\.(.+)", r"convnext.embeddings.layernorm.\1"),
        (_BLOCK + r"depthwise\.(.+)", _THEIRS + r"dwconv.\3"),
        (_BLOCK + r"norm\.(.+)", _THEIRS + r"layernorm.\3"),
        (_BLOCK + r"up\.(.+)", _THEIRS + r"pwconv1.\3"),
        (_BLOCK + r"down\.(.+)", _THEIRS + r"pwconv2.\3"),
        (_BLOCK + r"scale", _THEIRS + r"layer_scale_parameter"),
        (r"norm\.(.+)", r"convnext.layernorm.\1"),
        (r"head\.(.+)", r"classifier.\1"),
    ]
    for i in range(len(c.depths) - 1):
        theirs = f"convnext.encoder.stages.{i + 1}.downsampling_layer"
        rules.append((rf"reductions\.{i}\.norm\.(.+)", rf"{theirs}.0.\1"))
        rules.append((rf"reductions\.{i}\.conv\.(.+)", rf"{theirs}.1.\1"))
    return Layout(tuple(renamed(c, rules)), prefixes=("", "convnext."))


def _ours(config: ModelConfig) -> Config:
    if not isinstance(config, Config):
        raise ModelwrightError(f"hub: a {config.family} is no convnext")
    return config
