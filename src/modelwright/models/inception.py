"""Inception v3 (arXiv:1512.00567): branches of factorised convolutions, side by side.

Layers and channel counts are those of the published network, which reads 299 x 299 pixels and
has a second, auxiliary head in the middle that is used in training only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from modelwright.kernels.dropout import Dropout
from modelwright.models import reading
from modelwright.models.images import (
    ConvNorm,
    Norm,
    check_image,
    counted_flops,
    he_initialised,
    image_fields,
    plane_means,
    planes,
)
from modelwright.models.model import ModelConfig

EPS = 1e-3
LEAST, LEAST_AUXILIARY = 75, 299  # sides at which the last planes, or the second head's, are 1 x 1


@dataclass(frozen=True)
class Config(ModelConfig):
    """Shape of an Inception v3.

    ``width`` is the share of the published channel counts; ``auxiliary`` adds the second head,
    whose loss counts ``auxiliary_weight`` in training; ``dropout`` acts before the head.
    """

    family: ClassVar[str] = "inception"
    inputs = reading.images
    compiles: ClassVar[bool] = True
    fused: ClassVar[float] = 1.0
    specimen: ClassVar[dict[str, Any]] = {
        "classes": 3,
        "image": (75, 79),
        "width": 0.05,
        "dropout": 0.0,
    }
    sizes: ClassVar[dict[str, dict[str, Any]]] = {"inception-v3": {"width": 1.0}}
    classes: PositiveInt
    image: tuple[PositiveInt, PositiveInt] = (299, 299)
    channels: PositiveInt = 3
    width: PositiveFloat = 1.0
    auxiliary: bool = False
    auxiliary_weight: Annotated[float, Field(ge=0)] = 0.4
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    norm: Norm = "batch"

    def __post_init__(self) -> None:
        object.__setattr__(self, "image", tuple(self.image))
        check_image(self.image, LEAST_AUXILIARY if self.auxiliary else LEAST)

    def build(self) -> Inception:
        """The module with fresh parameters."""
        return Inception(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """The codec knows the size of the images, their channels and the label set."""
        return image_fields(codec)

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:  # noqa: ARG002
        """FLOPs of forward and backward for one image, the auxiliary head left out."""
        return counted_flops(self, {"features": (*self.image, self.channels)})


class Layer(NamedTuple):
    """One convolution of a block, by the name that it has in published files."""

    name: str
    made: int
    kernel: int | tuple[int, int]
    stride: int = 1


class Plan(NamedTuple):
    """A block: branches of layers one after another; a branch may end in several side by side.

    ``pool`` says how the last branch reads: "average" of 3 x 3, which a layer then maps, or "max"
    of 3 x 3 with stride 2, which is taken as it is.
    """

    branches: tuple[tuple[Layer | tuple[Layer, ...], ...], ...]
    pool: str = "average"


def _a(pooled: int) -> Plan:
    double = (Layer("branch3x3dbl_1", 64, 1), Layer("branch3x3dbl_2", 96, 3))
    return Plan(
        (
            (Layer("branch1x1", 64, 1),),
            (Layer("branch5x5_1", 48, 1), Layer("branch5x5_2", 64, 5)),
            (*double, Layer("branch3x3dbl_3", 96, 3)),
            (Layer("branch_pool", pooled, 1),),
        )
    )


def _b() -> Plan:
    double = (Layer("branch3x3dbl_1", 64, 1), Layer("branch3x3dbl_2", 96, 3))
    last = Layer("branch3x3dbl_3", 96, 3, 2)
    return Plan(((Layer("branch3x3", 384, 3, 2),), (*double, last), ()), "max")


def _c(inner: int) -> Plan:
    lying, standing = (1, 7), (7, 1)
    double: tuple[tuple[int, int | tuple[int, int]], ...] = (
        *((inner, 1), (inner, standing), (inner, lying)),
        *((inner, standing), (192, lying)),
    )
    return Plan(
        (
            (Layer("branch1x1", 192, 1),),
            (
                Layer("branch7x7_1", inner, 1),
                Layer("branch7x7_2", inner, lying),
                Layer("branch7x7_3", 192, standing),
            ),
            tuple(Layer(f"branch7x7dbl_{i}", n, k) for i, (n, k) in enumerate(double, start=1)),
            (Layer("branch_pool", 192, 1),),
        )
    )


def _d() -> Plan:
    long: tuple[tuple[int, int | tuple[int, int], int], ...] = (
        *((192, 1, 1), (192, (1, 7), 1)),
        *((192, (7, 1), 1), (192, 3, 2)),
    )
    return Plan(
        (
            (Layer("branch3x3_1", 192, 1), Layer("branch3x3_2", 320, 3, 2)),
            tuple(Layer(f"branch7x7x3_{i}", n, k, s) for i, (n, k, s) in enumerate(long, start=1)),
            (),
        ),
        "max",
    )


def _e() -> Plan:
    def fork(name: str) -> tuple[Layer, ...]:
        return (Layer(f"{name}a", 384, (1, 3)), Layer(f"{name}b", 384, (3, 1)))

    double = (Layer("branch3x3dbl_1", 448, 1), Layer("branch3x3dbl_2", 384, 3))
    return Plan(
        (
            (Layer("branch1x1", 320, 1),),
            (Layer("branch3x3_1", 384, 1), fork("branch3x3_2")),
            (*double, fork("branch3x3dbl_3")),
            (Layer("branch_pool", 192, 1),),
        )
    )


# Kernel, stride and padding of the first layers; a pooling of stride 2 follows those marked.
STEM = (
    ("1a_3x3", 32, 3, 2, 0, False),
    ("2a_3x3", 32, 3, 1, 0, False),
    ("2b_3x3", 64, 3, 1, 1, True),
    ("3b_1x1", 80, 1, 1, 0, False),
    ("4a_3x3", 192, 3, 1, 0, True),
)
BLOCKS: dict[str, Plan] = {
    **{"5b": _a(32), "5c": _a(64), "5d": _a(64), "6a": _b()},
    **{"6b": _c(128), "6c": _c(160), "6d": _c(160), "6e": _c(192)},
    **{"7a": _d(), "7b": _e(), "7c": _e()},
}
AUXILIARY_AFTER = "6e"


def _activated(layer: nn.Module, x: Tensor) -> Tensor:
    made: Tensor = layer(x, "relu")
    return made


class Mixed(nn.Module):
    """Branches that read the same planes, their results side by side."""

    def __init__(self, read: int, plan: Plan, config: Config) -> None:
        super().__init__()
        self.plan, self.made = plan, 0
        self.layers = nn.ModuleDict()
        for branch in plan.branches:
            width = read
            for place in branch:
                layers = (place,) if isinstance(place, Layer) else place
                for layer in layers:
                    self.layers[layer.name] = ConvNorm(
                        width,
                        scaled(layer.made, config),
                        layer.kernel,
                        stride=layer.stride,
                        padding=0 if layer.stride > 1 else None,
                        norm=config.norm,
                        eps=EPS,
                    )
                width = sum(scaled(layer.made, config) for layer in layers)
            self.made += width

    def forward(self, x: Tensor) -> Tensor:
        """Map planes (B, read, H, W) to (B, made, H, W), or half of H and W."""
        found = []
        for i, branch in enumerate(self.plan.branches):
            y = x
            if i + 1 == len(self.plan.branches):
                average = self.plan.pool == "average"
                y = F.avg_pool2d(x, 3, 1, 1) if average else F.max_pool2d(x, 3, 2)
            for place in branch:
                if isinstance(place, Layer):
                    y = _activated(self.layers[place.name], y)
                else:
                    y = torch.cat([_activated(self.layers[p.name], y) for p in place], 1)
            found.append(y)
        return torch.cat(found, 1)


def scaled(channels: int, config: Config) -> int:
    """A published number of channels times ``config.width``, at least 1."""
    return max(1, round(channels * config.width))


class Auxiliary(nn.Module):
    """The second head: logits (B, classes) of planes (B, read, 17, 17) or larger."""

    def __init__(self, read: int, config: Config) -> None:
        super().__init__()
        inner, last = scaled(128, config), scaled(768, config)
        self.conv0 = ConvNorm(read, inner, 1, norm=config.norm, eps=EPS)
        self.conv1 = ConvNorm(inner, last, 5, padding=0, norm=config.norm, eps=EPS)
        self.head = nn.Linear(last, config.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map planes to logits."""
        x = _activated(self.conv1, _activated(self.conv0, F.avg_pool2d(x, 5, 3)))
        logits: Tensor = self.head(plane_means(x))
        return logits


