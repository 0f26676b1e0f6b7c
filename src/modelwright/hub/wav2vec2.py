"""Published checkpoints of wav2vec 2.0 with a CTC head, such as facebook/wav2vec2-base-960h."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from modelwright.errors import ModelwrightError
from modelwright.hub.names import Entry, Layout
from modelwright.models.model import ModelConfig
from modelwright.models.wav2vec2 import Config

model_types = ("wav2vec2",)
architectures = ("Wav2Vec2ForCTC",)

# Fields that must have this value, where a checkpoint has them at all.
_ONLY: dict[str, Any] = {
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "add_adapter": False,
    "adapter_attn_dim": None,
}
_DEFAULTS = Config()
_BLOCK = {
    "attention.query": "attention.q_proj",
    "attention.key": "attention.k_proj",
    "attention.value": "attention.v_proj",
    "attention.out": "attention.out_proj",
    "attention_norm": "layer_norm",
    "up": "feed_forward.intermediate_dense",
    "down": "feed_forward.output_dense",
    "feed_norm": "final_layer_norm",
}


def config_from(stored: Mapping[str, Any]) -> Config:
    """Our config of their config.json.

    Raises:
        ModelwrightError: a field has a value that our family does not have.
    """
    for name, value in _ONLY.items():
        if stored.get(name, value) != value:
            raise ModelwrightError(
                f"config.json: {name} = {stored[name]!r}, only {value!r} is read"
            )
    width, hidden = stored.get("hidden_size", 768), stored.get("intermediate_size", 3072)
    vocabulary = stored.get("vocab_size", 32)
    if vocabulary is None:
        raise ModelwrightError("config.json: no vocab_size, so there is no head of letters to read")
    return Config(
        vocabulary=vocabulary,
        depth=stored.get("num_hidden_layers", 12),
        width=width,
        heads=stored.get("num_attention_heads", 12),
        hidden=0 if hidden == 4 * width else hidden,
        conv_widths=tuple(stored.get("conv_dim", _DEFAULTS.conv_widths)),
        conv_kernels=tuple(stored.get("conv_kernel", _DEFAULTS.conv_kernels)),
        conv_strides=tuple(stored.get("conv_stride", _DEFAULTS.conv_strides)),
        conv_bias=stored.get("conv_bias", False),
        norm=stored.get("feat_extract_norm", "group"),
        norm_first=stored.get("do_stable_layer_norm", False),
        position_kernel=stored.get("num_conv_pos_embeddings", 128),
        position_groups=stored.get("num_conv_pos_embedding_groups", 16),
        eps=float(stored.get("layer_norm_eps", 1e-5)),
        dropout=float(stored.get("hidden_dropout", 0.1)),
    )


def config_to(config: ModelConfig) -> dict[str, Any]:
    """Their config.json of our config; the blank of CTC is token 0, theirs for padding."""
    c = _checked(config)
    dropouts = ("hidden", "activation", "final")
    return {
        "model_type": "wav2vec2",
        "architectures": list(architectures),
        "vocab_size": c.vocabulary,
        "num_hidden_layers": c.depth,
        "hidden_size": c.width,
        "num_attention_heads": c.heads,
        "intermediate_size": c.hidden_width,
        "conv_dim": list(c.conv_widths),
        "conv_kernel": list(c.conv_kernels),
        "conv_stride": list(c.conv_strides),
        "conv_bias": c.conv_bias,
        "feat_extract_norm": c.norm,
        "do_stable_layer_norm": c.norm_first,
        "num_conv_pos_embeddings": c.position_kernel,
        "num_conv_pos_embedding_groups": c.position_groups,
        "layer_norm_eps": c.eps,
        "hidden_act": "gelu",
        "feat_extract_activation": "gelu",
        **{f"{name}_dropout": c.dropout for name in dropouts},
        "attention_dropout": 0.0,
        "layerdrop": 0.0,
        "pad_token_id": 0,
        # Masking of frames in training is ours to do from outside; so no vector for it is stored.
        "apply_spec_augment": False,
        "mask_time_prob": 0.0,
        "mask_feature_prob": 0.0,
    }


def layout(config: ModelConfig) -> Layout:
    """Where every tensor lies; the vector for masked frames and the quantiser are passed over."""
    entries = list(_entries(_checked(config)))
    passed = ("wav2vec2.masked_spec_embed", "quantizer.*", "project_hid.*", "project_q.*")
    return Layout(entries, passed=passed)


def _checked(config: ModelConfig) -> Config:
    if not isinstance(config, Config):
        raise ModelwrightError(f"hub: a {config.family} is no wav2vec2")
    return config


def _entries(c: Config) -> Iterator[Entry]:
    for i in range(len(c.conv_widths)):
        ours, theirs = f"convolutions.{i}", f"wav2vec2.feature_extractor.conv_layers.{i}"
        yield Entry(f"{ours}.conv.weight", f"{theirs}.conv.weight")
        if c.conv_bias:
            yield Entry(f"{ours}.conv.bias", f"{theirs}.conv.bias")
        if c.norm == "layer" or i == 0:
            yield from _both(f"{ours}.norm", f"{theirs}.layer_norm")
    yield from _both("frame_norm", "wav2vec2.feature_projection.layer_norm")
    yield from _both("projection", "wav2vec2.feature_projection.projection")
    conv = "wav2vec2.encoder.pos_conv_embed.conv"
    yield Entry("positions.bias", f"{conv}.bias")
    # Of torch's two ways to normalise a weight; files hold the one or the other.
    normed = f"{conv}.parametrizations.weight"
    yield Entry("positions.gain", f"{normed}.original0", also=(f"{conv}.weight_g",))
    yield Entry("positions.direction", f"{normed}.original1", also=(f"{conv}.weight_v",))
    yield from _both("norm", "wav2vec2.encoder.layer_norm")
    for i in range(c.depth):
        for a, b in _BLOCK.items():
            yield from _both(f"blocks.{i}.{a}", f"wav2vec2.encoder.layers.{i}.{b}")
    yield from _both("output", "lm_head")


def _both(ours: str, theirs: str) -> Iterator[Entry]:
    for ending in ("weight", "bias"):
        yield Entry(f"{ours}.{ending}", f"{theirs}.{ending}")
