"""What config.json of a decoder may say, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from modelwright.errors import ModelwrightError
from modelwright.hub import gpt2, llama, mixture
from modelwright.models import gpt2 as our_gpt2
from modelwright.models import llama as our_llama
from modelwright.models import mixture as our_mixture

STORED: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type 'dynamic'.*linear"),
        ({"rope_scaling": {"rope_type": "longrope", "long_factor": [1.0]}}, "rope_type 'longrope'"),
        ({"rope_scaling": {"rope_type": "linear"}}, "rope_scaling.factor None.*linear needs it"),
        (
            {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "beta_fast": 3}},
            "rope_scaling.beta_fast 3",
        ),
        (
            {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
            "partial_rotary_factor",
        ),
        ({"hidden_act": "xielu"}, "hidden_act 'xielu'"),
        ({"vocab_size": None}, "vocab_size None.*whole number"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention True"),
        ({"model_type": "gemma2", "layer_types": ["full_attention"]}, "layer_types"),
        ({"model_type": "qwen2", "layer_types": ["chunked_attention"] * 4}, "layer_types"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_field(changed, message):
    with pytest.raises(ModelwrightError, match=message):
        llama.config_from({**STORED, **changed})


def test_cross_attention_of_gpt2_is_refused():
    with pytest.raises(ModelwrightError, match="add_cross_attention"):
        gpt2.config_from({"model_type": "gpt2", "add_cross_attention": True})


def test_the_configs_of_before_transformers_5_are_read():
    """The published files of Llama 3.2, Qwen 2.5 and Gemma 3 name their rotary settings so."""
    scaling = {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    }
    found = llama.config_from({**STORED, "rope_theta": 5e5, "rope_scaling": scaling})
    assert (found.rope_base, found.rope_scaling, found.rope_factor) == (5e5, "llama3", 32.0)
    assert (found.rope_context, found.rope_low, found.rope_high) == (8192, 1.0, 4.0)
    scaling = {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"}
    found = llama.config_from({**STORED, "model_type": "qwen2", "rope_scaling": scaling})
    assert (found.rope_scaling, found.rope_low, found.rope_high) == ("yarn", 1.0, 32.0)
    assert found.rope_gain == 0
    old = {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "sliding_window_pattern": 2}
    old |= {"rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 16}
    found = llama.config_from({**STORED, "model_type": "gemma3_text", **old})
    assert (found.rope_base, found.rope_local, found.rope_factor) == (1e6, 1e4, 8.0)
    assert found.windows == (16, 0)


def test_the_first_release_of_gemma_says_gelu_and_means_its_tanh_form():
    stored = {**STORED, "model_type": "gemma", "hidden_act": "gelu", "head_dim": 8}
    assert llama.config_from(stored).activation == "gelu_tanh"
    assert llama.config_from({**STORED, "hidden_act": "gelu"}).activation == "gelu"


@pytest.mark.parametrize(
    ("module", "config", "message"),
    [
        (llama, our_llama.Config(300, sandwich=True), "sandwich: a llama has False, not True"),
        (llama, our_llama.Config(300, qk_norm=True, softcap=9.0), "softcap: a qwen3 has 0.0"),
        (llama, our_llama.Config(300, windows=(8, 0)), "windows: a mistral has"),
        (llama, our_llama.Config(300, out_bias=True), "qkv_bias: a llama has True, not False"),
        (mixture, our_mixture.Config(300, normalised=False), "normalised: a mixtral has True"),
        (mixture, our_mixture.Config(300, dense_layers=(0,)), "dense_layers: a mixtral has"),
        (llama, our_mixture.Config(300), "a mixture cannot be written as a llama"),
        (mixture, our_llama.Config(300), "a llama cannot be written as a mixture"),
        (gpt2, our_llama.Config(300), "a llama cannot be written as gpt2"),
    ],
)
def test_what_no_published_family_has_is_not_written_as_one(module, config, message):
    with pytest.raises(ModelwrightError, match=message):
        module.config_to(config)


@pytest.mark.parametrize(
    ("module", "config"),
    [
        *((gpt2, our_gpt2.Config(**s)) for s in our_gpt2.Config.sizes.values()),
        *((llama, our_llama.Config(**s)) for s in our_llama.Config.sizes.values()),
        *((mixture, our_mixture.Config(**s)) for s in our_mixture.Config.sizes.values()),
        (llama, our_llama.Config(300)),
        (mixture, our_mixture.Config(300, expert_hidden=64)),
    ],
)
def test_named_sizes_survive_their_config(module, config):
    """Written, read and written again: the same file."""
    stored = module.config_to(config)
    assert module.config_to(module.config_from(stored)) == stored
