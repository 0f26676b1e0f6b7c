"""State files with the names of torchvision's models: one file of safetensors, no config.json.

ResNet, Inception v3, ConvNeXt and Vision Transformer. The config is ours and is kept beside the
weights under ``model``, since their files say nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from modelwright.errors import ModelwrightError
from modelwright.hub.names import Entry, Layout
from modelwright.hub.renamed import Rules, renamed, tensor_names
from modelwright.models import convnext, inception, resnet, vit
from modelwright.models.model import ModelConfig, from_dict

model_types = ("torchvision",)
architectures = ("resnet", "inception", "convnext", "vit")


def config_from(stored: Mapping[str, Any]) -> ModelConfig:
    """Our config, which ``config_to`` put under ``model``."""
    return from_dict(stored["model"])


def config_to(config: ModelConfig) -> dict[str, Any]:
    """Our config under ``model``."""
    return {"model_type": "torchvision", "model": config.to_dict()}


def layout(config: ModelConfig) -> Layout:
    """Where every tensor lies.

    Raises:
        ModelwrightError: torchvision's files do not have this family, or not this member.
    """
    if isinstance(config, resnet.Config) and config.norm == "batch" and not config.small_stem:
        return Layout(tuple(renamed(config, resnet_rules(config))))
    if isinstance(config, inception.Config) and config.norm == "batch":
        passed = () if config.auxiliary else ("AuxLogits.*",)
        heads = ("head.*", "auxiliary.head.*")
        return Layout(tuple(renamed(config, _INCEPTION)), passed=passed, heads=heads)
    if isinstance(config, convnext.Config):
        return Layout(tuple(_convnext(config)))
    if isinstance(config, vit.Config) and config.pool == "token":
        return Layout(tuple(_vit(config)))
    raise ModelwrightError(
        f"hub: torchvision's files have no such {config.family}; they have resnet, inception,"
        " convnext and vit with batch norms, large stems and class tokens"
    )


def resnet_rules(config: resnet.Config) -> Rules:
    """The names of a residual network, here and in timm."""
    rules = [
        (r"trunk\.stem\.conv\.(.+)", r"conv1.\1"),
        (r"trunk\.stem\.norm\.(.+)", r"bn1.\1"),
        (r"head\.(.+)", r"fc.\1"),
    ]
    for i in range(len(config.depths)):
        ours, theirs = rf"trunk\.stages\.{i}\.(\d+)\.", rf"layer{i + 1}.\1."
        rules.append((ours + r"shortcut\.conv\.(.+)", theirs + r"downsample.0.\2"))
        rules.append((ours + r"shortcut\.norm\.(.+)", theirs + r"downsample.1.\2"))
        for k in range(3):
            rules.append((ours + rf"parts\.{k}\.conv\.(.+)", theirs + rf"conv{k + 1}.\2"))
            rules.append((ours + rf"parts\.{k}\.norm\.(.+)", theirs + rf"bn{k + 1}.\2"))
    return rules


_INCEPTION: Rules = (
    (r"stem\.(\w+)\.conv\.(.+)", r"Conv2d_\1.conv.\2"),
    (r"stem\.(\w+)\.norm\.(.+)", r"Conv2d_\1.bn.\2"),
    (r"mixed\.(\w+)\.layers\.(\w+)\.conv\.(.+)", r"Mixed_\1.\2.conv.\3"),
    (r"mixed\.(\w+)\.layers\.(\w+)\.norm\.(.+)", r"Mixed_\1.\2.bn.\3"),
    (r"auxiliary\.(conv\d)\.conv\.(.+)", r"AuxLogits.\1.conv.\2"),
    (r"auxiliary\.(conv\d)\.norm\.(.+)", r"AuxLogits.\1.bn.\2"),
    (r"auxiliary\.head\.(.+)", r"AuxLogits.fc.\1"),
    (r"head\.(.+)", r"fc.\1"),
)


def _convnext(config: convnext.Config) -> Iterator[Entry]:
    rules = [
        (r"stem\.(.+)", r"features.0.0.\1"),
        (r"stem_norm\.(.+)", r"features.0.1.\1"),
        (r"norm\.(.+)", r"classifier.0.\1"),
        (r"head\.(.+)", r"classifier.2.\1"),
    ]
    parts = {"depthwise": "0", "norm": "2", "up": "3", "down": "5"}
    for i in range(len(config.depths)):
        stage = rf"features.{2 * i + 1}.\1."
        for ours, number in parts.items():
            rules.append((rf"stages\.{i}\.(\d+)\.{ours}\.(.+)", rf"{stage}block.{number}.\2"))
        rules.append((rf"stages\.{i}\.(\d+)\.scale", f"{stage}layer_scale"))
        rules.append((rf"reductions\.{i}\.norm\.(.+)", rf"features.{2 * i + 2}.0.\1"))
        rules.append((rf"reductions\.{i}\.conv\.(.+)", rf"features.{2 * i + 2}.1.\1"))
    shapes = tensor_names(config)
    for entry in renamed(config, rules):
        scale = entry.ours.endswith(".scale")
        shape = (*shapes[entry.ours], 1, 1) if scale else None
        yield Entry(entry.ours, entry.theirs, shape=shape)


def _vit(config: vit.Config) -> Iterator[Entry]:
    ours, theirs = r"blocks\.(\d+)\.", r"encoder.layers.encoder_layer_\1."
    rules = (
        (r"token", "class_token"),
        (r"positions", "encoder.pos_embedding"),
        (r"patch\.(.+)", r"conv_proj.\1"),
        (ours + r"attention\.(?:query|key|value)\.(.+)", theirs + r"self_attention.in_proj_\2"),
        (ours + r"attention\.out\.(.+)", theirs + r"self_attention.out_proj.\2"),
        (ours + r"attention_norm\.(.+)", theirs + r"ln_1.\2"),
        (ours + r"feed_norm\.(.+)", theirs + r"ln_2.\2"),
        (ours + r"up\.(.+)", theirs + r"mlp.0.\2"),
        (ours + r"down\.(.+)", theirs + r"mlp.3.\2"),
        (r"norm\.(.+)", r"encoder.ln.\1"),
        (r"head\.(.+)", r"heads.head.\1"),
    )
    yield from joined(renamed(config, rules), config.width)


def joined(entries: Iterator[Entry], width: int) -> Iterator[Entry]:
    """Entries whose queries, keys and values lie one after another in one stored tensor."""
    order = ("query", "key", "value")
    for entry in entries:
        part = entry.ours.split(".")[-2] if "." in entry.ours else ""
        if part in order:
            first = order.index(part) * width
            yield Entry(entry.ours, entry.theirs, part=(first, width))
        else:
            yield entry
