"""Our own models of pictures in the hub's layout, under a ``model_type`` of their own.

For those that no published layout has: fast CNNs, residual networks with a small stem or group
norms. No other library knows them; the layout carries them from one training to the next, with the
preparation of their pictures beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from modelwright.errors import ModelwrightError
from modelwright.hub.names import Entry, Layout
from modelwright.hub.renamed import tensor_names
from modelwright.models import resnet
from modelwright.models.model import ModelConfig, from_dict

model_types = ("modelwright-pictures",)
architectures = ("fast_cnn", "resnet", "convnext", "vit")


def config_from(stored: Mapping[str, Any]) -> ModelConfig:
    """Our config, which ``config_to`` put under ``model``.

    Raises:
        ModelwrightError: it is of another family, or has fields that are unknown.
    """
    fields = stored.get("model")
    family = fields.get("family") if isinstance(fields, Mapping) else None
    if not isinstance(fields, Mapping) or family not in architectures:
        raise ModelwrightError(
            f"config.json: model_type {model_types[0]} with a model of family {family!r}; known:"
            f" {', '.join(architectures)}; write the model again"
        )
    return from_dict(fields)


def config_to(config: ModelConfig) -> dict[str, Any]:
    """Our config under ``model``; what follows from the size of pictures is written down.

    Else a network for small pictures would become one for large ones when it is given such.
    """
    if isinstance(config, resnet.Config):
        config = dataclasses.replace(config, stem="small" if config.small_stem else "large")
    return {"model_type": model_types[0], "model": config.to_dict()}


def layout(config: ModelConfig) -> Layout:
    """Every tensor under its own name."""
    return Layout([Entry(name, name) for name in tensor_names(config)])
