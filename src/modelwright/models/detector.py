"""A one-stage detector without anchors (FCOS, arXiv:1904.01355).

A residual trunk makes planes of strides 8, 16 and 32; a feature pyramid (arXiv:1612.03144) joins
them and adds strides 64 and 128. At every position of every level one head says which class has
an object there, how far its four sides are, and how central the position lies in it. What is
found is thinned out by non-maximum suppression, here in plain PyTorch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from modelwright.models import reading, resnet
from modelwright.models.images import (
    Norm,
    check_image,
    counted_flops,
    image_fields,
    norm_layer,
    planes,
)
from modelwright.models.model import ModelConfig

STRIDES = (8, 16, 32, 64, 128)
RARE = 0.01  # probability of an object at a position at the start (arXiv:1708.02002)


@dataclass(frozen=True)
class Config(ModelConfig):
    """Shape of a detector.

    ``depths``, ``widths``, ``stem_width``, ``bottleneck`` and ``norm`` are those of the trunk,
    see ``resnet``, which has four stages; ``width`` are the channels of the pyramid and the heads,
    ``layers`` the convolutions of each head.
    """

    family: ClassVar[str] = "detector"
    inputs = reading.images
    compiles: ClassVar[bool] = True
    specimen: ClassVar[dict[str, Any]] = {
        "classes": 3,
        "image": (64, 96),
        "depths": [1, 1, 1, 1],
        "widths": [4, 4, 6, 8],
        "stem_width": 4,
        "bottleneck": False,
        "width": 8,
        "layers": 1,
    }
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "fcos-resnet18": {"depths": (2, 2, 2, 2), "bottleneck": False, "width": 128},
        "fcos-resnet50": {"depths": (3, 4, 6, 3), "bottleneck": True, "width": 256},
    }
    classes: PositiveInt
    image: tuple[PositiveInt, PositiveInt] = (512, 512)
    channels: PositiveInt = 3
    depths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (2, 2, 2, 2)
    widths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (64, 128, 256, 512)
    stem_width: PositiveInt = 64
    bottleneck: bool = False
    norm: Norm = "group"  # batches of large pictures are small
    width: PositiveInt = 128
    layers: PositiveInt = 4

    def __post_init__(self) -> None:
        for name in ("image", "depths", "widths"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_image(self.image, 32)

    @property
    def trunk(self) -> resnet.Config:
        """The shape of the trunk."""
        return resnet.Config(
            classes=self.classes,
            image=self.image,
            channels=self.channels,
            depths=self.depths,
            widths=self.widths,
            stem_width=self.stem_width,
            bottleneck=self.bottleneck,
            stem="large",
            norm=self.norm,
        )

    def build(self) -> Detector:
        """The module with fresh parameters."""
        return Detector(self)

    @classmethod
    def data_fields(cls, codec: Any) -> dict[str, Any]:
        """The codec knows the size of the images, their channels and the label set."""
        return image_fields(codec)

    def flops_per_item(self, learned: float = 1.0, length: float | None = None) -> float:  # noqa: ARG002
        """FLOPs of forward and backward for one image."""
        return counted_flops(self, {"features": (*self.image, self.channels)})


class Found(NamedTuple):
    """The objects of one image, the surest first.

    ``boxes`` (N, 4) are left, top, right, bottom in pixels, ``scores`` (N,) probabilities and
    ``labels`` (N,) class numbers.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class Pyramid(nn.Module):
    """Planes of strides 8, 16, 32 to planes of one width at strides 8 to 128."""

    def __init__(self, read: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.across = nn.ModuleList(nn.Conv2d(n, width, 1) for n in read)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in read)
        self.coarse = nn.ModuleList(nn.Conv2d(width, width, 3, 2, 1) for _ in range(2))

    def forward(self, found: list[Tensor]) -> list[Tensor]:
        """The planes of the five levels, the finest first."""
        levels: list[Tensor] = []
        above: Tensor | None = None
        for across, x in reversed(list(zip(self.across, found, strict=True))):
            y = across(x)
            if above is not None:
                y = y + F.interpolate(above, size=y.shape[2:], mode="nearest")
            levels.insert(0, y)
            above = y
        made = [smooth(y) for smooth, y in zip(self.smooth, levels, strict=True)]
        for i, coarse in enumerate(self.coarse):
            made.append(coarse(F.relu(made[-1]) if i else made[-1]))
        return made