class Inception(nn.Module):
    """Images (B, height, width[, channels]) to logits (B, classes)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.auxiliary_weight = config.auxiliary_weight
        self.stem = nn.ModuleDict()
        read = config.channels
        for name, channels, kernel, stride, padding, _ in STEM:
            made = scaled(channels, config)
            self.stem[name] = ConvNorm(
                read, made, kernel, stride=stride, padding=padding, norm=config.norm, eps=EPS
            )
            read = made
        self.mixed = nn.ModuleDict()
        self.auxiliary: Auxiliary | None = None
        for name, plan in BLOCKS.items():
            block = Mixed(read, plan, config)
            self.mixed[name], read = block, block.made
            if name == AUXILIARY_AFTER and config.auxiliary:
                self.auxiliary = Auxiliary(read, config)
        self.dropout = Dropout(config.dropout)
        self.head = nn.Linear(read, config.classes)
        he_initialised(self)

    def regions(self) -> list[nn.Module]:
        """The modules to compile, each by itself."""
        return list(self.mixed.values())

    def seen(self) -> tuple[nn.Module, None]:
        """The module of the last planes, which Grad-CAM looks at."""
        return self.regions()[-1], None

    def forward(self, features: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (B, classes) for images (B, height, width[, channels]) of scaled pixels.

        In training, with the second head: its logits as well, as (logits, auxiliary logits).
        """
        x = planes(features, self.config.channels)
        for name, *_, pooled in STEM:
            x = _activated(self.stem[name], x)
            x = F.max_pool2d(x, 3, 2) if pooled else x
        second: Tensor | None = None
        for name, block in self.mixed.items():
            x = block(x)
            if name == AUXILIARY_AFTER and self.training and self.auxiliary is not None:
                second = self.auxiliary(x)
        logits: Tensor = self.head(self.dropout(plane_means(x)))
        return logits if second is None else (logits, second)
