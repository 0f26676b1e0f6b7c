"""Our own decoder as a decoder of ``models/llama.py``, where its options allow it.

With a gated feed-forward and none of its additions it is the function of a Qwen 3: what remains,
the norm behind the embedding, changes every row of the table by itself, so the table of normed
rows gives the same stream.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from modelwright.errors import ModelwrightError
from modelwright.models import decoder, llama
from modelwright.models.model import ModelConfig
from modelwright.models.rope import YARN

EPS = 1e-6  # of every norm of the decoder, see models/layers.py
# What other programs' graphs have no room for, and the value without it.
_PLAIN = {
    "feed_forward": "gated",
    "softcap": 0.0,
    "value_embeddings": False,
    "shortcuts": False,
    "bigrams": 0,
}


def plain(
    config: ModelConfig, state: Mapping[str, Tensor]
) -> tuple[ModelConfig, Mapping[str, Tensor]]:
    """The same function as a model of a published family.

    Args:
        config: of the trained model; other families than the decoder are given back as they are.
        state: its tensors by name.

    Raises:
        ModelwrightError: an option of the decoder has no place there; all that must change are
            named.
    """
    if not isinstance(config, decoder.Config):
        return config, state
    odd = {name: value for name, value in _PLAIN.items() if getattr(config, name) != value}
    if odd:
        first = next(iter(odd))
        wanted = ", ".join(f"{name}: {str(value).lower()}" for name, value in odd.items())
        raise ModelwrightError(
            f"export: model.{first} {getattr(config, first)!r}: no graph of llama.cpp has it; "
            f"train with model: {{{wanted}}}, with model.family llama, or export --to hub"
        )
    c = config
    found = {name: tensor for name, tensor in state.items() if name != "embedding_norm.gain"}
    gain = state["embedding_norm.gain"]
    found["embedding.weight"] = F.rms_norm(state["embedding.weight"], gain.shape, gain, EPS)
    shape = llama.Config(
        vocabulary=c.vocabulary,
        depth=c.depth,
        width=c.width,
        heads=c.heads,
        kv_heads=c.kv_heads,
        hidden=c.hidden_width,
        context=c.context,
        eps=EPS,
        qk_norm=True,
        rope_base=c.rope_base,
        rope_scaling=c.rope_scaling,
        rope_factor=c.rope_factor,
        rope_context=c.rope_context,
        rope_low=YARN[0],
        rope_high=YARN[1],
    )
    return shape, found
