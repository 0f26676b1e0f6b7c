"""Published checkpoints of residual networks: microsoft/resnet-18 to microsoft/resnet-152."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelwright.errors import ModelwrightError
from modelwright.hub.names import Layout
from modelwright.hub.renamed import renamed
from modelwright.models.model import ModelConfig
from modelwright.models.resnet import WIDENING, Config

model_types = ("resnet",)
architectures = ("ResNetForImageClassification",)

_STAGE = r"trunk\.stages\.(\d+)\.(\d+)\."
_THEIRS = r"resnet.encoder.stages.\1.layers.\2."
_RULES = (
    (r"trunk\.stem\.conv\.(.+)", r"resnet.embedder.embedder.convolution.\1"),
    (r"trunk\.stem\.norm\.(.+)", r"resnet.embedder.embedder.normalization.\1"),
    (_STAGE + r"parts\.(\d+)\.conv\.(.+)", _THEIRS + r"layer.\3.convolution.\4"),
    (_STAGE + r"parts\.(\d+)\.norm\.(.+)", _THEIRS + r"layer.\3.normalization.\4"),
    (_STAGE + r"shortcut\.conv\.(.+)", _THEIRS + r"shortcut.convolution.\3"),
    (_STAGE + r"shortcut\.norm\.(.+)", _THEIRS + r"shortcut.normalization.\3"),
    (r"head\.(.+)", r"classifier.1.\1"),
)


def config_from(stored: Mapping[str, Any]) -> Config:
    """Our config of their config.json.

    Raises:
        ModelwrightError: a field has a value that our family does not have.
    """
    kind = stored.get("layer_type", "bottleneck")
    only(stored, "hidden_act", "relu")
    only(stored, "downsample_in_first_stage", False)
    only(stored, "downsample_in_bottleneck", False)
    if kind not in ("basic", "bottleneck"):
        raise ModelwrightError(f"config.json: layer_type = {kind!r}; basic or bottleneck is read")
    made = stored.get("hidden_sizes", (256, 512, 1024, 2048))
    if kind == "bottleneck" and any(n % WIDENING for n in made):
        raise ModelwrightError(
            f"config.json: hidden_sizes = {list(made)}; multiples of {WIDENING} are read"
        )
    return Config(
        classes=classes_of(stored),
        channels=stored.get("num_channels", 3),
        depths=tuple(stored.get("depths", (3, 4, 6, 3))),
        widths=tuple(n // WIDENING if kind == "bottleneck" else n for n in made),
        stem_width=stored.get("embedding_size", 64),
        bottleneck=kind == "bottleneck",
        stem="large",
    )


def only(stored: Mapping[str, Any], name: str, value: Any) -> None:
    """Refuse another value of a field than the one that our family has.

    Raises:
        ModelwrightError: names the field, its value and the one that is read.
    """
    if stored.get(name, value) != value:
        raise ModelwrightError(f"config.json: {name} = {stored[name]!r}, only {value!r} is read")


def classes_of(stored: Mapping[str, Any]) -> int:
    """The number of labels of a config.json, which states it by naming them; 2 if it does not."""
    labels = stored.get("id2label")
    return len(labels) if labels else int(stored.get("num_labels", 2))


def labels_of(classes: int) -> dict[str, Any]:
    """Fields of a config.json that name the labels by their numbers."""
    return {
        "id2label": {str(i): f"LABEL_{i}" for i in range(classes)},
        "label2id": {f"LABEL_{i}": i for i in range(classes)},
    }


def config_to(config: ModelConfig) -> dict[str, Any]:
    """Their config.json of our config."""
    c = _ours(config)
    return {
        "model_type": "resnet",
        "architectures": list(architectures),
        "num_channels": c.channels,
        "embedding_size": c.stem_width,
        "hidden_sizes": list(c.made),
        "depths": list(c.depths),
        "layer_type": "bottleneck" if c.bottleneck else "basic",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
        **labels_of(c.classes),
    }


def layout(config: ModelConfig) -> Layout:
    """Where every tensor lies."""
    return Layout(tuple(renamed(_ours(config), _RULES)), prefixes=("", "resnet."))


def _ours(config: ModelConfig) -> Config:
    if not isinstance(config, Config):
        raise ModelwrightError(f"hub: a {config.family} is no resnet")
    if config.norm != "batch" or config.small_stem:
        raise ModelwrightError(
            "hub: published residual networks have batch norms and the large stem; train with"
            " model.norm: batch and model.stem: large to publish one"
        )
    return config
