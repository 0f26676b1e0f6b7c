"""Our own decoder in the hub's layout, under a ``model_type`` of its own.

No other library knows this architecture; the layout carries it between runs and machines.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from modelwright.hub.names import Entry, Layout
from modelwright.models.decoder import Config
from modelwright.models.model import from_dict

model_types = ("modelwright-decoder",)
architectures = ("ModelwrightDecoder",)


def config_from(stored: Mapping[str, Any]) -> Config:
    """Our config of the fields that ``config_to`` wrote."""
    known = {f.name for f in dataclasses.fields(Config)}
    config = from_dict({"family": "decoder", **{k: v for k, v in stored.items() if k in known}})
    assert isinstance(config, Config)  # noqa: S101 - what from_dict makes of that family
    return config


def config_to(config: Config) -> dict[str, Any]:
    """All fields of the config under their own names."""
    return {
        "model_type": model_types[0],
        "architectures": list(architectures),
        **dataclasses.asdict(config),
        "tie_word_embeddings": config.tied,
    }


def layout(config: Config) -> Layout:
    """Every tensor under its own name; a tied head is not stored."""
    with torch.device("meta"):
        names = list(config.build().state_dict())
    kept = [n for n in names if not (config.tied and n == "output.weight")]
    return Layout([Entry(n, n) for n in kept])
