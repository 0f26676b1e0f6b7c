"""State files with the names of timm's models: one file of safetensors, without a model_type.

ResNet, ConvNeXt and Vision Transformer. The config is ours and is kept beside the weights under
``model``; timm's own config.json names a function of its code instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from modelwright.errors import ModelwrightError
from modelwright.hub.names import Entry, Layout
from modelwright.hub.renamed import renamed
from modelwright.hub.torchvision import joined, resnet_rules
from modelwright.models import convnext, resnet, vit
from modelwright.models.model import ModelConfig, from_dict

model_types = ("timm",)
architectures = ("resnet", "convnext", "vit")


def config_from(stored: Mapping[str, Any]) -> ModelConfig:
    """Our config, which ``config_to`` put under ``model``."""
    return from_dict(stored["model"])


def config_to(config: ModelConfig) -> dict[str, Any]:
    """Our config under ``model``."""
    return {"model_type": "timm", "model": config.to_dict()}


def layout(config: ModelConfig) -> Layout:
    """Where every tensor lies.

    Raises:
        ModelwrightError: timm's files do not have this family, or not this member.
    """
    if isinstance(config, resnet.Config) and config.norm == "batch" and not config.small_stem:
        return Layout(tuple(renamed(config, resnet_rules(config))))
    if isinstance(config, convnext.Config):
        return Layout(tuple(_convnext(config)))
    if isinstance(config, vit.Config) and config.pool == "token":
        return Layout(tuple(_vit(config)))
    raise ModelwrightError(
        f"hub: timm's files have no such {config.family} here; they have resnet, convnext and vit"
        " with batch norms, large stems and class tokens"
    )


def _convnext(config: convnext.Config) -> Iterator[Entry]:
    ours, theirs = r"stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."
    rules = [
        (r"stem\.(.+)", r"stem.0.\1"),
        (r"stem_norm\.(.+)", r"stem.1.\1"),
        (ours + r"depthwise\.(.+)", theirs + r"conv_dw.\3"),
        (ours + r"norm\.(.+)", theirs + r"norm.\3"),
        (ours + r"up\.(.+)", theirs + r"mlp.fc1.\3"),
        (ours + r"down\.(.+)", theirs + r"mlp.fc2.\3"),
        (ours + r"scale", theirs + r"gamma"),
        (r"norm\.(.+)", r"head.norm.\1"),
        (r"head\.(.+)", r"head.fc.\1"),
    ]
    for i in range(len(config.depths) - 1):
        rules.append((rf"reductions\.{i}\.norm\.(.+)", rf"stages.{i + 1}.downsample.0.\1"))
        rules.append((rf"reductions\.{i}\.conv\.(.+)", rf"stages.{i + 1}.downsample.1.\1"))
    yield from renamed(config, rules)


def _vit(config: vit.Config) -> Iterator[Entry]:
    ours, theirs = r"blocks\.(\d+)\.", r"blocks.\1."
    rules = (
        (r"token", "cls_token"),
        (r"positions", "pos_embed"),
        (r"patch\.(.+)", r"patch_embed.proj.\1"),
        (ours + r"attention\.(?:query|key|value)\.(.+)", theirs + r"attn.qkv.\2"),
        (ours + r"attention\.out\.(.+)", theirs + r"attn.proj.\2"),
        (ours + r"attention_norm\.(.+)", theirs + r"norm1.\2"),
        (ours + r"feed_norm\.(.+)", theirs + r"norm2.\2"),
        (ours + r"up\.(.+)", theirs + r"mlp.fc1.\2"),
        (ours + r"down\.(.+)", theirs + r"mlp.fc2.\2"),
        (r"(norm|head)\.(.+)", r"\1.\2"),
    )
    yield from joined(renamed(config, rules), config.width)
