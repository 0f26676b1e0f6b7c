"""GPT-2, Llama, Mistral, Qwen 2 and Qwen 3 are those of transformers, both ways, on real text."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hub import oracle_decoders as oracle

pytest.importorskip("transformers")

GPT2 = {
    "vocab_size": oracle.VOCABULARY,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
    "bos_token_id": None,
    "eos_token_id": None,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e6,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
SLIDING = {"use_sliding_window": True, "sliding_window": 8}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", GPT2),
    "gpt2-untied": ("GPT2", {**GPT2, "tie_word_embeddings": False, "n_inner": 80}),
    "gpt2-by-layer": (
        "GPT2",
        {
            **GPT2,
            "n_layer": 3,
            "activation_function": "relu",
            "scale_attn_by_inverse_layer_idx": True,
            "layer_norm_epsilon": 1e-3,
        },
    ),
    "gpt2-unscaled": ("GPT2", {**GPT2, "scale_attn_weights": False, "n_head": 2}),
    "llama2": ("Llama", {"num_key_value_heads": 4}),
    "llama3": ("Llama", {"rope_parameters": LLAMA3, "rms_norm_eps": 1e-5}),
    "llama-linear": (
        "Llama",
        {
            "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0},
            "tie_word_embeddings": True,
            "head_dim": 16,
        },
    ),
    "llama-biases": ("Llama", {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1}),
    "mistral": ("Mistral", {"sliding_window": 8}),
    "mistral-all": ("Mistral", {"sliding_window": None, "head_dim": 12}),
    "mistral-long": ("Mistral", {"sliding_window": 32, "rope_parameters": YARN}),
    "qwen2": ("Qwen2", {}),
    "qwen2-tied-yarn": ("Qwen2", {"tie_word_embeddings": True, "rope_parameters": YARN}),
    "qwen2-sliding": ("Qwen2", {**SLIDING, "max_window_layers": 1, "num_hidden_layers": 3}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "qwen3-sliding": ("Qwen3", {**SLIDING, "max_window_layers": 0, "head_dim": 8}),
    "qwen3-biases": ("Qwen3", {"attention_bias": True, "head_dim": 12, "num_hidden_layers": 3}),
}


@pytest.mark.parametrize("case", CASES)
def test_there_and_back(case, data, tmp_path):
    kind, fields = CASES[case]
    oracle.check(kind, fields, data("tinyshakespeare"), tmp_path, tiny=kind != "GPT2")


@pytest.mark.parametrize("case", ["gpt2", "llama3", "mistral", "qwen2-tied-yarn", "qwen3"])
def test_losses_of_20_steps(case, data, tmp_path):
    kind, fields = CASES[case]
    found = oracle.losses(kind, fields, data("tinyshakespeare"), tmp_path, tiny=kind != "GPT2")
    assert found <= 1e-3
