"""Learned prompts in PEFT's format: one matrix ``prompt_embeddings``.

Of prompt tuning it has a row of the embedding's width for every virtual token; of prefix tuning a
row holds, layer after layer, all heads' keys and then all heads' values.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from modelwright.errors import CorruptError, ModelwrightError
from modelwright.models import prompts
from modelwright.models.lora import Adapter

KEY = "prompt_embeddings"
TYPES = {"PROMPT_TUNING": "prompt", "PREFIX_TUNING": "prefix"}


def described(
    adapter: Adapter, tensors: Mapping[str, Tensor], base: nn.Module
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of adapter_model.safetensors, and what adapter_config.json says of them.

    Raises:
        ModelwrightError: there is more to store than the format has a place for.
    """
    if adapter.trained:
        raise ModelwrightError(
            f"export: {adapter.trained[0]} was trained beside the prompt, which PEFT has no place "
            "for; leave out tune.adapter.trained"
        )
    attentions: list[Any] = [block.attention for block in cast(Any, base).blocks]
    if adapter.prompt:
        matrix = tensors[f"embedding.{prompts.EMBEDDING}"]
    else:
        names = [
            f"blocks.{i}.attention.{part}"
            for i in range(len(attentions))
            for part in (prompts.KEYS, prompts.VALUES)
        ]
        matrix = torch.cat([tensors[name].flatten(1) for name in names], dim=1)
    first = attentions[0]
    width = first.kv_heads * first.head_width if adapter.prefix else matrix.shape[1]
    config: dict[str, Any] = {
        "peft_type": "PROMPT_TUNING" if adapter.prompt else "PREFIX_TUNING",
        "inference_mode": True,
        "num_virtual_tokens": len(matrix),
        "token_dim": width,
        "num_transformer_submodules": 1,
        "num_attention_heads": first.kv_heads if adapter.prefix else first.heads,
        "num_layers": len(attentions),
    }
    beside = {"encoder_hidden_size": width, "prefix_projection": False}
    return {KEY: matrix}, config | (beside if adapter.prefix else {"prompt_tuning_init": "RANDOM"})


def put(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], model: nn.Module
) -> None:
    """Put a prompt of theirs on a plain model that is its base.

    Raises:
        CorruptError: the matrix is missing, or of another size than the model's.
        ModelwrightError: the model has no place for prompts, or the prefix has a projection.
    """
    if config.get("prefix_projection"):
        raise ModelwrightError(
            f"{folder}: prefix_projection is not supported; save the prefix without it"
        )
    matrix = tensors.get(KEY)
    if set(tensors) != {KEY} or matrix is None or matrix.ndim != 2:
        raise CorruptError(f"{folder}: holds no {KEY} alone; get the files again")
    kind = TYPES[str(config["peft_type"])]
    with torch.random.fork_rng():
        prompts.put(model, **{"prompt": 0, "prefix": 0, kind: len(matrix)})
    learned = [p for n, p in model.named_parameters() if n.rpartition(".")[2] in prompts.PARTS]
    if sum(p.numel() for p in learned) != matrix.numel():
        prompts.remove(model)
        raise CorruptError(f"{folder}: {KEY} is of another size than this base's prompts")
    parts = matrix.split([p[0].numel() for p in learned], dim=1)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for p, part in zip(learned, parts, strict=True):
            p.copy_(part.reshape(p.shape))
