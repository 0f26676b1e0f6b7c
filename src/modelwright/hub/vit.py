"""Published checkpoints of Vision Transformers: google/vit-base-patch16-224 and its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelwright.errors import ModelwrightError
from modelwright.hub.convnext import image_of
from modelwright.hub.names import Layout
from modelwright.hub.renamed import renamed
from modelwright.hub.resnet import classes_of, labels_of, only
from modelwright.models.model import ModelConfig
from modelwright.models.vit import Config

model_types = ("vit",)
architectures = ("ViTForImageClassification",)

_BLOCK = r"blocks\.(\d+)\."
_THEIRS = r"vit.encoder.layer.\1."
_RULES = (
    (r"token", "vit.embeddings.cls_token"),
    (r"positions", "vit.embeddings.position_embeddings"),
    (r"patch\.(.+)", r"vit.embeddings.patch_embeddings.projection.\1"),
    (_BLOCK + r"attention\.(query|key|value)\.(.+)", _THEIRS + r"attention.attention.\2.\3"),
    (_BLOCK + r"attention\.out\.(.+)", _THEIRS + r"attention.output.dense.\2"),
    (_BLOCK + r"attention_norm\.(.+)", _THEIRS + r"layernorm_before.\2"),
    (_BLOCK + r"feed_norm\.(.+)", _THEIRS + r"layernorm_after.\2"),
    (_BLOCK + r"up\.(.+)", _THEIRS + r"intermediate.dense.\2"),
    (_BLOCK + r"down\.(.+)", _THEIRS + r"output.dense.\2"),
    (r"norm\.(.+)", r"vit.layernorm.\1"),
    (r"head\.(.+)", r"classifier.\1"),
)


def config_from(stored: Mapping[str, Any]) -> Config:
    """Our config of their config.json.

    Raises:
        ModelwrightError: a field has a value that our family does not have.
    """
    only(stored, "hidden_act", "gelu")
    only(stored, "qkv_bias", True)
    only(stored, "attention_probs_dropout_prob", 0.0)
    patch = stored.get("patch_size", 16)
    if not isinstance(patch, int):
        raise ModelwrightError(f"config.json: patch_size = {patch!r}; square patches are read")
    width, hidden = stored.get("hidden_size", 768), stored.get("intermediate_size", 3072)
    return Config(
        classes=classes_of(stored),
        image=image_of(stored),
        channels=stored.get("num_channels", 3),
        patch=patch,
        width=width,
        depth=stored.get("num_hidden_layers", 12),
        heads=stored.get("num_attention_heads", 12),
        hidden=0 if hidden == 4 * width else hidden,
        dropout=float(stored.get("hidden_dropout_prob", 0.0)),
        eps=float(stored.get("layer_norm_eps", 1e-12)),
    )


def config_to(config: ModelConfig) -> dict[str, Any]:
    """Their config.json of our config."""
    c = _ours(config)
    return {
        "model_type": "vit",
        "architectures": list(architectures),
        "image_size": list(c.image) if c.image[0] != c.image[1] else c.image[0],
        "patch_size": c.patch_side,
        "num_channels": c.channels,
        "hidden_size": c.width,
        "num_hidden_layers": c.depth,
        "num_attention_heads": c.heads,
        "intermediate_size": c.hidden or 4 * c.width,
        "hidden_act": "gelu",
        "hidden_dropout_prob": c.dropout,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": c.eps,
        "qkv_bias": True,
        **labels_of(c.classes),
    }


def layout(config: ModelConfig) -> Layout:
    """Where every tensor lies; the pooler and the mask token are of other tasks."""
    return Layout(
        tuple(renamed(_ours(config), _RULES)),
        passed=("vit.pooler.*", "vit.embeddings.mask_token"),
        prefixes=("", "vit."),
    )


def _ours(config: ModelConfig) -> Config:
    if not isinstance(config, Config):
        raise ModelwrightError(f"hub: a {config.family} is no vit")
    if config.pool != "token" or config.drop_path:
        raise ModelwrightError(
            "hub: published Vision Transformers read a class token and drop no paths; train with"
            " model.pool: token and model.drop_path: 0 to publish one"
        )
    return config
