"""The graphs of models whose answers are boxes, or pictures that are made in steps.

What follows a graph is arithmetic that its user chooses: which boxes are shown, and how many steps
are taken. ``preprocessing.json`` says what is done here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from modelwright.exporting.subject import Subject
from modelwright.types import Array, Example, Front, RawInput, stack

BOXES_SHOWN = "print(boxes[0][scores[0].max(1) > 0.5])  # before overlapping ones are left out"
VELOCITY_SHOWN = "print(velocity.shape)  # x + velocity / steps is the next x of Euler's steps"


class Boxes(nn.Module):
    """Raw pictures to the boxes and scores of every position."""

    def __init__(self, front: Front, model: nn.Module) -> None:
        super().__init__()
        self.front, self.model = cast(nn.Module, front), model

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (B, N, 4) in pixels of what the model sees, and scores (B, N, classes)."""
        return candidates(self.model, self.front(features))


def candidates(model: Any, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """The boxes and scores that a detector says of its own inputs."""
    height, width = inputs["features"].shape[1:3]
    boxes, scores = model.candidates(model(**inputs), int(height), int(width))
    return boxes, scores


def of_boxes(subject: Subject) -> tuple[dict[str, tuple[int | str, ...]], dict[str, Any]]:
    """The outputs, and what is done with them here."""
    objective, labels = cast(Any, subject.objective), cast(Any, subject.codec).labels
    places = subject.model.positions(*cast(Any, subject.codec).shape[:2])[0]  # type: ignore[operator]
    outputs: dict[str, tuple[int | str, ...]] = {
        "boxes": ("batch", len(places), 4),
        "scores": ("batch", len(places), len(labels)),
    }
    rule = {
        "least": objective.least,
        "overlap": objective.overlap,
        "most": objective.most,
        "about": "left, top, right, bottom in pixels of what the model sees; a box of a class with"
        " a score of at least `least` is shown, the surest first, unless a surer one of its class"
        " overlaps it by more than `overlap` (intersection over union), at most `most` of them",
    }
    return outputs, {"boxes": rule}


class Flow(nn.Module):
    """Pictures on their way from noise to the velocity there."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, noisy: Tensor, times: Tensor, labels: Tensor | None = None) -> tuple[Tensor]:
        """Velocities (B, *shape)."""
        known = {} if labels is None else {"labels": labels}
        return (self.model(noisy=noisy, times=times, **known).float(),)


class Noised(nn.Module):
    """What a graph of a flow is replayed on: a stored picture, with noise, as in training."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.subject = subject
        codec = cast(Any, subject.codec)
        about = "pixels / 127.5 - 1 of a picture, or noise of deviation 1, or between both"
        reads = [
            RawInput("noisy", torch.float32, ("batch", *codec.shape), about),
            RawInput("times", torch.float32, ("batch",), "1000 for noise, falling to 0"),
        ]
        if codec.labels:
            reads.append(RawInput("labels", torch.int64, ("batch",), "of `labels`, -1 for any"))
        self.reads = tuple(reads)
        way = (
            "x(0) is noise; x <- x + velocity(x, 1000 (1 - t), label) / steps for t = 0, 1 / steps"
            " and so on; with guidance w the velocity is v(-1) + w (v(label) - v(-1))"
        )
        self.facts: dict[str, Any] = {"flow": {"about": way}}

    def raw(self, example: Example) -> dict[str, Array]:
        """The inputs of a batch of one, drawn as ``exporting.samples`` draws them."""
        codec = self.subject.codec
        columns = stack([codec.encode(example)], codec.ragged)
        batch = self.subject.objective.collate(columns, torch.Generator().manual_seed(0))
        return {i.name: batch.inputs[i.name].numpy() for i in self.reads}
