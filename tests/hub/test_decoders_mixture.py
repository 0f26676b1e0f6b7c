"""Mixtral, Qwen 2 MoE and Qwen 3 MoE are those of transformers, both ways, on real text."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hub import oracle_decoders as oracle

pytest.importorskip("transformers")

QWEN2 = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 40,
}
QWEN3 = {"num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 24, "head_dim": 8}
BALANCED = {"output_router_logits": True, "router_aux_loss_coef": 0.1}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("Mixtral", {"num_local_experts": 4}),
    "mixtral-sliding": (
        "Mixtral",
        {"num_local_experts": 3, "num_experts_per_tok": 1, "sliding_window": 8},
    ),
    "mixtral-balanced": ("Mixtral", {"num_local_experts": 8, "head_dim": 12, **BALANCED}),
    "qwen2-moe": ("Qwen2Moe", QWEN2),
    "qwen2-moe-dense-layer": (
        "Qwen2Moe",
        {**QWEN2, "num_hidden_layers": 3, "mlp_only_layers": [1], "norm_topk_prob": True},
    ),
    "qwen2-moe-sliding": (
        "Qwen2Moe",
        {**QWEN2, "use_sliding_window": True, "sliding_window": 8, "qkv_bias": False},
    ),
    "qwen3-moe": ("Qwen3Moe", {**QWEN3, "norm_topk_prob": True}),
    "qwen3-moe-every-second": (
        "Qwen3Moe",
        {**QWEN3, "decoder_sparse_step": 2, "num_hidden_layers": 4, "tie_word_embeddings": True},
    ),
    "qwen3-moe-balanced": ("Qwen3Moe", {**QWEN3, "attention_bias": True, **BALANCED}),
}


@pytest.mark.parametrize("case", CASES)
def test_there_and_back(case, data, tmp_path):
    kind, fields = CASES[case]
    oracle.check(kind, fields, data("tinyshakespeare"), tmp_path, tiny=True)


@pytest.mark.parametrize("case", ["mixtral-balanced", "qwen2-moe", "qwen3-moe-balanced"])
def test_losses_of_20_steps(case, data, tmp_path):
    kind, fields = CASES[case]
    found = oracle.losses(kind, fields, data("tinyshakespeare"), tmp_path, tiny=True)
    assert found <= 1e-3
