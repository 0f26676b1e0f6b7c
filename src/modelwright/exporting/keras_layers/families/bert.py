"""BERT and its kin with a head for labels."""

from __future__ import annotations

from typing import Any

from modelwright.errors import ModelwrightError
from modelwright.exporting.keras_layers.families import Tensor
from modelwright.exporting.keras_layers.net import Net
from modelwright.models.bert import Bert


def build(net: Net, model: Bert, given: dict[str, Tensor]) -> Tensor:
    """Embeddings, blocks, and the head on the first token."""
    config, ops, tokens = model.config, net.ops, given["tokens"]
    if config.head != "classification":
        raise ModelwrightError(
            f"--to keras: a {config.family} with a head for {config.head}; only one for labels is "
            "written so far; --to hub takes every head"
        )
    x = net.table(model.embedding, tokens)
    places = given["positions"] + config.first_position
    x = x + net.table(model.position_embedding, places)
    if model.type_embedding is not None:
        x = x + net.table(model.type_embedding, tokens * 0)
    x = net.norm(model.embedding_norm, x)
    seen = ops.expand_dims(given["seen"], 1)  # (B, 1, T): of every row the same keys
    mask = ops.logical_and(ops.expand_dims(ops.ones_like(given["seen"]), -1), seen)
    for block in model.blocks:
        x = _block(net, block, x, mask, config.activation)
    first = net.dense(model.transform, ops.take(x, 0, axis=1))
    return net.dense(model.output, net.activation(config.pooling, first))


def _block(net: Net, block: Any, x: Tensor, mask: Tensor, kind: str) -> Tensor:
    width = block.attention.head_width
    x = net.norm(block.attention_norm, x + net.attention(block.attention, x, mask, width))
    feed = block.feed_forward
    fed = net.dense(feed.down, net.activation(kind, net.dense(feed.up, x)))
    return net.norm(block.feed_norm, x + fed)
