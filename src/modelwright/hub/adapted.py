"""Published models that no family here can hold, through ``models/adapted.py``.

Reached by ``through: transformers`` under ``model`` alone: a checkpoint never chooses it. Tensors
are stored under the names that the library writes, and reading is as strict as everywhere; what it
joins or cuts while loading (experts of a mixture) is refused by that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from modelwright.errors import ModelwrightError
from modelwright.hub.files import Published
from modelwright.hub.names import Entry, Layout
from modelwright.models.adapted import Config, config_for
from modelwright.models.model import ModelConfig

model_types = ("adapted",)
architectures = ("AutoModelForCausalLM", "AutoModelForSequenceClassification")
_HEADS = ("inner.classifier.*", "inner.score.*", "inner.classification_head.*")


def through_adapter(published: Published) -> Published:
    """The same checkpoint as this family reads it."""
    stored = dict(published.config)
    return replace(published, config={"model_type": model_types[0], "adapted": stored})


def config_from(stored: Mapping[str, Any]) -> Config:
    """Our config of their config.json."""
    return config_for(stored["adapted"])


def config_to(config: ModelConfig) -> dict[str, Any]:
    """Their config.json of our config."""
    c = _config(config)
    stored: dict[str, Any] = json.loads(c.architecture)
    kind = "CausalLM" if c.head == "causal" else "SequenceClassification"
    names = [str(n) for n in stored.get("architectures") or []]
    if not any(n.endswith(kind) for n in names):
        with torch.device("meta"):
            stored["architectures"] = [type(c.build().inner).__name__]
    return stored


def layout(config: ModelConfig) -> Layout:
    """Where every tensor lies: under its own name, a tied one under the first of its names."""
    c = _config(config)
    with torch.device("meta"):
        model = c.build()
    inner: Any = model.inner
    prefix = f"{inner.base_model_prefix}."
    tensors = inner.state_dict(keep_vars=True)
    stored = {id(t): name for name, t in _stored_names(inner, tensors).items()}
    entries: list[Entry] = []
    seen: dict[int, str] = {}
    for name, tensor in tensors.items():
        theirs = seen.setdefault(id(tensor), stored.get(id(tensor), name))
        entries.append(Entry(f"inner.{name}", theirs, also=(name,) if theirs != name else ()))
    passed: tuple[str, ...] = (
        "*.inv_freq",
        "*.attention.bias",
        "*.masked_bias",
        "lm_head.*",
        "*position_ids",
    )
    if c.head == "causal":
        passed = tuple(p for p in passed if p != "lm_head.*")
    return Layout(entries, (*passed, "generator_*", "discriminator_*"), ("", prefix), _HEADS)


def _stored_names(model: Any, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tensors by the names under which the library writes them, where it only renames."""
    from transformers.core_model_loading import revert_weight_conversion  # noqa: PLC0415 - extra

    written: Mapping[str, Any] = revert_weight_conversion(model, dict(tensors))
    return written


def _config(config: ModelConfig) -> Config:
    if not isinstance(config, Config):
        raise ModelwrightError(f"export: a {config.family} is not an adapted model")
    return config
