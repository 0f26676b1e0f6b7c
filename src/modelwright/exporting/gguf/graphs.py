"""Which graph of llama.cpp computes a model of ours, under which names and settings.

llama.cpp builds the graph that ``general.architecture`` names and reads its numbers from the
file's metadata. Every option of ours that such a graph has no room for must have the one value
that it assumes; otherwise the model is refused by the name of the option.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from modelwright.errors import ModelwrightError
from modelwright.models import gpt2, llama, mixture
from modelwright.models.model import ModelConfig

Value = bool | int | float | str | list[bool]


@dataclasses.dataclass(frozen=True)
class Place:
    """One tensor of a file.

    Attributes:
        name: in the file.
        ours: names in our ``state_dict``; several of one shape are stacked (experts).
        pairs: heads whose rows are stored with the two halves of a head interleaved, since this
            graph rotates neighbours where we rotate (i, i + d/2); 0: as ours.
        offset: added to our values (a norm that multiplies by 1 + gain).
        flat: stored as one row.
    """

    name: str
    ours: tuple[str, ...]
    pairs: int = 0
    offset: float = 0.0
    flat: bool = False


@dataclasses.dataclass(frozen=True)
class Graph:
    """An architecture of llama.cpp with the settings and tensors of one model."""

    arch: str
    keys: Mapping[str, Value]
    places: tuple[Place, ...]


_NO_BIAS = {"qkv_bias": (False,), "out_bias": (False,), "feed_bias": (False,)}
_BASE: dict[str, tuple[Any, ...]] = {
    "activation": ("silu",),
    "centred": (False,),
    "sandwich": (False,),
    "scaled_embedding": (False,),
    "qk_norm": (False,),
    "softcap": (0.0,),
    "attention_softcap": (0.0,),
    "windows": (0,),
    "rope_scaling": ("none", "linear", "yarn"),
}
_GEMMA = (
    _BASE
    | _NO_BIAS
    | {
        "activation": ("gelu_tanh",),
        "centred": (True,),
        "scaled_embedding": (True,),
        "rope_scaling": ("none", "linear"),
    }
)
# What each graph assumes of our options; those not named are free. The first that fits is taken.
_DENSE: dict[str, dict[str, tuple[Any, ...]]] = {
    "qwen2": _BASE | _NO_BIAS | {"qkv_bias": (True,)},
    "llama": _BASE | {"rope_scaling": ("none", "linear", "yarn", "llama3")},
    "qwen3": _BASE | _NO_BIAS | {"qk_norm": (True,)},
    "gemma": _GEMMA | {"tied": (True,)},
    "gemma2": {
        **{k: v for k, v in _GEMMA.items() if k not in ("softcap", "attention_softcap", "windows")},
        "tied": (True,),
        "sandwich": (True,),
        "rope_scaling": ("none",),
    },
    "gemma3": {
        **{k: v for k, v in _GEMMA.items() if k not in ("softcap", "windows")},
        "sandwich": (True,),
        "qk_norm": (True,),
    },
}
_MIXED: dict[str, dict[str, tuple[Any, ...]]] = {
    "llama": _BASE
    | {"feed_bias": (False,), "shared_hidden": (0,), "normalised": (True,), "dense_layers": ((),)},
    "qwen3moe": _DENSE["qwen3"]
    | {"shared_hidden": (0,), "normalised": (True,), "dense_layers": ((),)},
    "qwen2moe": _BASE
    | {
        "out_bias": (False,),
        "feed_bias": (False,),
        "normalised": (False,),
        "dense_layers": ((),),
        "tied": (False,),
    },
}
_GPT2 = {"activation": ("gelu_tanh",), "scaled": (True,), "by_layer": (False,)}
_PAIRED = ("llama",)  # graphs that rotate neighbours
# Deep ones of these are taken for the largest of the family, which divides by another root.
_LARGEST = {"gemma2": 46, "gemma3": 62}


def graph_of(config: ModelConfig) -> Graph:
    """The graph of a config of ours.

    Raises:
        ModelwrightError: llama.cpp has none; names the option, and the value that would do.
    """
    if isinstance(config, gpt2.Config):
        _demand("gpt2", _GPT2, dataclasses.asdict(config))
        return Graph("gpt2", _gpt2_keys(config), _gpt2_places(config))
    if not isinstance(config, llama.Config):
        raise ModelwrightError(
            f"export: llama.cpp has no graph for a model of the family {config.family}; it has "
            "for decoder, gpt2, llama and mixture"
        )
    arch = _chosen(config)
    keys, places = _keys(arch, config), _places(arch, config)
    return Graph(arch, keys, places)


# The choice ----------------------------------------------------------------------------------


def _chosen(c: llama.Config) -> str:
    """The first graph that fits.

    Raises:
        ModelwrightError: none does; names what the nearest would need.
    """
    traits = dataclasses.asdict(c) | {"windows": max(windows(c))}
    traits["dense_layers"] = tuple(traits.get("dense_layers", ()))
    rules = _MIXED if isinstance(c, mixture.Config) else _DENSE
    misses = {
        arch: [name for name, allowed in rule.items() if traits[name] not in allowed]
        for arch, rule in rules.items()
    }
    arch = min(misses, key=lambda name: len(misses[name]))
    _demand(arch, rules[arch], traits)
    _particular(arch, c)
    return arch


def _demand(arch: str, rule: Mapping[str, tuple[Any, ...]], traits: Mapping[str, Any]) -> None:
    for name, allowed in rule.items():
        if traits[name] not in allowed:
            known = " or ".join(str(a).lower() for a in allowed)
            raise ModelwrightError(
                f"export: model.{name} {traits[name]!r}: no graph of llama.cpp has it; the "
                f"nearest, {arch}, has {known}: train with that, or export --to hub"
            )


def _particular(arch: str, c: llama.Config) -> None:
    """What a list of values cannot say."""
    seen = {w for w in windows(c) if w}
    if len(seen) > 1:
        raise _none("windows", sorted(seen), "windows of one width, beside 0 for all")
    query = c.width // c.heads if c.depth == _LARGEST.get(arch) else c.head_size
    if (c.query_width or c.head_size) != query:
        raise _none("query_width", c.query_width, f"{query} in a {arch} of {c.depth} layers")
    if arch == "gemma2" and not (c.softcap and c.attention_softcap):
        raise _none("softcap", c.softcap, "softcap and attention_softcap above 0 in a gemma2")
    if c.rope_local and not seen:
        raise _none("rope_local", c.rope_local, "0 without windows")
    if arch == "gemma3" and c.rope_scaling != "none" and seen and not c.rope_local:
        raise _none("rope_local", 0, "a rotary base of the layers with a window")
    if arch == "qwen2moe" and not (c.head_size * c.heads == c.width and _shared(c)):
        raise _none("head_width", c.head_size, "width / heads, and shared_hidden above 0")
    if c.rope_scaling == "yarn" and c.rope_gain:
        raise _none("rope_gain", c.rope_gain, "0, which follows from rope_factor")


def _none(name: str, value: object, wanted: str) -> ModelwrightError:
    return ModelwrightError(
        f"export: model.{name} {value!r}: no graph of llama.cpp has it; there is one for "
        f"{wanted}; train with that, or export --to hub"
    )


def _shared(c: llama.Config) -> int:
    return c.shared_hidden if isinstance(c, mixture.Config) else 0


def windows(c: llama.Config) -> list[int]:
    """How far every layer sees; 0: all of the context."""
    found = (c.window(i) for i in range(c.depth))
    return [0 if w >= c.context else w for w in found]


# Settings ------------------------------------------------------------------------------------


def _keys(arch: str, c: llama.Config) -> dict[str, Value]:
    found: dict[str, Value] = {
        "vocab_size": c.vocabulary,
        "context_length": c.context,
        "embedding_length": c.width,
        "block_count": c.depth,
        "feed_forward_length": c.hidden_width,
        "attention.head_count": c.heads,
        "attention.head_count_kv": c.kv_heads,
        "attention.key_length": c.head_size,
        "attention.value_length": c.head_size,
        "attention.layer_norm_rms_epsilon": c.eps,
        "rope.dimension_count": c.head_size,
        "rope.freq_base": c.rope_base,
    }
    if c.rope_scaling in ("linear", "yarn"):
        found["rope.scaling.type"] = c.rope_scaling
        found["rope.scaling.factor"] = c.rope_factor
    if c.rope_scaling == "yarn":
        found["rope.scaling.original_context_length"] = c.rope_context
        found["rope.scaling.yarn_beta_slow"] = c.rope_low
        found["rope.scaling.yarn_beta_fast"] = c.rope_high
    seen = windows(c)
    if arch in ("gemma2", "gemma3") and (any(seen) or arch == "gemma2"):
        found["attention.sliding_window"] = max(seen) or c.context
        found["attention.sliding_window_pattern"] = [w > 0 for w in seen]
        found["rope.freq_base_swa"] = c.rope_local or c.rope_base
    if arch in ("gemma2", "gemma3") and c.softcap:
        found["final_logit_softcapping"] = c.softcap
    if arch == "gemma2":
        found["attn_logit_softcapping"] = c.attention_softcap
    if isinstance(c, mixture.Config):
        found["expert_count"] = c.experts
        found["expert_used_count"] = c.chosen
        if arch == "llama":  # Mixtral's experts have the one width that there is
            found["feed_forward_length"] = c.expert_width
        else:
            found["expert_feed_forward_length"] = c.expert_width
        if c.shared_hidden:
            found["expert_shared_feed_forward_length"] = c.shared_hidden
    return {f"{arch}.{name}": value for name, value in found.items()}


def _gpt2_keys(c: gpt2.Config) -> dict[str, Value]:
    return {
        "gpt2.vocab_size": c.vocabulary,
        "gpt2.context_length": c.context,
        "gpt2.embedding_length": c.width,
        "gpt2.block_count": c.depth,
        "gpt2.feed_forward_length": c.hidden_width,
        "gpt2.attention.head_count": c.heads,
        "gpt2.attention.layer_norm_epsilon": c.eps,
    }


# Tensors -------------------------------------------------------------------------------------


def _places(arch: str, c: llama.Config) -> tuple[Place, ...]:
    offset = float(c.centred)
    found = [Place("token_embd.weight", ("embedding.weight",))]
    found.append(Place("output_norm.weight", ("norm.gain",), offset=offset))
    if not c.tied:
        found.append(Place("output.weight", ("output.weight",)))
    norms = {"attention_norm": "attn_norm", "feed_norm": "ffn_norm"}
    if c.sandwich:
        norms |= {"attention_after": "post_attention_norm", "feed_after": "post_ffw_norm"}
    if c.qk_norm:
        norms |= {"attention.query_norm": "attn_q_norm", "attention.key_norm": "attn_k_norm"}
    for i in range(c.depth):
        here, there = f"blocks.{i}", f"blk.{i}"
        found += [
            Place(f"{there}.{theirs}.weight", (f"{here}.{ours}.gain",), offset=offset)
            for ours, theirs in norms.items()
        ]
        for ours, theirs in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "output")):
            heads = {"query": c.heads, "key": c.kv_heads}.get(ours, 0) * (arch in _PAIRED)
            for part in _parts(c.out_bias if ours == "out" else c.qkv_bias):
                name = f"{there}.attn_{theirs}.{part}"
                found.append(Place(name, (f"{here}.attention.{ours}.{part}",), pairs=heads))
        if isinstance(c, mixture.Config):
            found += _experts(c, i)
            continue
        for ours in ("gate", "up", "down"):
            for part in _parts(c.feed_bias):
                name = f"{here}.feed_forward.{ours}.{part}"
                found.append(Place(f"{there}.ffn_{ours}.{part}", (name,)))
    return tuple(found)


def _parts(bias: bool) -> tuple[str, ...]:
    return ("weight", "bias") if bias else ("weight",)


def _experts(c: mixture.Config, number: int) -> list[Place]:
    here, there = f"blocks.{number}.feed_forward", f"blk.{number}"
    found = [Place(f"{there}.ffn_gate_inp.weight", (f"{here}.router.weight",))]
    for part in ("gate", "up", "down"):
        ours = tuple(f"{here}.experts.{e}.{part}.weight" for e in range(c.experts))
        found.append(Place(f"{there}.ffn_{part}_exps.weight", ours))
        if c.shared_hidden:
            ours = (f"{here}.shared.{part}.weight",)
            found.append(Place(f"{there}.ffn_{part}_shexp.weight", ours))
    if c.shared_hidden:
        ours = (f"{here}.shared_gate.weight",)
        found.append(Place(f"{there}.ffn_gate_inp_shexp.weight", ours, flat=True))
    return found


_GPT2_BLOCK = {
    "attention_norm": "attn_norm",
    "attention.joined": "attn_qkv",
    "attention.out": "attn_output",
    "feed_norm": "ffn_norm",
    "feed_forward.up": "ffn_up",
    "feed_forward.down": "ffn_down",
}


def _gpt2_places(c: gpt2.Config) -> tuple[Place, ...]:
    found = [
        Place("token_embd.weight", ("embedding.weight",)),
        Place("position_embd.weight", ("position_embedding.weight",)),
    ]
    found += [Place(f"output_norm.{p}", (f"norm.{p}",)) for p in ("weight", "bias")]
    if not c.tied:
        found.append(Place("output.weight", ("output.weight",)))
    for i in range(c.depth):
        for ours, theirs in _GPT2_BLOCK.items():
            for part in ("weight", "bias"):
                found.append(Place(f"blk.{i}.{theirs}.{part}", (f"blocks.{i}.{ours}.{part}",)))
    return tuple(found)


# Back ----------------------------------------------------------------------------------------


def check_settings(arch: str, keys: Mapping[str, Value], wanted: Graph) -> None:
    """Compare the settings of a file with those that are meant.

    Args:
        arch: its ``general.architecture``.
        keys: its settings, by their whole names.
        wanted: the graph that was written.

    Raises:
        ModelwrightError: another architecture, or a setting that is missing or another.
    """
    found = {"general.architecture": arch, **{k: keys[k] for k in keys if k.startswith(f"{arch}.")}}
    meant = {"general.architecture": wanted.arch, **wanted.keys}
    for name in sorted({*meant, *found}, key=lambda n: (not n.startswith("general."), n)):
        if not _equal(found.get(name), meant.get(name)):
            raise ModelwrightError(
                f"export: the written setting {name} is {found.get(name)!r}, "
                f"{meant.get(name)!r} is meant; nothing was exported"
            )


def _equal(one: Value | None, other: Value | None) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= 1e-6 * abs(other)  # stored in float32
    return one == other
