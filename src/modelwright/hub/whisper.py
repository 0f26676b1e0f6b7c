"""Published checkpoints of Whisper: openai/whisper-tiny to whisper-large-v3-turbo."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from modelwright.errors import ModelwrightError
from modelwright.hub.names import Entry, Layout
from modelwright.models.model import ModelConfig
from modelwright.models.whisper import Config

model_types = ("whisper",)
architectures = ("WhisperForConditionalGeneration",)

# Ours by theirs, of a block.
_ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}
_ENCODER_NORMS = {"attention_norm": "self_attn_layer_norm", "feed_norm": "final_layer_norm"}
_FEED = {"feed_forward.up": "fc1", "feed_forward.down": "fc2"}


def config_from(stored: Mapping[str, Any]) -> Config:
    """Our config of their config.json.

    Raises:
        ModelwrightError: a field has a value that our family does not have.
    """
    refuse(stored, {"activation_function": "gelu", "tie_word_embeddings": True})
    width = stored.get("d_model", 384)
    heads = stored.get("encoder_attention_heads", 6)
    refuse(stored, {"decoder_attention_heads": heads}, of="encoder_attention_heads")
    hidden = stored.get("encoder_ffn_dim", 1536)
    refuse(stored, {"decoder_ffn_dim": hidden}, of="encoder_ffn_dim")
    return Config(
        vocabulary=stored.get("vocab_size", 51865),
        bands=stored.get("num_mel_bins", 80),
        frames=stored.get("max_source_positions", 1500),
        context=stored.get("max_target_positions", 448),
        encoder_depth=stored.get("encoder_layers", 4),
        decoder_depth=stored.get("decoder_layers", 4),
        width=width,
        heads=heads,
        hidden=0 if hidden == 4 * width else hidden,
        dropout=float(stored.get("dropout", 0.0)),
        start_token=stored.get("decoder_start_token_id", 50257),
        end_token=stored.get("eos_token_id", 50256),
    )


def refuse(stored: Mapping[str, Any], only: Mapping[str, Any], of: str = "") -> None:
    """Refuse fields whose value is another than the one that our family has.

    Raises:
        ModelwrightError: names the field, its value and the one that is read.
    """
    for name, value in only.items():
        if stored.get(name, value) != value:
            why = f"that of {of}, {value!r}" if of else repr(value)
            raise ModelwrightError(f"config.json: {name} = {stored[name]!r}, only {why} is read")


def config_to(config: ModelConfig) -> dict[str, Any]:
    """Their config.json of our config."""
    if not isinstance(config, Config):
        raise ModelwrightError(f"hub: a {config.family} is no whisper")
    c = config
    return {
        "model_type": "whisper",
        "architectures": list(architectures),
        "vocab_size": c.vocabulary,
        "num_mel_bins": c.bands,
        "max_source_positions": c.frames,
        "max_target_positions": c.context,
        "encoder_layers": c.encoder_depth,
        "decoder_layers": c.decoder_depth,
        "num_hidden_layers": c.encoder_depth,
        "d_model": c.width,
        "encoder_attention_heads": c.heads,
        "decoder_attention_heads": c.heads,
        "encoder_ffn_dim": c.hidden_width,
        "decoder_ffn_dim": c.hidden_width,
        "activation_function": "gelu",
        "dropout": c.dropout,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "encoder_layerdrop": 0.0,
        "decoder_layerdrop": 0.0,
        "scale_embedding": False,
        "tie_word_embeddings": True,
        "is_encoder_decoder": True,
        "decoder_start_token_id": c.start_token,
        "bos_token_id": c.end_token,
        "eos_token_id": c.end_token,
        "pad_token_id": c.end_token,
        # What is never to be written is the generation config's to say, not the shape's.
        "begin_suppress_tokens": None,
        "suppress_tokens": None,
    }


def layout(config: ModelConfig) -> Layout:
    """Where every tensor lies; the head is the embedding and is passed over."""
    if not isinstance(config, Config):
        raise ModelwrightError(f"hub: a {config.family} is no whisper")
    return Layout(
        [Entry(ours, theirs) for ours, theirs in _names(config)], passed=("proj_out.weight",)
    )


def _names(c: Config) -> Iterator[tuple[str, str]]:
    yield "encoder.positions", "model.encoder.embed_positions.weight"
    yield "embedding.weight", "model.decoder.embed_tokens.weight"
    yield "position_embedding.weight", "model.decoder.embed_positions.weight"
    whole = {
        "encoder.first": "encoder.conv1",
        "encoder.second": "encoder.conv2",
        "encoder.norm": "encoder.layer_norm",
        "norm": "decoder.layer_norm",
    }
    for ours, theirs in whole.items():
        yield from _both(ours, f"model.{theirs}")
    for i in range(c.encoder_depth):
        ours, theirs = f"encoder.blocks.{i}", f"model.encoder.layers.{i}"
        yield from _attention(f"{ours}.attention", f"{theirs}.self_attn")
        for a, b in (_ENCODER_NORMS | _FEED).items():
            yield from _both(f"{ours}.{a}", f"{theirs}.{b}")
    for i in range(c.decoder_depth):
        ours, theirs = f"blocks.{i}", f"model.decoder.layers.{i}"
        yield from _attention(f"{ours}.attention", f"{theirs}.self_attn")
        yield from _attention(f"{ours}.sound_attention", f"{theirs}.encoder_attn")
        norms = {**_ENCODER_NORMS, "sound_norm": "encoder_attn_layer_norm"}
        for a, b in (norms | _FEED).items():
            yield from _both(f"{ours}.{a}", f"{theirs}.{b}")


def _attention(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    for a, b in _ATTENTION.items():
        for ending in ("weight",) if a == "key" else ("weight", "bias"):
            yield f"{ours}.{a}.{ending}", f"{theirs}.{b}.{ending}"


def _both(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    for ending in ("weight", "bias"):
        yield f"{ours}.{ending}", f"{theirs}.{ending}"
