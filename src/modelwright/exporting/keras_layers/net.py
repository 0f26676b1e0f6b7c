"""Layers of Keras that bear the names and hold the weights of our modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from modelwright.errors import ModelwrightError
from modelwright.types import Array

Tensor = Any  # of Keras


def keras_name(module: str) -> str:
    """The name of a module as a layer of Keras bears it."""
    return module.replace(".", "_")


class Net:
    """Makes layers for the modules of a model and gives them their weights.

    Every layer is one of Keras' own, so that the result loads without code. What of the model no
    layer has taken is known in the end (``left``).
    """

    def __init__(self, keras: Any, model: nn.Module) -> None:
        self.keras, self.ops, self.layers = keras, keras.ops, keras.layers
        self._names = {id(m): name for name, m in model.named_modules()}
        self._left = {
            id(t): name
            for name, t in model.state_dict(keep_vars=True).items()
            if not name.endswith("num_batches_tracked")
        }

    def array(self, tensor: torch.Tensor | None) -> Array:
        """A parameter or buffer of the model as numbers; it counts as taken."""
        assert tensor is not None  # noqa: S101 - callers ask for what is there
        self._left.pop(id(tensor), None)
        found: Array = tensor.detach().float().cpu().numpy()
        return found

    def unused(self, module: nn.Module) -> None:
        """What only training needs of a model."""
        for tensor in module.state_dict(keep_vars=True).values():
            self._left.pop(id(tensor), None)

    @property
    def left(self) -> list[str]:
        """The tensors of the model that no layer holds."""
        return list(self._left.values())

    def name(self, module: nn.Module) -> str:
        """The name of the layer that stands for a module."""
        return keras_name(self._names[id(module)])

    def filled(self, layer: Any, weights: Sequence[Array], *given: Any, **named: Any) -> Tensor:
        """What a new layer makes of ``given``, after it was given its weights."""
        made = layer(*given, **named)
        shapes = [tuple(w.shape) for w in layer.weights]
        if shapes != [w.shape for w in weights]:
            raise ModelwrightError(
                f"--to keras: {layer.name} holds {shapes}, our tensors are "
                f"{[w.shape for w in weights]}; this version of Keras is not supported"
            )
        layer.set_weights(list(weights))
        return made

    # Layers that stand for one module each -------------------------------------------------------

    def dense(self, module: nn.Linear, x: Tensor, *, scale: torch.Tensor | None = None) -> Tensor:
        """W x + b over the last dimension, times ``scale`` (outputs,)."""
        made = self.layers.Dense(
            module.out_features, use_bias=module.bias is not None, name=self.name(module)
        )
        weights = [self.array(module.weight).T]
        if module.bias is not None:
            weights.append(self.array(module.bias))
        if scale is not None:
            weights = [w * self.array(scale) for w in weights]
        return self.filled(made, weights, x)

    def table(self, module: nn.Embedding, ids: Tensor) -> Tensor:
        """Rows of a table."""
        rows, width = module.weight.shape
        made = self.layers.Embedding(rows, width, name=self.name(module))
        return self.filled(made, [self.array(module.weight)], ids)

    def fixed(self, name: str, rows: Array, ids: Tensor) -> Tensor:
        """Rows of a table that is computed or that has no module of its own."""
        made = self.layers.Embedding(*rows.shape, name=name)
        return self.filled(made, [rows], ids)

    def conv(self, module: nn.Conv2d, x: Tensor) -> Tensor:
        """A convolution; zeros are put around by a layer of their own.

        With a stride, the "same" padding of TensorFlow puts them elsewhere than PyTorch does.
        """
        x = self.padded(module.padding, x)
        fields = {
            "strides": module.stride,
            "padding": "valid",
            "data_format": "channels_last",
            "use_bias": module.bias is not None,
            "name": self.name(module),
        }
        kernel = self.array(module.weight).transpose(2, 3, 1, 0)
        if module.groups == 1:
            made = self.layers.Conv2D(module.out_channels, module.kernel_size, **fields)
        else:  # of one plane each: others are in no family
            made = self.layers.DepthwiseConv2D(module.kernel_size, **fields)
            kernel = kernel.swapaxes(2, 3)
        weights = [kernel]
        if module.bias is not None:
            weights.append(self.array(module.bias))
        return self.filled(made, weights, x)

    def padded(self, around: Any, x: Tensor) -> Tensor:
        """Zeros around planes, (rows, columns) on each side."""
        if not any(around):
            return x
        return self.layers.ZeroPadding2D(tuple(around), data_format="channels_last")(x)

    def norm(self, module: nn.Module, x: Tensor) -> Tensor:
        """Whichever norm the module is, of planes or of the last dimension."""
        if isinstance(module, nn.BatchNorm2d):
            made = self.layers.BatchNormalization(
                axis=-1,
                momentum=1 - (module.momentum or 0.1),
                epsilon=module.eps,
                name=self.name(module),
            )
            held = (module.weight, module.bias, module.running_mean, module.running_var)
            return self.filled(made, [self.array(t) for t in held], x)
        if isinstance(module, nn.GroupNorm):
            made = self.layers.GroupNormalization(
                module.num_groups, axis=-1, epsilon=module.eps, name=self.name(module)
            )
        elif isinstance(module, nn.LayerNorm):
            made = self.layers.LayerNormalization(
                axis=-1, epsilon=module.eps, name=self.name(module)
            )
        else:  # our own RMSNorm
            made = self.layers.RMSNormalization(axis=-1, epsilon=module.eps, name=self.name(module))
            return self.filled(made, [self.array(module.gain)], x)  # type: ignore[arg-type]
        return self.filled(made, [self.array(module.weight), self.array(module.bias)], x)

    def attention(self, module: Any, x: Tensor, mask: Tensor | None, width: int) -> Tensor:
        """Keras' own attention with the weights of query, key, value and out.

        ``width`` is that of a head; the products are scaled by its root, as ours are.
        """
        heads = module.heads
        weights: list[Array] = []
        for one in (module.query, module.key, module.value):
            weights.append(self.array(one.weight).T.reshape(-1, heads, width))
            weights.append(self.array(one.bias).reshape(heads, width))
        weights.append(self.array(module.out.weight).T.reshape(heads, width, -1))
        weights.append(self.array(module.out.bias))
        made = self.layers.MultiHeadAttention(heads, width, name=self.name(module))
        return self.filled(made, weights, x, x, attention_mask=mask)

    # Without weights -----------------------------------------------------------------------------

    def activation(self, kind: str, x: Tensor) -> Tensor:
        """A nonlinearity by the name that our models give it."""
        if kind in ("gelu", "gelu_tanh"):
            return self.ops.gelu(x, approximate=kind == "gelu_tanh")
        return getattr(self.ops, kind)(x)

    def shaped(self, x: Tensor, *shape: int) -> Tensor:
        """Every row in another shape; -1 stands for what varies."""
        return self.layers.Reshape(shape)(x)

    def zeros(self, x: Tensor) -> Tensor:
        """int32 zeros (B, 1) for tokens or planes x (B, N, ...)."""
        first = self.ops.take(x, 0, axis=-1) if len(x.shape) > 2 else x
        return self.ops.cast(self.ops.take(first, [0], axis=1) * 0, "int32")

    def positions(self, x: Tensor) -> Tensor:
        """int32 (B, T): 0, 1, 2, ... for x (B, T) or (B, T, width), whatever T is."""
        first = self.ops.take(x, 0, axis=-1) if len(x.shape) > 2 else x
        ones = self.ops.cast(self.ops.ones_like(first), "int32")
        return self.ops.cumsum(ones, axis=1) - 1


def transposed_planes(values: Array) -> Array:
    """Planes (B, C, H, W) as Keras has them, (B, H, W, C); anything else as it is."""
    return np.moveaxis(values, 1, -1) if values.ndim == 4 else values
