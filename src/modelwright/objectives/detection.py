"""Find things in pictures: FCOS (arXiv:1904.01355), with boxes learned by generalised overlap.

A position is positive for a box when it lies in it and within ``radius`` strides of its centre,
and its level is the one for the box's extent from there: up to 64 pixels at stride 8, twice as
much at each next one. Where boxes compete for a position, the smallest has it. With p the
probability of a class at a position, c that of its centre, P the positives of a picture, at least
1, and N its boxes, at least 1, a picture costs

    N (Σ focal(p) / P + Σ bce(c, centre) / P + Σ centre (1 - GIoU) / Σ centre)

    focal(p) = - α (1 - p)^γ log p where the class is there, - (1 - α) p^γ log(1 - p) elsewhere
    centre   = sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b))

(focal loss: arXiv:1708.02002, GIoU: arXiv:1902.09630). So the sum over pictures is one over boxes,
and how a batch is cut changes nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.types import Batch, Codec, Columns, ragged_column

name = "detection"
item = "box"
needs = "stretch"  # of the codec

ALPHA, GAMMA = 0.25, 2.0
REACH = 8  # a level of stride s is for boxes of up to 8 s pixels from a position to a side


class Objective:
    """Classes, boxes and centres at every position; pictures without known boxes cost nothing.

    Args of the recipe:
        radius: of the positive positions around a centre, in strides.
        box_weight: of the overlap in the loss.
        least: the lowest score of an answer's box.
        overlap: of two boxes of a class that overlap more, the less sure one is left out.
        most: boxes of an answer.
    """

    packs = True  # boxes of all pictures stand one after another
    draws = False

    def __init__(
        self,
        codec: Codec,
        *,
        radius: float = 1.5,
        box_weight: float = 1.0,
        least: float = 0.05,
        overlap: float = 0.6,
        most: int = 100,
    ) -> None:
        for key, value in (("radius", radius), ("box_weight", box_weight), ("most", most)):
            if value <= 0:
                raise ModelwrightError(f"objective detection: {key} {value} is not above 0")
        for key, value in (("least", least), ("overlap", overlap)):
            if not 0 <= value <= 1:
                raise ModelwrightError(f"objective detection: {key} {value} is not in 0..1")
        self.codec, self.radius, self.box_weight = codec, radius, box_weight
        self.least, self.overlap, self.most = least, overlap, most

    def collate(self, columns: Columns, generator: torch.Generator) -> Batch:  # noqa: ARG002
        """``features`` go in; boxes, classes and whose they are, are what is meant.

        Raises:
            ModelwrightError: there are boxes, and all of them are invalid.
        """
        self._check(columns)
        tensors = self.codec.tensors(columns)
        features, known = tensors.pop("features"), tensors["known"]
        boxes = torch.bincount(tensors["picture"], minlength=len(known))
        count = int(boxes.clamp(min=1)[known].sum())
        return Batch({"features": features}, tensors, count, computed=len(known))

    def _check(self, columns: Columns) -> None:
        """Refuse a batch from which nothing could be learned, instead of a silent mAP of 0."""
        boxes = np.asarray(ragged_column(columns, "boxes").values)
        height, width = np.asarray(columns["features"]).shape[1:3]
        if len(boxes) and not valid(boxes, height, width).any():
            raise ModelwrightError(
                f"objective detection: all {len(boxes)} boxes of a batch are invalid (no area,"
                f" outside the picture or not finite), such as {boxes[0].tolist()} in {width} x"
                f" {height} pixels; look at data/*/labels.png of the run and correct the boxes"
            )

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss summed over the boxes of the pictures."""
        said = model(**batch.inputs)
        height, width = batch.inputs["features"].shape[1:3]
        points, strides = model.positions(height, width)  # type: ignore[operator]
        t = batch.targets
        label, sides = [], []
        for number in range(len(said)):
            mine = t["picture"] == number
            boxes, classes = t["boxes"][mine], t["classes"][mine]
            box = assigned(points, strides, boxes, self.radius)
            if len(boxes):
                label.append(torch.where(box >= 0, classes[box.clamp(min=0)], -1))
                chosen = boxes[box.clamp(min=0)]
                sides.append(torch.cat((points - chosen[:, :2], chosen[:, 2:] - points), 1))
            else:
                label.append(box)
                sides.append(points.new_ones(len(points), 4))
        objects = torch.bincount(t["picture"], minlength=len(said)).clamp(min=1) * t["known"]
        return self._cost(said, torch.stack(label), torch.stack(sides), objects)

    def _cost(self, said: Tensor, label: Tensor, sides: Tensor, objects: Tensor) -> Tensor:
        """The loss of what is said (B, P, C + 5), for labels (B, P), -1: none, and sides (B, P, 4).

        ``objects`` (B,) are the weights of the pictures.
        """
        said = said.float()
        classes = said.shape[2] - 5
        there = F.one_hot(label.clamp(min=0), classes).bool() & (label >= 0)[..., None]
        positive = label >= 0
        positives = positive.sum(dim=1).clamp(min=1)
        weight = objects / positives  # (B,)
        total = (focal(said[..., :classes], there).sum(dim=(1, 2)) * weight).sum()
        if not positive.any():
            return total + 0.0 * said[..., classes:].sum()  # so that every head has a gradient
        meant = sides[positive]
        row = positive.nonzero()[:, 0]
        centre = centreness(meant)
        share = centre.new_zeros(len(said)).index_add(0, row, centre)
        missed = 1 - generalised_overlap(said[..., classes : classes + 4][positive], meant)
        boxed = missed * centre / share[row] * objects[row]
        central = F.binary_cross_entropy_with_logits(
            said[..., classes + 4][positive], centre, reduction="none"
        )
        return total + self.box_weight * boxed.sum() + (central * weight[row]).sum()

    def predict(self, model: Any, batch: Batch) -> Tensor:
        """What is found, (B, ``most``, 6): sides in pixels of the originals, score, class or -1."""
        height, width = batch.inputs["features"].shape[1:3]
        found = model.decode(
            model(**batch.inputs),
            height,
            width,
            least=self.least,
            overlap=self.overlap,
            most=self.most,
        )
        out = batch.targets["stretch"].new_full((len(found), self.most, 6), -1.0)
        for row, (one, stretch) in enumerate(zip(found, batch.targets["stretch"], strict=True)):
            some = len(one.scores)
            out[row, :some, :4] = one.boxes * stretch
            out[row, :some, 4], out[row, :some, 5] = one.scores, one.labels.to(out.dtype)
        return out


