"""vLLM over a published layout: decoders on GPUs."""

from __future__ import annotations

import json
import shutil
from typing import Any

from modelwright.errors import ModelwrightError
from modelwright.pipeline.deploy import MODEL, Order, write_launch
from modelwright.pipeline.export import export

# Of vLLM's table of models, those whose layout is written here; read 2026-08.
ARCHITECTURES = frozenset({
    "GPT2LMHeadModel", "Gemma2ForCausalLM", "Gemma3ForCausalLM", "GemmaForCausalLM",
    "LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "OlmoForCausalLM",
    "Olmo2ForCausalLM", "PhiForCausalLM", "Phi3ForCausalLM", "Qwen2ForCausalLM",
    "Qwen2MoeForCausalLM", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM", "SmolLM3ForCausalLM",
    "StableLmForCausalLM",
})  # fmt: skip
LENGTHS = ("max_position_embeddings", "n_positions")  # where a config says its context
_NEEDED = ("config.json", "tokenizer.json", "tokenizer_config.json")


def write(order: Order) -> None:
    """Write the checkpoint and the command."""
    export(
        order.run,
        order.folder / MODEL,
        order.say,
        to="hub",
        stage=order.stage,
        options=order.options,
        license=order.license,
    )
    _, length, dtype = _settings(order)
    write_launch(
        order,
        [
            *("vllm", "serve", f"./{MODEL}", "--served-model-name", order.name),
            *("--host", order.host, "--port", "$PORT", "--max-model-len", str(length)),
            *("--dtype", dtype, "--generation-config", "vllm", "--load-format", "safetensors"),
        ],
        ["HF_HUB_OFFLINE=1", "VLLM_NO_USAGE_STATS=1"],
        key="VLLM_API_KEY",
    )


def absent() -> str:
    """Whether vLLM is there."""
    return "" if shutil.which("vllm") else "no vllm on PATH; it needs a GPU, or a build for CPUs"


def check(order: Order) -> str:
    """Whether vLLM knows the architecture, and finds all that it reads.

    Raises:
        ModelwrightError: it does not.
    """
    architecture, length, dtype = _settings(order)
    missing = [n for n in _NEEDED if not (order.folder / MODEL / n).is_file()]
    if missing or not any((order.folder / MODEL).glob("*.safetensors")):
        raise ModelwrightError(f"deploy: {MODEL} has no {', '.join(missing) or 'safetensors'}")
    return f"config: {architecture} is one of vLLM's, {length} tokens, {dtype}, safetensors"


def _settings(order: Order) -> tuple[str, int, str]:
    """The architecture, the context and the dtype that the checkpoint says of itself."""
    text = (order.folder / MODEL / "config.json").read_text(encoding="utf-8")
    config: dict[str, Any] = json.loads(text)
    (architecture,) = config.get("architectures") or [""]
    if architecture not in ARCHITECTURES:
        raise ModelwrightError(
            f"deploy: vLLM has no model like {architecture or 'this one'}; serve it with "
            "`modelwright serve`, --to ray-serve or --to docker"
        )
    length = next((int(config[name]) for name in LENGTHS if name in config), 0)
    dtype = str(config.get("torch_dtype") or config.get("dtype") or "float32")
    return architecture, length, dtype
