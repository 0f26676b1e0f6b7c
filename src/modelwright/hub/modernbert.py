"""Published checkpoints of ModernBERT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelwright.errors import ModelwrightError
from modelwright.hub.names import Entry, Layout
from modelwright.models.model import ModelConfig
from modelwright.models.modernbert import Config

model_types = ("modernbert",)
_TASKS = {
    "ModernBertForMaskedLM": "masked_language",
    "ModernBertForSequenceClassification": "classification",
    "ModernBertForTokenClassification": "tokens",
    "ModernBertForQuestionAnswering": "span",
    "ModernBertModel": "none",
}
architectures = tuple(_TASKS)
_ACTIVATIONS = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu", "silu": "silu"}
_KINDS = ("full_attention", "sliding_attention")


def config_from(stored: Mapping[str, Any]) -> Config:
    """Our config of their config.json; refuses by field what it cannot honour."""
    named = [str(a) for a in stored.get("architectures") or ["ModernBertModel"]]
    if named[0] not in _TASKS:
        raise _refused("architectures", named[0], f"known: {', '.join(architectures)}")
    head = _TASKS[named[0]]
    for field in ("hidden_activation", "classifier_activation"):
        if str(stored.get(field, "gelu")) not in _ACTIVATIONS:
            raise _refused(field, stored[field], f"known: {', '.join(_ACTIVATIONS)}")
    bias = bool(stored.get("attention_bias", False))
    if bool(stored.get("mlp_bias", False)) != bias:
        raise _refused("mlp_bias", not bias, "it must be that of attention_bias")
    bases = _bases(stored)
    labels = stored.get("id2label") or range(int(stored.get("num_labels") or 2))
    return Config(
        vocabulary=int(stored["vocab_size"]),
        head=head,
        classes=len(labels),
        depth=int(stored["num_hidden_layers"]),
        width=int(stored["hidden_size"]),
        heads=int(stored["num_attention_heads"]),
        hidden=int(stored["intermediate_size"]),
        context=int(stored.get("max_position_embeddings", 8192)),
        every=_every(stored),
        window=int(stored.get("local_attention", 128)) // 2,
        rope_base=bases[0],
        rope_base_local=bases[1],
        activation=_ACTIVATIONS[str(stored.get("hidden_activation", "gelu"))],
        head_activation=_ACTIVATIONS[str(stored.get("classifier_activation", "gelu"))],
        pooling="mean" if stored.get("classifier_pooling") == "mean" else "first",
        eps=float(stored.get("norm_eps", 1e-5)),
        bias=bias,
        norm_bias=bool(stored.get("norm_bias", False)),
        head_bias=bool(stored.get("classifier_bias", False)),
        output_bias=bool(stored.get("decoder_bias", True)),
        tied=bool(stored.get("tie_word_embeddings", True)),
        dropout=float(stored.get("mlp_dropout", 0.0)),
        embedding_dropout=float(stored.get("embedding_dropout", 0.0)),
        attention_dropout=float(stored.get("attention_dropout", 0.0)),
        head_dropout=float(stored.get("classifier_dropout", 0.0)),
    )


def _bases(stored: Mapping[str, Any]) -> tuple[float, float]:
    """The rotary bases of whole and windowed layers, in the new or the old way of writing."""
    found = stored.get("rope_parameters")
    if found is None:
        if stored.get("rope_scaling"):
            raise _refused("rope_scaling", stored["rope_scaling"], "only plain rotary positions")
        old = (stored.get("global_rope_theta"), stored.get("local_rope_theta"))
        whole, near = (float(b or d) for b, d in zip(old, (160_000.0, 10_000.0), strict=True))
        return whole, near
    for kind in _KINDS:
        if found[kind].get("rope_type", "default") != "default":
            raise _refused("rope_parameters", found[kind], "only plain rotary positions")
    return float(found[_KINDS[0]]["rope_theta"]), float(found[_KINDS[1]]["rope_theta"])


def _every(stored: Mapping[str, Any]) -> int:
    """Each how manieth layer sees the whole document."""
    kinds = stored.get("layer_types")
    depth = int(stored["num_hidden_layers"])
    if kinds is None:
        return int(stored.get("global_attn_every_n_layers", 3))
    for every in range(1, depth + 1):
        if list(kinds) == [_KINDS[bool(i % every)] for i in range(depth)]:
            return every
    raise _refused("layer_types", kinds, "whole layers must come at equal distances from the first")


def config_to(config: ModelConfig) -> dict[str, Any]:
    """Their config.json of our config."""
    c = _own(config)
    act = {v: k for k, v in _ACTIVATIONS.items()}
    for field in ("activation", "head_activation"):
        if getattr(c, field) not in act:
            raise ModelwrightError(f"model.{field}: no published ModernBERT has it; take gelu")
    names = [f"LABEL_{i}" for i in range(2 if c.head == "span" else c.classes)]
    return {
        "architectures": [next(n for n, head in _TASKS.items() if head == c.head)],
        "model_type": "modernbert",
        "vocab_size": c.vocabulary,
        "hidden_size": c.width,
        "num_hidden_layers": c.depth,
        "num_attention_heads": c.heads,
        "intermediate_size": c.hidden_width,
        "max_position_embeddings": c.context,
        "layer_types": [_KINDS[not c.sees_all(i)] for i in range(c.depth)],
        "global_attn_every_n_layers": c.every,
        "local_attention": 2 * c.window,
        "rope_parameters": {
            kind: {"rope_theta": base, "rope_type": "default"}
            for kind, base in zip(_KINDS, (c.rope_base, c.rope_base_local), strict=True)
        },
        "hidden_activation": act[c.activation],
        "classifier_activation": act[c.head_activation],
        "classifier_pooling": "mean" if c.pooling == "mean" else "cls",
        "norm_eps": c.eps,
        "norm_bias": c.norm_bias,
        "attention_bias": c.bias,
        "mlp_bias": c.bias,
        "classifier_bias": c.head_bias,
        "decoder_bias": c.output_bias,
        "tie_word_embeddings": c.tied,
        "mlp_dropout": c.dropout,
        "embedding_dropout": c.embedding_dropout,
        "attention_dropout": c.attention_dropout,
        "classifier_dropout": c.head_dropout,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
        "cls_token_id": None,
        "sep_token_id": None,
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }


def layout(config: ModelConfig) -> Layout:
    """Where every tensor lies."""
    c = _own(config)
    base = "" if c.head == "none" else "model."
    entries = [Entry("embedding.weight", f"{base}embeddings.tok_embeddings.weight")]
    entries += _both("embedding_norm", f"{base}embeddings.norm", c.norm_bias)
    for i in range(c.depth):
        ours, theirs = f"blocks.{i}", f"{base}layers.{i}"
        if i:
            entries += _both(f"{ours}.attention_norm", f"{theirs}.attn_norm", c.norm_bias)
        entries += _both(f"{ours}.feed_norm", f"{theirs}.mlp_norm", c.norm_bias)
        for part in ("weight", "bias") if c.bias else ("weight",):
            for n, name in enumerate(("query", "key", "value")):
                entries.append(
                    Entry(
                        f"{ours}.attention.{name}.{part}",
                        f"{theirs}.attn.Wqkv.{part}",
                        part=(n * c.width, c.width),
                    )
                )
            for n, name in enumerate(("gate", "up")):
                entries.append(
                    Entry(
                        f"{ours}.feed_forward.{name}.{part}",
                        f"{theirs}.mlp.Wi.{part}",
                        part=(n * c.hidden_width, c.hidden_width),
                    )
                )
        entries += _both(f"{ours}.attention.out", f"{theirs}.attn.Wo", c.bias)
        entries += _both(f"{ours}.feed_forward.down", f"{theirs}.mlp.Wo", c.bias)
    entries += _both("norm", f"{base}final_norm", c.norm_bias)
    heads = ("output.*", "output_bias", "transform.*", "transform_norm.*")
    return Layout([*entries, *_head(c)], _passed(c), ("", "model."), heads)


def _head(c: Config) -> list[Entry]:
    if c.head == "none":
        return []
    entries = _both("transform", "head.dense", c.head_bias)
    entries += _both("transform_norm", "head.norm", c.norm_bias)
    if c.head != "masked_language":
        return [*entries, *_both("output", "classifier", True)]
    if not c.tied:
        return [*entries, *_both("output", "decoder", c.output_bias)]
    return [*entries, *([Entry("output_bias", "decoder.bias")] if c.output_bias else [])]


def _passed(c: Config) -> list[str]:
    if c.head == "none":
        return ["head.*", "decoder.*", "classifier.*"]
    return ["decoder.weight"] if c.head == "masked_language" and c.tied else []


def _both(ours: str, theirs: str, bias: bool) -> list[Entry]:
    parts = ("weight", "bias") if bias else ("weight",)
    return [Entry(f"{ours}.{part}", f"{theirs}.{part}") for part in parts]


def _own(config: ModelConfig) -> Config:
    if not isinstance(config, Config):
        raise ModelwrightError(f"hub: a {config.family} is not written as a ModernBERT")
    return config


def _refused(field: str, value: object, hint: str) -> ModelwrightError:
    return ModelwrightError(f"config.json: {field} {value!r} is not one that is read here; {hint}")
