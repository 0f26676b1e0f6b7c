"""Published checkpoints of GPT-2 and its likes (DistilGPT-2, Stanford's with scaled layers).

Dropout is a setting of their training, not of the function: it is not read, and 0 unless the
recipe gives it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelwright.errors import ModelwrightError
from modelwright.hub.names import Entry, Layout
from modelwright.models.gpt2 import Config
from modelwright.models.model import ModelConfig

model_types = ("gpt2",)
architectures = ("GPT2LMHeadModel", "GPT2Model")
_ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
}
_BLOCK = {
    "attention_norm": "ln_1",
    "attention.joined": "attn.c_attn",
    "attention.out": "attn.c_proj",
    "feed_norm": "ln_2",
    "feed_forward.up": "mlp.c_fc",
    "feed_forward.down": "mlp.c_proj",
}


def config_from(stored: Mapping[str, Any]) -> Config:
    """Our config of their config.json; refuses by field what it cannot honour."""
    if stored.get("add_cross_attention"):
        raise ModelwrightError(
            "config.json: add_cross_attention is not read here: a decoder alone has nothing to "
            "attend to; take a checkpoint without it"
        )
    given = str(stored.get("activation_function", "gelu_new"))
    if given not in _ACTIVATIONS:
        raise ModelwrightError(
            f"config.json: activation_function {given!r} is not one that is read here; known: "
            f"{', '.join(_ACTIVATIONS)}"
        )
    width = int(stored.get("n_embd", 768))
    hidden = int(stored.get("n_inner") or 4 * width)
    return Config(
        vocabulary=int(stored.get("vocab_size", 50257)),
        depth=int(stored.get("n_layer", 12)),
        width=width,
        heads=int(stored.get("n_head", 12)),
        hidden=0 if hidden == 4 * width else hidden,
        context=int(stored.get("n_positions", 1024)),
        activation=_ACTIVATIONS[given],
        eps=float(stored.get("layer_norm_epsilon", 1e-5)),
        tied=bool(stored.get("tie_word_embeddings", True)),
        scaled=bool(stored.get("scale_attn_weights", True)),
        by_layer=bool(stored.get("scale_attn_by_inverse_layer_idx", False)),
    )


def config_to(config: ModelConfig) -> dict[str, Any]:
    """Their config.json of our config."""
    c = _gpt2(config)
    activations = {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())}
    return {
        "architectures": [architectures[0]],
        "model_type": "gpt2",
        "vocab_size": c.vocabulary,
        "n_layer": c.depth,
        "n_embd": c.width,
        "n_head": c.heads,
        "n_inner": c.hidden or None,
        "n_positions": c.context,
        "n_ctx": c.context,
        "activation_function": activations[c.activation],
        "layer_norm_epsilon": c.eps,
        "tie_word_embeddings": c.tied,
        "scale_attn_weights": c.scaled,
        "scale_attn_by_inverse_layer_idx": c.by_layer,
        "attn_pdrop": 0.0,
        "embd_pdrop": c.dropout,
        "resid_pdrop": c.dropout,
    }


def layout(config: ModelConfig) -> Layout:
    """Where every tensor lies; their matrices (Conv1D) are stored transposed."""
    c = _gpt2(config)
    entries = [
        Entry("embedding.weight", "transformer.wte.weight"),
        Entry("position_embedding.weight", "transformer.wpe.weight"),
    ]
    for i in range(c.depth):
        for ours, theirs in _BLOCK.items():
            here, there = f"blocks.{i}.{ours}", f"transformer.h.{i}.{theirs}"
            matrix = not theirs.startswith("ln_")
            entries.append(Entry(f"{here}.weight", f"{there}.weight", transposed=matrix))
            entries.append(Entry(f"{here}.bias", f"{there}.bias"))
    entries += [Entry(f"norm.{part}", f"transformer.ln_f.{part}") for part in ("weight", "bias")]
    # Older files hold the causal mask as buffers.
    passed = ["*.attn.bias", "*.attn.masked_bias"]
    if c.tied:
        passed.append("lm_head.weight")
    else:
        entries.append(Entry("output.weight", "lm_head.weight"))
    return Layout(tuple(entries), tuple(passed), ("", "transformer."))


def _gpt2(config: ModelConfig) -> Config:
    if not isinstance(config, Config):
        raise ModelwrightError(f"model.family: a {config.family} cannot be written as gpt2")
    return config
