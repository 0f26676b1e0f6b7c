"""Our own encoder: RMS norms, rotary positions and normalised queries, in operations of Keras."""

from __future__ import annotations

from typing import Any

from modelwright.exporting.keras_layers.families import Tensor
from modelwright.exporting.keras_layers.net import Net
from modelwright.models.encoder import Encoder

FAR = -1e9  # added to the products with what is not seen


def build(net: Net, model: Encoder, given: dict[str, Tensor]) -> Tensor:
    """Embedding, blocks, the mean over the true tokens, the head."""
    ops = net.ops
    x = net.norm(model.embedding_norm, net.table(model.embedding, given["tokens"]))
    tables = (model.rotary.get_buffer(name).numpy() for name in ("cos", "sin"))
    turned = [
        ops.expand_dims(net.fixed(f"rotary_{name}", rows, given["positions"]), 2)
        for name, rows in zip(("cos", "sin"), tables, strict=True)
    ]
    seen = ops.cast(given["seen"], "float32")
    hidden = (1.0 - ops.expand_dims(ops.expand_dims(seen, 1), 1)) * FAR  # (B, 1, 1, T)
    for block in model.blocks:
        x = _block(net, block, x, turned, hidden)
    x = net.norm(model.norm, x) * ops.expand_dims(seen, -1)
    number = ops.cast(ops.expand_dims(given["lengths"], -1), "float32")
    return net.dense(model.output, ops.sum(x, axis=1) / number)


def _block(net: Net, block: Any, x: Tensor, turned: list[Tensor], hidden: Tensor) -> Tensor:
    x = x + _attention(net, block.attention, net.norm(block.attention_norm, x), turned, hidden)
    feed = block.feed_forward
    up = net.activation("relu", net.dense(feed.up, net.norm(block.feed_norm, x)))
    return x + net.dense(feed.down, net.ops.square(up))


def _attention(net: Net, module: Any, x: Tensor, turned: list[Tensor], hidden: Tensor) -> Tensor:
    """softmax(QK^T / sqrt(d)) V of x (B, T, width)."""
    ops, heads, width = net.ops, module.heads, module.head_width

    def split(linear: Any) -> Tensor:
        return net.shaped(net.dense(linear, x), -1, heads, width)

    q = _rotated(net, net.norm(module.query_norm, split(module.query)), turned)
    k = _rotated(net, net.norm(module.key_norm, split(module.key)), turned)
    products = ops.einsum("bthd,bshd->bhts", q, k) * width**-0.5 + hidden
    mixed = ops.einsum("bhts,bshd->bthd", ops.softmax(products, axis=-1), split(module.value))
    return net.dense(module.out, net.shaped(mixed, -1, heads * width))


def _rotated(net: Net, x: Tensor, turned: list[Tensor]) -> Tensor:
    """X (B, T, heads, d) turned by the angles (B, T, 1, d / 2) of its positions."""
    cos, sin = turned
    a, b = net.ops.split(x, 2, axis=-1)
    return net.ops.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
