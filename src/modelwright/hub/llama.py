"""Published checkpoints of Llama, Mistral, Qwen 2 and 3 and Gemma 1 to 3: ``models/llama.py``.

Which of them a config of ours is written as follows from its options; what none of them has is
refused. Dropout is a setting of their training, not of the function, and not read.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from modelwright.errors import ModelwrightError
from modelwright.hub.names import Entry, Layout
from modelwright.models.llama import Config
from modelwright.models.model import ModelConfig

C = TypeVar("C", bound=Config)

model_types = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text")
_CLASSES = {
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "gemma": "Gemma",
    "gemma2": "Gemma2",
    "gemma3_text": "Gemma3",
}
HEADS = {"causal": "ForCausalLM", "classification": "ForSequenceClassification"}
architectures = tuple(f"{name}{task}" for task in HEADS.values() for name in _CLASSES.values())
GEMMA = ("gemma", "gemma2", "gemma3_text")
ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
}
FULL, SLIDING = "full_attention", "sliding_attention"
# Their names of the rotary settings and ours, by the kind of scaling.
_STRETCH = {
    "default": {},
    "linear": {"factor": "rope_factor"},
    "llama3": {
        "factor": "rope_factor",
        "original_max_position_embeddings": "rope_context",
        "low_freq_factor": "rope_low",
        "high_freq_factor": "rope_high",
    },
    "yarn": {
        "factor": "rope_factor",
        "original_max_position_embeddings": "rope_context",
        "beta_slow": "rope_low",
        "beta_fast": "rope_high",
        "attention_factor": "rope_gain",
    },
}


def refused(field: str, value: object, hint: str) -> ModelwrightError:
    """The error of a field of config.json that cannot be honoured."""
    return ModelwrightError(f"config.json: {field} {value!r} is not one that is read here; {hint}")


def config_from(stored: Mapping[str, Any]) -> Config:
    """Our config of their config.json; refuses by field what it cannot honour."""
    kind = str(stored.get("model_type"))
    if kind not in model_types:
        raise refused("model_type", kind, f"known: {', '.join(model_types)}")
    fields = common_from(stored, kind) | {"windows": _windows(stored, kind)}
    fields |= {"rope_base": 10_000.0, **_rope(stored, kind)}
    named = [str(name) for name in stored.get("architectures") or ()]
    if any(name.endswith(HEADS["classification"]) for name in named):
        labels = stored.get("id2label") or range(2)  # as the library has it
        fields |= {"head": "classification", "classes": len(labels)}
    if kind == "llama":
        fields["feed_bias"] = bool(stored.get("mlp_bias", False))
    if kind in GEMMA:
        fields |= {"centred": True, "scaled_embedding": True, "sandwich": kind != "gemma"}
    if kind in ("gemma2", "gemma3_text"):
        caps = (30.0, 50.0) if kind == "gemma2" else (None, None)
        query = int(stored.get("query_pre_attn_scalar", 256))
        fields["query_width"] = 0 if query == fields["head_width"] else query
        fields["softcap"] = float(stored.get("final_logit_softcapping", caps[0]) or 0.0)
        if kind == "gemma2":  # that of Gemma 3 is stored, but its attention does not use it
            fields["attention_softcap"] = float(
                stored.get("attn_logit_softcapping", caps[1]) or 0.0
            )
    return Config(**fields)


def common_from(stored: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The fields that all these families write alike."""
    if stored.get("use_bidirectional_attention"):
        raise refused("use_bidirectional_attention", True, "a decoder sees what is before it")
    needed = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    for field in (*needed, "intermediate_size"):
        if not isinstance(stored.get(field), int):
            raise refused(field, stored.get(field), "it must be a whole number")
    heads, width = int(stored["num_attention_heads"]), int(stored["hidden_size"])
    defaults = {"gemma": 256, "gemma2": 256, "gemma3_text": 256, "qwen3": 128}
    head_width = int(stored.get("head_dim", defaults.get(kind)) or width // heads)
    biased = bool(stored.get("attention_bias", False))
    contexts = {"llama": 2048, "gemma": 8192, "gemma2": 8192, "gemma3_text": 131072}
    contexts |= {"mistral": 131072, "mixtral": 131072}
    return {
        "vocabulary": int(stored["vocab_size"]),
        "depth": int(stored["num_hidden_layers"]),
        "width": width,
        "heads": heads,
        "kv_heads": int(stored.get("num_key_value_heads") or heads),
        "head_width": head_width,
        "hidden": int(stored["intermediate_size"]),
        "context": int(stored.get("max_position_embeddings", contexts.get(kind, 32768))),
        "activation": _activation(stored, kind),
        "eps": float(stored.get("rms_norm_eps", 1e-5 if kind == "mixtral" else 1e-6)),
        "tied": bool(stored.get("tie_word_embeddings", kind in GEMMA)),
        "qkv_bias": bool(stored.get("qkv_bias", True)) if kind == "qwen2_moe" else biased,
        "out_bias": biased,
        "qk_norm": kind in ("qwen3", "gemma3_text", "qwen3_moe"),
    } | ({"qkv_bias": True, "out_bias": False} if kind == "qwen2" else {})


def _activation(stored: Mapping[str, Any], kind: str) -> str:
    if kind in GEMMA:
        given = stored.get("hidden_activation") or stored.get("hidden_act") or "gelu_pytorch_tanh"
        if kind == "gemma" and given == "gelu":
            return "gelu_tanh"  # a slip of the first release, which meant the tanh form
    else:
        given = stored.get("hidden_act", "silu")
    if given not in ACTIVATIONS:
        raise refused("hidden_act", given, f"known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[given]


def _windows(stored: Mapping[str, Any], kind: str) -> tuple[int, ...]:
    """How far every layer sees, as the shortest pattern."""
    depth = int(stored["num_hidden_layers"])
    if kind in ("llama", "gemma"):
        return (0,)
    window = int(stored.get("sliding_window", 4096) or 0)
    if kind == "mistral":
        return (window,)
    if kind in ("qwen2", "qwen3"):
        window = window if stored.get("use_sliding_window", False) else 0
        first = int(stored.get("max_window_layers", 28))
        sliding = [i >= first for i in range(depth)]
    else:
        every = 2 if kind == "gemma2" else int(stored.get("sliding_window_pattern") or 6)
        sliding = [(i + 1) % every != 0 for i in range(depth)]
    return windows_of(stored, sliding, window)


def windows_of(stored: Mapping[str, Any], sliding: Sequence[bool], window: int) -> tuple[int, ...]:
    """The windows of layers that are ``sliding``, unless ``layer_types`` says it."""
    types = stored.get("layer_types")
    if types is not None:
        if len(types) != len(sliding) or set(types) - {FULL, SLIDING}:
            raise refused("layer_types", types, f"one {FULL!r} or {SLIDING!r} for every layer")
        sliding = [t == SLIDING for t in types]
    return shortest([window if s else 0 for s in sliding])


def shortest(pattern: Sequence[int]) -> tuple[int, ...]:
    """The shortest beginning that, repeated, gives the pattern."""
    for length in range(1, len(pattern)):
        if all(p == pattern[i % length] for i, p in enumerate(pattern)):
            return tuple(pattern[:length])
    return tuple(pattern)


def _rope(stored: Mapping[str, Any], kind: str) -> dict[str, Any]:
    if kind != "gemma3_text":
        return rope_from(stored, 10_000.0)
    nested = stored.get("rope_parameters") or {}
    far, near = (dict(nested.get(name) or {}) for name in (FULL, SLIDING))
    if not far:
        far = dict(stored.get("rope_scaling") or {})
    far.setdefault("rope_theta", stored.get("rope_theta", 1e6))
    if near.get("rope_type", "default") != "default":
        raise refused("rope_parameters.sliding_attention.rope_type", near["rope_type"], "'default'")
    local = float(near.get("rope_theta", stored.get("rope_local_base_freq", 1e4)))
    context = stored.get("max_position_embeddings", 131072)
    found = {"rope_parameters": far, "max_position_embeddings": context}
    return rope_from(found, 1e6) | {"rope_local": local}


def rope_from(stored: Mapping[str, Any], base: float) -> dict[str, Any]:
    """Our rotary fields of their config, in its present form or the one before transformers 5."""
    new = stored.get("rope_parameters")
    given = dict(new or stored.get("rope_scaling") or {})
    field = "rope_parameters" if new else "rope_scaling"
    theta = float(given.pop("rope_theta", None) or stored.get("rope_theta") or base)
    kinds = [given.pop(name, None) for name in ("rope_type", "type")]
    kind = next((k for k in kinds if k), "default")
    if kind not in _STRETCH:
        raise refused(f"{field}.rope_type", kind, f"known: {', '.join(_STRETCH)}")
    if float(given.pop("partial_rotary_factor", None) or 1.0) != 1.0:
        raise refused(f"{field}.partial_rotary_factor", "below 1", "only whole heads are rotated")
    if kind == "yarn":
        mscale, of_all = given.pop("mscale", None), given.pop("mscale_all_dim", None)
        if mscale and of_all and not given.get("attention_factor"):
            grown = (0.1 * m * math.log(float(given["factor"])) + 1.0 for m in (mscale, of_all))
            given["attention_factor"] = next(grown) / next(grown)
        if not given.pop("truncate", True):
            raise refused(f"{field}.truncate", False, "true is known")
        given = {"beta_slow": 1.0, "beta_fast": 32.0} | {k: v for k, v in given.items() if v}
    names = _STRETCH[kind]
    if "original_max_position_embeddings" in names:
        context = stored.get("max_position_embeddings")
        given["original_max_position_embeddings"] = (
            given.get("original_max_position_embeddings") or context
        )
    elif kind != "default":
        given.pop("original_max_position_embeddings", None)
    for name in names:
        if name != "attention_factor" and given.get(name) is None:
            raise refused(f"{field}.{name}", None, f"{kind} needs it")
    unknown = [name for name in given if name not in names]
    if unknown and kind != "default":
        raise refused(f"{field}.{unknown[0]}", given[unknown[0]], f"known: {', '.join(names)}")
    ours = {names[k]: float(v) for k, v in given.items() if k in names and v is not None}
    if "rope_context" in ours:
        ours["rope_context"] = int(ours["rope_context"])
    return {
        "rope_base": theta,
        "rope_scaling": "none" if kind == "default" else kind,
        **ours,
    }


def rope_to(config: Config) -> dict[str, Any]:
    """Their rotary fields, in the form that every version reads."""
    kind = "default" if config.rope_scaling == "none" else config.rope_scaling
    found = {theirs: getattr(config, ours) for theirs, ours in _STRETCH[kind].items()}
    if not found.get("attention_factor", True):
        del found["attention_factor"]  # 0: as the formula has it
    scaling = {"rope_type": kind, **found} if found else None
    return {"rope_theta": config.rope_base, "rope_scaling": scaling}


def config_to(config: ModelConfig) -> dict[str, Any]:
    """Their config.json of our config; what it could not say is refused."""
    c = _llama(config)
    kind = _kind(c)
    windows = [c.window(i) for i in range(c.depth)]
    stored = {
        "architectures": [f"{_CLASSES[kind]}{HEADS[c.head]}"],
        "model_type": kind,
        **common_to(c),
        "attention_bias": c.out_bias,
    }
    if c.head == "classification":
        stored["id2label"] = {str(i): f"LABEL_{i}" for i in range(c.classes)}
        stored["pad_token_id"] = 0  # their padding; ours has none
    if kind == "llama":
        stored["mlp_bias"] = c.feed_bias
    if kind == "mistral":
        stored["sliding_window"] = windows[0] or None
    if kind in ("qwen2", "qwen3", "gemma2", "gemma3_text"):
        stored["layer_types"] = [SLIDING if w else FULL for w in windows]
        stored["sliding_window"] = max(windows) or 4096
    if kind in ("qwen2", "qwen3"):
        stored["use_sliding_window"] = any(windows)
        stored["max_window_layers"] = windows.index(max(windows)) if any(windows) else c.depth
    if kind in GEMMA:
        stored["hidden_activation"] = stored["hidden_act"]
    if kind in ("gemma2", "gemma3_text"):
        stored["query_pre_attn_scalar"] = c.query_width or c.head_size
        stored["final_logit_softcapping"] = c.softcap or None
        stored["attn_logit_softcapping"] = c.attention_softcap or None
    if kind == "gemma3_text":
        stored["rope_local_base_freq"] = c.rope_local or c.rope_base
    return confirmed(c, stored, config_from)


def common_to(c: Config) -> dict[str, Any]:
    """The fields that all these families write alike."""
    activations = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    return {
        "vocab_size": c.vocabulary,
        "num_hidden_layers": c.depth,
        "hidden_size": c.width,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_size,
        "intermediate_size": c.hidden_width,
        "max_position_embeddings": c.context,
        "hidden_act": activations[c.activation],
        "rms_norm_eps": c.eps,
        "tie_word_embeddings": c.tied,
        "attention_dropout": 0.0,
        **rope_to(c),
    }


def confirmed(
    config: C, stored: dict[str, Any], read: Callable[[Mapping[str, Any]], Config]
) -> dict[str, Any]:
    """``stored``, if it says of the model what the config says.

    Raises:
        ModelwrightError: a field of ours has a value that no published family knows.
    """
    wanted, found = (_settled(c) for c in (config, read(stored)))
    for name, value in wanted.items():
        if found[name] != value:
            raise ModelwrightError(
                f"model.{name}: a {stored['model_type']} has {found[name]!r}, not {value!r}; such "
                "a model cannot be written in the hub's layout"
            )
    return stored


def _settled(c: Config) -> dict[str, Any]:
    """The fields with every default filled in."""
    values = dataclasses.asdict(c) | {"head_width": c.head_size, "hidden": c.hidden_width}
    values |= {"windows": [c.window(i) for i in range(c.depth)]}
    values |= {"query_width": c.query_width or c.head_size, "rope_local": c.rope(local=True).base}
    if "expert_hidden" in values:
        values["expert_hidden"] = values["expert_hidden"] or c.hidden_width
    return values


def _kind(c: Config) -> str:
    """The published family that has these options."""
    if c.centred:
        return ("gemma3_text" if c.qk_norm else "gemma2") if c.sandwich else "gemma"
    if c.qk_norm:
        return "qwen3"
    if c.qkv_bias and not c.out_bias:
        return "qwen2"
    return "mistral" if any(c.windows) else "llama"


def layout(config: ModelConfig) -> Layout:
    """Where every tensor lies."""
    c = _llama(config)
    entries = outer_entries(c)
    for i in range(c.depth):
        entries += attention_entries(c, i)
        names = {name: f"{name}_proj" for name in ("gate", "up", "down")}
        for ours, theirs in names.items():
            here, there = f"blocks.{i}.feed_forward.{ours}", f"model.layers.{i}.mlp.{theirs}"
            entries += linear(here, there, bias=c.feed_bias)
    return Layout(tuple(entries), passed(c), ("", "model."))


def passed(c: Config) -> tuple[str, ...]:
    """Tensors that are rightly not read: frequencies in old files, a head that is not used."""
    unused = c.tied or c.head == "classification"
    return ("*.rotary_emb.inv_freq", *(("lm_head.weight",) if unused else ()))


def linear(ours: str, theirs: str, *, bias: bool) -> list[Entry]:
    """A matrix, and its bias where there is one."""
    parts = ("weight", "bias") if bias else ("weight",)
    return [Entry(f"{ours}.{part}", f"{theirs}.{part}") for part in parts]


def outer_entries(c: Config) -> list[Entry]:
    """What lies beside the blocks."""
    entries = [
        Entry("embedding.weight", "model.embed_tokens.weight"),
        Entry("norm.gain", "model.norm.weight"),
    ]
    if c.head == "classification":
        return [*entries, Entry("output.weight", "score.weight")]
    return entries if c.tied else [*entries, Entry("output.weight", "lm_head.weight")]


def attention_entries(c: Config, number: int) -> list[Entry]:
    """The attention of a block, and its norms."""
    here, there = f"blocks.{number}", f"model.layers.{number}"
    entries: list[Entry] = []
    for ours, theirs in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "o")):
        bias = c.out_bias if ours == "out" else c.qkv_bias
        name = f"{there}.self_attn.{theirs}_proj"
        entries += linear(f"{here}.attention.{ours}", name, bias=bias)
        if c.qk_norm and ours in ("query", "key"):
            norm = f"{there}.self_attn.{theirs}_norm.weight"
            entries.append(Entry(f"{here}.attention.{ours}_norm.gain", norm))
    norms = {"attention_norm": "input", "feed_norm": "post_attention"}
    if c.sandwich:
        norms = {
            "attention_norm": "input",
            "attention_after": "post_attention",
            "feed_norm": "pre_feedforward",
            "feed_after": "post_feedforward",
        }
    return entries + [
        Entry(f"{here}.{ours}.gain", f"{there}.{theirs}_layernorm.weight")
        for ours, theirs in norms.items()
    ]


def _llama(config: ModelConfig) -> Config:
    if type(config) is not Config:
        raise ModelwrightError(f"model.family: a {config.family} cannot be written as a llama")
    return config