class Head(nn.Module):
    """Convolutions that all levels share, and what is said at each position."""

    def __init__(self, width: int, layers: int, made: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(layers)
        )
        self.norms = nn.ModuleList(norm_layer("group", width) for _ in range(layers))
        self.out = nn.Conv2d(width, made, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map planes (B, width, H, W) to (B, made, H, W)."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)))
        y: Tensor = self.out(x)
        return y


class Detector(nn.Module):
    """Images (B, height, width[, channels]) to what is said at every position of every level."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.trunk = resnet.Trunk(config.trunk)
        self.pyramid = Pyramid(config.trunk.made[1:], config.width)
        self.class_head = Head(config.width, config.layers, config.classes)
        self.box_head = Head(config.width, config.layers, 5)  # four sides, and the centre
        self.side_scale = nn.Parameter(torch.ones(len(STRIDES)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Heads normal of deviation 0.01; an object is rare at the start."""
        self.trunk.reset_parameters()
        for head in (self.class_head, self.box_head):
            for module in head.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.normal_(module.weight, std=0.01)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
        bias = self.class_head.out.bias
        if bias is not None:
            nn.init.constant_(bias, -math.log((1 - RARE) / RARE))

    def regions(self) -> list[nn.Module]:
        """The modules to compile, each by itself."""
        return [b for stage in self.trunk.stages for b in stage]  # type: ignore[attr-defined]

    def forward(self, features: Tensor) -> Tensor:
        """What is said at N positions, (B, N, classes + 5), level by level and row by row.

        The last dimension has the logits of the classes; the distances from the position to the
        left, top, right and bottom side, in pixels, above 0; the logit of the centre.
        """
        _, *found = self.trunk(planes(features, self.config.channels))
        said = []
        for level, x in enumerate(self.pyramid(found)):
            classes, box = self.class_head(x), self.box_head(x)
            sides = F.softplus(box[:, :4].float() * self.side_scale[level]) * STRIDES[level]
            joined = torch.cat((classes.float(), sides, box[:, 4:].float()), dim=1)
            said.append(joined.flatten(2).transpose(1, 2))
        return torch.cat(said, dim=1)

    def positions(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Where the N positions of an image lie: (x, y) in pixels (N, 2), and strides (N,)."""
        device = self.side_scale.device
        points, strides = [], []
        rows, columns = height, width
        for stride in (2, 4, *STRIDES):
            rows, columns = (rows + 1) // 2, (columns + 1) // 2
            if stride not in STRIDES:
                continue
            y = (torch.arange(rows, device=device) + 0.5) * stride
            x = (torch.arange(columns, device=device) + 0.5) * stride
            grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).flatten(0, 1)
            points.append(grid)
            strides.append(torch.full((len(grid),), stride, device=device))
        return torch.cat(points), torch.cat(strides)

    def candidates(self, said: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """The boxes (B, N, 4), cut at the edges of the image, and scores (B, N, classes).

        A score is the root of class probability times centre probability.
        """
        points, _ = self.positions(height, width)
        classes = self.config.classes
        chance = said[..., :classes].sigmoid() * said[..., classes + 4 :].sigmoid()
        sides = said[..., classes : classes + 4]
        boxes = torch.cat((points - sides[..., :2], points + sides[..., 2:]), dim=-1)
        limits = torch.tensor([width, height, width, height], device=said.device)
        return torch.minimum(boxes.clamp(min=0), limits), chance.sqrt()

    @torch.no_grad()
    def decode(
        self,
        said: Tensor,
        height: int,
        width: int,
        *,
        least: float = 0.05,
        overlap: float = 0.6,
        most: int = 100,
    ) -> list[Found]:
        """The objects of each image of what ``forward`` said of images of this size.

        Args:
            said: (B, N, classes + 5).
            height: of the images, in pixels.
            width: of the images, in pixels.
            least: lowest score.
            overlap: of two boxes of one class that overlap more (intersection over union), the
                less sure one is dropped.
            most: objects of an image.
        """
        found = []
        for boxes, scores in zip(*self.candidates(said, height, width), strict=True):
            where, label = (scores >= least).nonzero(as_tuple=True)
            some, score = boxes[where], scores[where, label]
            kept = suppressed(some, score, label, overlap=overlap, most=most)
            found.append(Found(some[kept], score[kept], label[kept]))
        return found


def overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of boxes (N, 4) and others (M, 4): (N, M), 0 for empty boxes."""
    start = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    end = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = (end - start).clamp(min=0).prod(-1)
    sizes = [(b[:, 2:] - b[:, :2]).clamp(min=0).prod(-1) for b in (boxes, others)]
    union = sizes[0][:, None] + sizes[1][None] - shared
    return torch.where(union > 0, shared / union.clamp(min=1e-12), 0.0)


def suppressed(
    boxes: Tensor, scores: Tensor, labels: Tensor, *, overlap: float, most: int
) -> Tensor:
    """Numbers of the boxes that remain, the surest first: non-maximum suppression by class.

    A box is dropped when a surer one of its class, which itself remains, overlaps it by more than
    ``overlap``. Equal scores are taken in their order.

    Args:
        boxes: (N, 4), left, top, right, bottom.
        scores: (N,).
        labels: (N,), class numbers.
        overlap: intersection over union, 0 to 1.
        most: boxes that may remain.
    """
    order = torch.sort(scores, descending=True, stable=True).indices
    kept: list[Tensor] = []
    while len(order) and len(kept) < most:
        first, order = order[0], order[1:]
        kept.append(first)
        shared = overlaps(boxes[first][None], boxes[order])[0]
        order = order[(shared <= overlap) | (labels[order] != labels[first])]
    return torch.stack(kept) if kept else order