def valid(boxes: Any, height: int, width: int) -> Any:
    """Which boxes (N, 4) are finite, have an area, and lie in the picture with a part of it."""
    inside = np.minimum(boxes[:, 2:], [width, height]) - np.maximum(boxes[:, :2], 0)
    return np.isfinite(boxes).all(axis=1) & (inside > 0).all(axis=1)


def assigned(points: Tensor, strides: Tensor, boxes: Tensor, radius: float) -> Tensor:
    """The number of the box that each of the P positions is positive for, or -1: (P,) int64.

    Args:
        points: (P, 2), x and y.
        strides: (P,).
        boxes: (N, 4), left, top, right, bottom.
        radius: in strides.
    """
    if not len(boxes):
        return torch.full((len(points),), -1, device=points.device)
    sides = torch.cat((points[:, None] - boxes[:, :2], boxes[:, 2:] - points[:, None]), dim=2)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    near = ((points[:, None] - centres).abs() < radius * strides[:, None, None]).all(dim=2)
    extent = sides.amax(dim=2)
    first, last = strides.min(), strides.max()
    low = torch.where(strides == first, 0, REACH * strides / 2)[:, None]
    high = torch.where(strides == last, torch.inf, REACH * strides)[:, None]
    able = (sides.amin(dim=2) > 0) & near & (extent > low) & (extent <= high)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).expand(len(points), -1)
    least, box = area.where(able, torch.inf).min(dim=1)
    return torch.where(least.isfinite(), box, -1)


def focal(logits: Tensor, there: Tensor) -> Tensor:
    """The focal loss of every logit, in nats; ``there`` says which classes are there."""
    target = there.to(logits.dtype)
    cost = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    chance = logits.sigmoid()
    missed = torch.where(there, 1 - chance, chance)
    return torch.where(there, ALPHA, 1 - ALPHA) * missed**GAMMA * cost


def centreness(sides: Tensor) -> Tensor:
    """How central positions lie, 0 to 1, of their distances to the four sides (N, 4)."""
    across, along = sides[:, 0::2], sides[:, 1::2]
    ratio = across.amin(1) / across.amax(1) * along.amin(1) / along.amax(1)
    return ratio.clamp(min=0).sqrt()


def generalised_overlap(sides: Tensor, others: Tensor) -> Tensor:
    """GIoU, -1 to 1, of boxes around one position, by their distances to the sides (N, 4)."""
    shared = torch.minimum(sides, others)
    around = torch.maximum(sides, others)

    def area(of: Tensor) -> Tensor:
        return (of[:, 0] + of[:, 2]) * (of[:, 1] + of[:, 3])

    both = area(shared)
    union = area(sides) + area(others) - both
    hull = area(around)
    return both / union.clamp(min=1e-9) - (hull - union) / hull.clamp(min=1e-9)
