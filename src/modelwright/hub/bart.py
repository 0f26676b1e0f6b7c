"""Published checkpoints of BART, mBART and Marian, all of them ``models/bart.py``.

Which of the three a config of ours is written as follows from its shape: Marian's positions are
sines, mBART's norms stand first, BART is the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelwright.errors import ModelwrightError
from modelwright.hub.names import Entry, Layout
from modelwright.models.bart import Config
from modelwright.models.model import ModelConfig

model_types = ("bart", "marian", "mbart")
_CLASSES = {
    "bart": "BartForConditionalGeneration",
    "marian": "MarianMTModel",
    "mbart": "MBartForConditionalGeneration",
}
_BARE = ("BartModel", "MarianModel", "MBartModel")
architectures = tuple(_CLASSES.values())
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}


def config_from(stored: Mapping[str, Any]) -> Config:
    """Our config of their config.json; refuses by field what it cannot honour."""
    kind = str(stored.get("model_type"))
    named = [str(a) for a in stored.get("architectures") or [_CLASSES[kind]]]
    if named[0] not in (_CLASSES[kind], *_BARE):
        raise _refused("architectures", named[0], f"known: {', '.join(architectures)}")
    act = str(stored.get("activation_function", "gelu"))
    if act not in _ACTIVATIONS:
        raise _refused("activation_function", act, f"known: {', '.join(_ACTIVATIONS)}")
    vocabulary = int(stored["vocab_size"])
    if not stored.get("share_encoder_decoder_embeddings", True) or (
        int(stored.get("decoder_vocab_size") or vocabulary) != vocabulary
    ):
        raise _refused(
            "share_encoder_decoder_embeddings", False, "sources and targets share a vocabulary here"
        )
    for field, only in (
        ("normalize_before", kind == "mbart"),
        ("normalize_embedding", kind != "marian"),
        ("add_final_layer_norm", kind == "mbart"),
        ("static_position_embeddings", kind == "marian"),
        ("add_bias_logits", False),
        ("encoder_layerdrop", 0.0),
        ("decoder_layerdrop", 0.0),
    ):
        if (stored.get(field) or only) != only and field.endswith("layerdrop"):
            raise _refused(field, stored[field], "layers are never left out here; set it to 0")
        if stored.get(field, only) != only and kind != "bart" and not field.startswith("add_"):
            raise _refused(field, stored[field], f"a {kind} has {only}")
    end = stored.get("eos_token_id", 0 if kind == "marian" else 2)
    start = stored.get("decoder_start_token_id")
    return Config(
        vocabulary=vocabulary,
        depth=int(stored["encoder_layers"]),
        decoder_depth=int(stored["decoder_layers"]),
        width=int(stored["d_model"]),
        heads=int(stored["encoder_attention_heads"]),
        decoder_heads=int(stored["decoder_attention_heads"]),
        hidden=int(stored["encoder_ffn_dim"]),
        decoder_hidden=int(stored["decoder_ffn_dim"]),
        context=int(stored["max_position_embeddings"]),
        positions="sines" if kind == "marian" else "learned",
        embedding_norm=kind != "marian",
        scaled_embedding=bool(stored.get("scale_embedding", False)),
        norm_first=kind == "mbart",
        activation=_ACTIVATIONS[act],
        # Of the bare model no head is stored: it is the embedding, without a bias.
        output_bias=named[0] not in _BARE,
        tied=bool(stored.get("tie_word_embeddings", True)),
        dropout=float(stored.get("dropout", 0.1)),
        hidden_dropout=float(stored.get("activation_dropout", 0.0)),
        attention_dropout=float(stored.get("attention_dropout", 0.0)),
        start=int(start if start is not None else stored.get("pad_token_id") or 2),
        end=int(end[0] if isinstance(end, list) else end),
        padding=int(stored.get("pad_token_id", 1)),
    )


def config_to(config: ModelConfig) -> dict[str, Any]:
    """Their config.json of our config."""
    c = _own(config)
    kind = _kind(c)
    act = {v: k for k, v in reversed(_ACTIVATIONS.items())}
    if c.activation not in act:
        raise ModelwrightError(f"model.activation: no published {kind} has {c.activation!r}")
    sides = {"encoder": c.side(decoding=False), "decoder": c.side(decoding=True)}
    stored: dict[str, Any] = {
        "architectures": [_CLASSES[kind]],
        "model_type": kind,
        "is_encoder_decoder": True,
        "vocab_size": c.vocabulary,
        "d_model": c.width,
        "max_position_embeddings": c.context,
        "activation_function": act[c.activation],
        "scale_embedding": c.scaled_embedding,
        "tie_word_embeddings": c.tied,
        "dropout": c.dropout,
        "activation_dropout": c.hidden_dropout,
        "attention_dropout": c.attention_dropout,
        "decoder_start_token_id": c.start,
        "eos_token_id": c.end,
        "forced_eos_token_id": c.end,
        "pad_token_id": c.padding,
    }
    for side, (depth, heads, hidden) in sides.items():
        stored[f"{side}_layers"] = depth
        stored[f"{side}_attention_heads"] = heads
        stored[f"{side}_ffn_dim"] = hidden
    if kind == "marian":
        stored |= {"decoder_vocab_size": c.vocabulary, "share_encoder_decoder_embeddings": True}
    return stored


def layout(config: ModelConfig) -> Layout:
    """Where every tensor lies."""
    c = _own(config)
    _kind(c)
    tables = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")
    entries = [Entry("embedding.weight", "model.shared.weight", also=tables)]
    if c.output_bias:
        entries.append(Entry("output_bias", "final_logits_bias", shape=(1, c.vocabulary)))
    if not c.tied:
        entries.append(Entry("output.weight", "lm_head.weight"))
    for side, decoding in (("encoder", False), ("decoder", True)):
        if c.positions == "learned":
            entries.append(
                Entry(f"{side}_positions.weight", f"model.{side}.embed_positions.weight")
            )
        if c.embedding_norm:
            entries += _both(f"{side}_embedding_norm", f"model.{side}.layernorm_embedding")
        if c.norm_first:
            entries += _both(f"{side}_norm", f"model.{side}.layer_norm")
        for i in range(c.side(decoding=decoding)[0]):
            for ours, theirs in _parts(decoding):
                entries += _both(f"{side}_layers.{i}.{ours}", f"model.{side}.layers.{i}.{theirs}")
    passed = [*tables, "model.encoder.version", "model.decoder.version"]
    if c.tied:
        passed.append("lm_head.weight")
    if c.positions == "sines":
        passed.append("model.*coder.embed_positions.weight")
    return Layout(entries, passed, ("", "model."))


def _parts(decoding: bool) -> list[tuple[str, str]]:
    words = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}
    names = {"attention": "self_attn", **({"cross": "encoder_attn"} if decoding else {})}
    parts = [
        ("feed_forward.up", "fc1"),
        ("feed_forward.down", "fc2"),
        ("feed_norm", "final_layer_norm"),
    ]
    for ours, theirs in names.items():
        parts += [(f"{ours}.{word}", f"{theirs}.{name}") for word, name in words.items()]
        parts.append((f"{ours}_norm", f"{theirs}_layer_norm"))
    return parts


def _both(ours: str, theirs: str) -> list[Entry]:
    return [Entry(f"{ours}.{part}", f"{theirs}.{part}") for part in ("weight", "bias")]


def _own(config: ModelConfig) -> Config:
    if not isinstance(config, Config):
        raise ModelwrightError(f"hub: a {config.family} is not written as a BART")
    return config


def _kind(c: Config) -> str:
    """Which of the three a config is.

    Raises:
        ModelwrightError: it is none of them.
    """
    kind = "marian" if c.positions == "sines" else "mbart" if c.norm_first else "bart"
    if c.embedding_norm == (kind == "marian") or (c.norm_first and kind != "mbart"):
        raise ModelwrightError(
            f"model: no published {kind} has embedding_norm={c.embedding_norm} with"
            f" norm_first={c.norm_first}"
        )
    return kind


def _refused(field: str, value: object, hint: str) -> ModelwrightError:
    return ModelwrightError(f"config.json: {field} {value!r} is not one that is read here; {hint}")
