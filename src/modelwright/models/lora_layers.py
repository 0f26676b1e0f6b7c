"""Layers with a low-rank adapter: what a plain layer becomes, and is again.

    W' = W + s B A                     LoRA and rsLoRA, which differ in s
    W' = m (W + s B A) / |W + s B A|   DoRA

``lora.py`` chooses the layers and tells the sources.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelwright.models.narrow import Narrow


class Settings(Protocol):
    """What a layer is told of its adapter; see ``lora.Adapter``."""

    @property
    def rank(self) -> int:
        """Columns of B."""
        ...

    @property
    def scaling(self) -> float:
        """The factor s of B A."""
        ...

    @property
    def dropout(self) -> float:
        """The share of the adapter's inputs that is zeroed."""
        ...

    @property
    def dora(self) -> bool:
        """Whether norms are learned apart."""
        ...


class LoraLayer(nn.Module, ABC):
    """What adapted layers have in common; ``adapt`` makes them of plain ones."""

    plain: type[Any]
    lora_a: nn.Parameter
    lora_b: nn.Parameter
    magnitude: nn.Parameter | None
    scaling: float
    dropped: float
    narrow: Narrow | None  # holds W, where it is in few bits
    merged: bool
    kept: Tensor | None  # W while W' stands in its place

    def begin(self, adapter: Settings) -> None:
        """Draw A, set B to zero and m to the norms: W' = W."""
        if "narrow" not in self._modules:
            self.register_module("narrow", None)
        self.merged = False
        weight = self.base
        down, up = self.shapes(adapter.rank)
        bound = 1 / math.sqrt(math.prod(down[1:]))
        self.lora_a = nn.Parameter(weight.new_empty(down).uniform_(-bound, bound))
        self.lora_b = nn.Parameter(weight.new_zeros(up))
        self.register_parameter("magnitude", None)
        self.scaling, self.dropped, self.kept = adapter.scaling, adapter.dropout, None
        if adapter.dora:
            self.magnitude = nn.Parameter(self.norms())

    @abstractmethod
    def shapes(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes of A and B."""

    @property
    def base(self) -> Tensor:
        """W, or W' after ``merge``."""
        if self.narrow is not None and not self.merged:
            return self.narrow.unpacked()
        return cast(Tensor, self._parameters["weight"])

    @property
    def weight(self) -> Tensor:
        """W'."""
        if self.merged:
            return self.base
        summed = self.base + self.scaling * self.product()
        if self.magnitude is None:
            return summed
        return summed * self._column(self.magnitude / self.norms())

    def product(self) -> Tensor:
        """B A in the shape of W."""
        flat = self.lora_b.flatten(1) @ self.lora_a.flatten(1)
        return flat.view(len(flat), *self.lora_a.shape[1:])

    @torch.no_grad()
    def norms(self) -> Tensor:
        """|W + s B A| of every output (outputs,); a constant in the gradient (section 4.3)."""
        summed = self.base + self.scaling * self.product()
        found: Tensor = torch.linalg.vector_norm(summed.float().flatten(1), dim=1)
        return found.to(summed.dtype)

    def _column(self, values: Tensor) -> Tensor:
        """Values (outputs,) to multiply W by."""
        return values.view(-1, *[1] * (self.lora_a.ndim - 1))

    def thinned(self, x: Tensor) -> Tensor:
        """Inputs of the adapter, after its dropout."""
        return F.dropout(x, self.dropped, self.training) if self.dropped else x

    @torch.no_grad()
    def merge(self) -> None:
        """Put W' in the place of W, and keep W beside it."""
        if self.merged:
            return
        whole = self.weight
        if self.narrow is None:
            self.kept = self.base.clone()
            self.base.copy_(whole)
        else:
            self._parameters["weight"] = nn.Parameter(whole, requires_grad=False)
        self.merged = True

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put W back, bit by bit."""
        if not self.merged:
            return
        if self.kept is None:
            self._parameters["weight"] = None
        else:
            self.base.copy_(self.kept)
        self.merged, self.kept = False, None


class LoraLinear(LoraLayer, nn.Linear):  # type: ignore[override]  # weight reads as W'
    """x W'^T + b, for x (..., inputs)."""

    plain = nn.Linear

    def shapes(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """A (rank, inputs), B (outputs, rank)."""
        return (rank, self.in_features), (self.out_features, rank)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., inputs) to (..., outputs)."""
        if self.merged:
            return F.linear(x, self.base, self.bias)
        low = F.linear(self.thinned(x), self.lora_a) * self.scaling
        if self.magnitude is None:
            return self._through(x, self.bias) + F.linear(low, self.lora_b)
        both = self._through(x) + F.linear(low, self.lora_b)
        y = both * (self.magnitude / self.norms()).to(both.dtype)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def _through(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """The base's part of the product."""
        if self.narrow is not None:
            return self.narrow.product(x, bias)
        return F.linear(x, self.base, bias)


class LoraEmbedding(LoraLayer, nn.Embedding):  # type: ignore[override]
    """Rows of W', whose products are B A transposed."""

    plain = nn.Embedding

    def shapes(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """A (rank, rows), B (width, rank)."""
        return (rank, self.num_embeddings), (self.embedding_dim, rank)

    def product(self) -> Tensor:
        """B A transposed, (rows, width)."""
        return (self.lora_b @ self.lora_a).t()

    def forward(self, tokens: Tensor) -> Tensor:
        """Rows (..., width) of the numbers (...)."""
        if self.narrow is not None and not self.merged:
            rows = self.narrow.rows(tokens)
        else:
            rows = F.embedding(tokens, self.base, self.padding_idx)
        if self.merged:
            return rows
        low = F.embedding(tokens, self.lora_a.t()) * self.scaling
        return rows + F.linear(self.thinned(low), self.lora_b)


class LoraConvolution(LoraLayer):
    """A convolution with W': A sees its window, B is a product at each place."""

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    bias: nn.Parameter | None
    _conv_forward: Callable[[Tensor, Tensor, Tensor | None], Tensor]

    @staticmethod
    @abstractmethod
    def raised(low: Tensor, up: Tensor) -> Tensor:
        """B on what A has made: a convolution with windows of one place."""

    def shapes(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """A (rank, inputs, window), B (outputs, rank, 1, ...)."""
        ones = [1] * len(self.kernel_size)
        return (rank, self.in_channels, *self.kernel_size), (self.out_channels, rank, *ones)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (n, inputs, ...)."""
        if self.merged:
            return self._conv_forward(x, self.base, self.bias)
        low = self._conv_forward(self.thinned(x), self.lora_a, None) * self.scaling
        up = self.raised(low, self.lora_b)
        if self.magnitude is None:
            return self._conv_forward(x, self.base, self.bias) + up
        column = (-1, *[1] * len(self.kernel_size))
        both = self._conv_forward(x, self.base, None) + up
        y = both * (self.magnitude / self.norms()).to(both.dtype).view(column)
        return y if self.bias is None else y + self.bias.to(y.dtype).view(column)


class LoraConv1d(LoraConvolution, nn.Conv1d):  # type: ignore[misc,override]  # weight reads as W'
    """Over time: (n, channels, time)."""

    plain = nn.Conv1d

    @staticmethod
    def raised(low: Tensor, up: Tensor) -> Tensor:
        """B at every time."""
        return F.conv1d(low, up)


class LoraConv2d(LoraConvolution, nn.Conv2d):  # type: ignore[misc,override]
    """Over pictures: (n, channels, height, width)."""

    plain = nn.Conv2d

    @staticmethod
    def raised(low: Tensor, up: Tensor) -> Tensor:
        """B at every pixel."""
        return F.conv2d(low, up)


KINDS: tuple[type[LoraLayer], ...] = (LoraLinear, LoraEmbedding, LoraConv1d, LoraConv2d)
