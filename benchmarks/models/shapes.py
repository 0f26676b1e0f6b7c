"""The five models that are compared, here and in transformers, and their batches.

Dropout is off on both sides: it would be drawn differently, and losses are compared.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from modelwright.errors import ModelwrightError, did_you_mean

ONLY = "MODELWRIGHT_BENCH_MODELS"  # names of models with commas between; left out: all


@dataclass(frozen=True)
class Shape:
    """One model.

    Attributes:
        family: of ours, a module of ``modelwright.models``.
        fields: of its config.
        hub: the module of ``modelwright.hub`` that names its tensors as transformers does.
        theirs: the class of transformers.
        rows: of a batch.
        length: tokens of a row; 0: the rows are images.
        fused: whether ours learns by the head that makes no logits.
    """

    family: str
    fields: dict[str, Any]
    hub: str
    theirs: str
    rows: int
    length: int = 0
    fused: bool = False


_LLAMA = {
    "depth": 12,
    "width": 768,
    "heads": 12,
    "kv_heads": 12,
    "hidden": 2048,
    "context": 512,
    "tied": True,
    "vocabulary": 50_257,
}
_BERT = {"vocabulary": 30_522, "dropout": 0.0, "attention_dropout": 0.0, "head_dropout": 0.0}
LARGE = {
    "GPT-2 124M": Shape(
        "gpt2", {"size": "gpt2", "dropout": 0.0}, "gpt2", "GPT2LMHeadModel", 8, 512, fused=True
    ),
    "Llama-shaped 125M": Shape("llama", _LLAMA, "llama", "LlamaForCausalLM", 8, 512, fused=True),
    "BERT-base": Shape("bert", _BERT, "bert", "BertForSequenceClassification", 16, 256),
    "ResNet-50": Shape(
        "resnet",
        {"size": "resnet50", "classes": 1000},
        "resnet",
        "ResNetForImageClassification",
        32,
    ),
    "ViT-S": Shape(
        "vit", {"size": "vit-small-16", "classes": 1000}, "vit", "ViTForImageClassification", 32
    ),
}
_TINY = {"vocabulary": 300, "depth": 2, "width": 32, "heads": 2, "context": 32}
SMALL = {
    "GPT-2 tiny": Shape(
        "gpt2", {**_TINY, "dropout": 0.0}, "gpt2", "GPT2LMHeadModel", 2, 32, fused=True
    ),
    "Llama-shaped tiny": Shape(
        "llama",
        {**_TINY, "kv_heads": 2, "hidden": 64, "tied": True},
        "llama",
        "LlamaForCausalLM",
        2,
        32,
        fused=True,
    ),
    "BERT tiny": Shape("bert", {**_BERT, **_TINY}, "bert", "BertForSequenceClassification", 2, 32),
    "ResNet-18": Shape(
        "resnet",
        {"size": "resnet18", "classes": 10, "image": (64, 64), "stem": "large"},
        "resnet",
        "ResNetForImageClassification",
        2,
    ),
    "ViT tiny": Shape(
        "vit",
        {"classes": 10, "image": (32, 32), "patch": 8, "width": 32, "depth": 2, "heads": 2},
        "vit",
        "ViTForImageClassification",
        2,
    ),
}


def shapes(quick: bool) -> dict[str, Shape]:
    """All shapes, or tiny ones of the same five kinds; of both those that ``ONLY`` names.

    Raises:
        ModelwrightError: it names none of them.
    """
    found = SMALL if quick else LARGE
    chosen = [name for name in os.environ.get(ONLY, "").split(",") if name]
    if unknown := next((name for name in chosen if name not in found), None):
        hint = did_you_mean(unknown, found)
        raise ModelwrightError(f"{ONLY}: no model {unknown!r}{hint}; known: {', '.join(found)}")
    return {name: found[name] for name in chosen or found}
