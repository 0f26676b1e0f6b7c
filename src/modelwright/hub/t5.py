"""Published checkpoints of T5 and T5 v1.1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelwright.errors import ModelwrightError
from modelwright.hub.names import Entry, Layout
from modelwright.models.model import ModelConfig
from modelwright.models.t5 import Config

model_types = ("t5",)
architectures = ("T5ForConditionalGeneration",)
_ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "silu": "silu", "gelu_new": "gelu_tanh"}


def config_from(stored: Mapping[str, Any]) -> Config:
    """Our config of their config.json; refuses by field what it cannot honour."""
    named = [str(a) for a in stored.get("architectures") or architectures]
    if named[0] not in (*architectures, "T5WithLMHeadModel", "T5Model"):
        raise _refused("architectures", named[0], f"known: {architectures[0]}")
    kind = str(stored.get("feed_forward_proj", "relu"))
    gated = kind.startswith("gated-")
    act = kind.removeprefix("gated-")
    if act not in _ACTIVATIONS:
        raise _refused("feed_forward_proj", kind, f"known: {', '.join(_ACTIVATIONS)}, gated-gelu")
    # "gated-gelu" has always meant the approximation by tanh.
    activation = "gelu_tanh" if kind == "gated-gelu" else _ACTIVATIONS[act]
    tied = bool(stored.get("tie_word_embeddings", True))
    end = stored.get("eos_token_id", 1)
    return Config(
        vocabulary=int(stored["vocab_size"]),
        depth=int(stored["num_layers"]),
        decoder_depth=int(stored.get("num_decoder_layers") or stored["num_layers"]),
        width=int(stored["d_model"]),
        heads=int(stored["num_heads"]),
        head_width=int(stored["d_kv"]),
        hidden=int(stored["d_ff"]),
        context=int(stored.get("n_positions") or 512),
        gated=gated,
        activation=activation,
        buckets=int(stored.get("relative_attention_num_buckets", 32)),
        distance=int(stored.get("relative_attention_max_distance", 128)),
        tied=tied,
        scaled=bool(stored.get("scale_decoder_outputs", tied)),
        eps=float(stored.get("layer_norm_epsilon", 1e-6)),
        dropout=float(stored.get("dropout_rate", 0.1)),
        start=int(stored.get("decoder_start_token_id") or 0),
        end=int(end[0] if isinstance(end, list) else end),
        padding=int(stored.get("pad_token_id") or 0),
    )


def config_to(config: ModelConfig) -> dict[str, Any]:
    """Their config.json of our config."""
    c = _own(config)
    act = next((k for k, v in _ACTIVATIONS.items() if v == c.activation), None)
    if c.gated:
        act = {"gelu_tanh": "gated-gelu", "relu": "gated-relu", "silu": "gated-silu"}.get(
            c.activation
        )
    if act is None:
        raise ModelwrightError(
            f"model.activation: no published T5 has {c.activation!r}"
            f"{' gated' if c.gated else ''}; take gelu_tanh or relu"
        )
    return {
        "architectures": list(architectures),
        "model_type": "t5",
        "is_encoder_decoder": True,
        "vocab_size": c.vocabulary,
        "num_layers": c.depth,
        "num_decoder_layers": c.decoder_layers,
        "d_model": c.width,
        "num_heads": c.heads,
        "d_kv": c.inner_width,
        "d_ff": c.hidden_width,
        "n_positions": c.context,
        "feed_forward_proj": act,
        "relative_attention_num_buckets": c.buckets,
        "relative_attention_max_distance": c.distance,
        "tie_word_embeddings": c.tied,
        "scale_decoder_outputs": c.scaled,
        "layer_norm_epsilon": c.eps,
        "dropout_rate": c.dropout,
        "decoder_start_token_id": c.start,
        "eos_token_id": c.end,
        "pad_token_id": c.padding,
    }


def layout(config: ModelConfig) -> Layout:
    """Where every tensor lies."""
    c = _own(config)
    tables = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    entries = [Entry("embedding.weight", "shared.weight", also=tables)]
    for side, depth in (("encoder", c.depth), ("decoder", c.decoder_layers)):
        first = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        entries.append(Entry(f"{side}_distances.table_embedding.weight", first))
        entries.append(Entry(f"{side}_norm.gain", f"{side}.final_layer_norm.weight"))
        for i in range(depth):
            entries += _layer(f"{side}_layers.{i}", f"{side}.block.{i}.layer", c, side)
    if not c.tied:
        entries.append(Entry("output.weight", "lm_head.weight"))
    passed = [
        *tables,
        # Old checkpoints store a table that their models never read.
        "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
    ]
    return Layout(entries, [*passed, "lm_head.weight"] if c.tied else passed, ("", "transformer."))


def _layer(ours: str, theirs: str, c: Config, side: str) -> list[Entry]:
    letters = {"query": "q", "key": "k", "value": "v", "out": "o"}
    parts = [("attention", "0.SelfAttention"), ("cross", "1.EncDecAttention")]
    parts = parts if side == "decoder" else parts[:1]
    last = len(parts)
    entries = []
    for mine, name in parts:
        entries += [
            Entry(f"{ours}.{mine}.{word}.weight", f"{theirs}.{name}.{letter}.weight")
            for word, letter in letters.items()
        ]
        entries.append(Entry(f"{ours}.{mine}_norm.gain", f"{theirs}.{name[0]}.layer_norm.weight"))
    feed = {"gate": "wi_0", "up": "wi_1"} if c.gated else {"up": "wi"}
    entries += [
        Entry(f"{ours}.feed_forward.{word}.weight", f"{theirs}.{last}.DenseReluDense.{name}.weight")
        for word, name in {**feed, "down": "wo"}.items()
    ]
    return [*entries, Entry(f"{ours}.feed_norm.gain", f"{theirs}.{last}.layer_norm.weight")]


def _own(config: ModelConfig) -> Config:
    if not isinstance(config, Config):
        raise ModelwrightError(f"hub: a {config.family} is not written as a T5")
    return config


def _refused(field: str, value: object, hint: str) -> ModelwrightError:
    return ModelwrightError(f"config.json: {field} {value!r} is not one that is read here; {hint}")
