"""Published checkpoints of Mixtral, Qwen 2 MoE and Qwen 3 MoE, all of them ``models/mixture.py``.

Which of them a config of ours is written as follows from its options; what none of them has is
refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from modelwright.errors import ModelwrightError
from modelwright.hub.llama import (
    FULL,
    SLIDING,
    attention_entries,
    common_from,
    common_to,
    confirmed,
    linear,
    outer_entries,
    passed,
    refused,
    rope_from,
    windows_of,
)
from modelwright.hub.names import Entry, Layout
from modelwright.models.mixture import Config
from modelwright.models.model import ModelConfig

model_types = ("mixtral", "qwen2_moe", "qwen3_moe")
_CLASSES = {"mixtral": "Mixtral", "qwen2_moe": "Qwen2Moe", "qwen3_moe": "Qwen3Moe"}
architectures = tuple(f"{name}ForCausalLM" for name in _CLASSES.values())
# Of a gated block: ours, Mixtral's and Qwen's.
_PARTS = (("gate", "w1", "gate_proj"), ("up", "w3", "up_proj"), ("down", "w2", "down_proj"))


def config_from(stored: Mapping[str, Any]) -> Config:
    """Our config of their config.json; refuses by field what it cannot honour."""
    kind = str(stored.get("model_type"))
    if kind not in model_types:
        raise refused("model_type", kind, f"known: {', '.join(model_types)}")
    mixtral, qwen2 = kind == "mixtral", kind == "qwen2_moe"
    fields = common_from(stored, kind) | rope_from(stored, 1e6 if mixtral else 10_000.0)
    if mixtral:
        fields |= {"qkv_bias": False, "out_bias": False}
    if qwen2:
        fields["out_bias"] = False
    balanced = bool(stored.get("output_router_logits", False))
    default = {"mixtral": 8, "qwen2_moe": 60, "qwen3_moe": 128}[kind]
    experts = stored.get("num_local_experts", stored.get("num_experts", default))
    chosen = {"mixtral": 2, "qwen2_moe": 4, "qwen3_moe": 8}[kind]
    return Config(
        **fields,
        windows=_windows(stored, kind),
        experts=int(experts),
        chosen=int(stored.get("num_experts_per_tok", chosen)),
        expert_hidden=0
        if mixtral
        else int(stored.get("moe_intermediate_size", 1408 if qwen2 else 768)),
        shared_hidden=int(stored.get("shared_expert_intermediate_size", 5632)) if qwen2 else 0,
        normalised=mixtral or bool(stored.get("norm_topk_prob", False)),
        dense_layers=() if mixtral else _dense(stored),
        balance=float(stored.get("router_aux_loss_coef", 0.001)) if balanced else 0.0,
    )


def _windows(stored: Mapping[str, Any], kind: str) -> tuple[int, ...]:
    window = int(stored.get("sliding_window", None if kind == "mixtral" else 4096) or 0)
    if kind == "mixtral":
        return (window,)
    if not stored.get("use_sliding_window", False):
        return (0,)
    if kind == "qwen3_moe":
        return (window,)
    depth, most = int(stored["num_hidden_layers"]), int(stored.get("max_window_layers", 28))
    return windows_of(stored, [i % 2 == 0 and i < most for i in range(depth)], window)


def _dense(stored: Mapping[str, Any]) -> tuple[int, ...]:
    """The layers without experts."""
    step, given = int(stored.get("decoder_sparse_step", 1)), stored.get("mlp_only_layers") or ()
    layers = range(int(stored["num_hidden_layers"]))
    return tuple(i for i in layers if i in given or (i + 1) % step)


def config_to(config: ModelConfig) -> dict[str, Any]:
    """Their config.json of our config; what it could not say is refused."""
    c = _mixture(config)
    kind = _kind(c)
    windows = [c.window(i) for i in range(c.depth)]
    stored: dict[str, Any] = {
        "architectures": [f"{_CLASSES[kind]}ForCausalLM"],
        "model_type": kind,
        **common_to(c),
        "num_experts_per_tok": c.chosen,
        "output_router_logits": c.balance > 0,
        "router_aux_loss_coef": c.balance or 0.001,
    }
    if kind == "mixtral":
        stored |= {
            "num_local_experts": c.experts,
            "intermediate_size": c.expert_width,
            "sliding_window": windows[0] or None,
        }
        return confirmed(_same_width(c), stored, config_from)
    stored |= {
        "num_experts": c.experts,
        "moe_intermediate_size": c.expert_width,
        "norm_topk_prob": c.normalised,
        "mlp_only_layers": list(c.dense_layers),
        "decoder_sparse_step": 1,
        "use_sliding_window": any(windows),
        "sliding_window": max(windows) or None,
    }
    if kind == "qwen2_moe":
        stored["shared_expert_intermediate_size"] = c.shared_hidden
        stored["qkv_bias"] = c.qkv_bias
        stored["layer_types"] = [SLIDING if w else FULL for w in windows]
    else:
        stored["attention_bias"] = c.out_bias
    return confirmed(c, stored, config_from)


def _same_width(c: Config) -> Config:
    """Mixtral has one width: that of its experts."""
    return dataclasses.replace(c, hidden=c.expert_width, expert_hidden=0)


def _kind(c: Config) -> str:
    """The published family that has these options."""
    if c.shared_hidden:
        return "qwen2_moe"
    return "qwen3_moe" if c.qk_norm else "mixtral"


def layout(config: ModelConfig) -> Layout:
    """Where every tensor lies."""
    c = _mixture(config)
    mixtral = _kind(c) == "mixtral"
    entries = outer_entries(c)
    for i in range(c.depth):
        entries += attention_entries(c, i)
        here = f"blocks.{i}.feed_forward"
        there = f"model.layers.{i}.{'block_sparse_moe' if mixtral else 'mlp'}"
        if i in c.dense_layers:
            entries += _gated(here, there, mixtral=False)
            continue
        entries.append(Entry(f"{here}.router.weight", f"{there}.gate.weight"))
        for e in range(c.experts):
            entries += _gated(f"{here}.experts.{e}", f"{there}.experts.{e}", mixtral=mixtral)
        if c.shared_hidden:
            entries += _gated(f"{here}.shared", f"{there}.shared_expert", mixtral=False)
            entries += linear(f"{here}.shared_gate", f"{there}.shared_expert_gate", bias=False)
    return Layout(tuple(entries), passed(c), ("", "model."))


def _gated(ours: str, theirs: str, *, mixtral: bool) -> list[Entry]:
    names = ((a, b if mixtral else c) for a, b, c in _PARTS)
    return [Entry(f"{ours}.{a}.weight", f"{theirs}.{b}.weight") for a, b in names]


def _mixture(config: ModelConfig) -> Config:
    if not isinstance(config, Config):
        raise ModelwrightError(f"model.family: a {config.family} cannot be written as a mixture")
    return config
