"""Gemma 1, 2 and 3 are those of transformers, both ways, on real text."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hub import oracle_decoders as oracle

pytest.importorskip("transformers")

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma": ("Gemma", {"head_dim": 16}),
    "gemma-one": ("Gemma", {"head_dim": 8, "num_key_value_heads": 1, "rms_norm_eps": 1e-5}),
    "gemma-untied": ("Gemma", {"head_dim": 8, "tie_word_embeddings": False}),
    "gemma2": ("Gemma2", {"head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 8}),
    "gemma2-caps": (
        "Gemma2",
        {
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "num_hidden_layers": 3,
            "final_logit_softcapping": 5.0,
            "attn_logit_softcapping": 2.0,
        },
    ),
    "gemma2-uncapped": (
        "Gemma2",
        {
            "head_dim": 8,
            "final_logit_softcapping": None,
            "attn_logit_softcapping": None,
            "layer_types": ["full_attention", "sliding_attention"],
            "sliding_window": 16,
        },
    ),
    "gemma3": (
        "Gemma3",
        {"head_dim": 16, "num_hidden_layers": 6, "sliding_window": 8, "query_pre_attn_scalar": 16},
    ),
    "gemma3-stretched": (
        "Gemma3",
        {
            "head_dim": 8,
            "num_hidden_layers": 3,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "sliding_window": 8,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e3},
            },
        },
    ),
    "gemma3-capped": (
        "Gemma3",
        {"head_dim": 8, "final_logit_softcapping": 4.0, "sliding_window": 16},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_there_and_back(case, data, tmp_path):
    kind, fields = CASES[case]
    oracle.check(kind, fields, data("tinyshakespeare"), tmp_path, tiny=True)


@pytest.mark.parametrize("case", ["gemma", "gemma2-caps", "gemma3"])
def test_losses_of_20_steps(case, data, tmp_path):
    kind, fields = CASES[case]
    found = oracle.losses(kind, fields, data("tinyshakespeare"), tmp_path, tiny=True)
    assert found <= 1e-3
