"""Several different examples of a task, made from its one specimen row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from modelwright.tasks.task import Task, make_task
from modelwright.types import Box, Example, Frames, Image, ImageFile, Label, Number, Part, Text


def examples_of(name: str, count: int = 6) -> tuple[Task, list[Example]]:
    """The task ``name`` and ``count`` examples of different lengths, values and labels."""
    task = make_task(name, {})
    found = task.examples(task.specimen)
    assert not isinstance(found, str), f"{name}: the specimen is dropped: {found}"
    (first,) = list(found)[:1]
    return task, [varied(first, i) for i in range(count)]


def varied(example: Example, number: int) -> Example:
    """The example changed as ``number`` says; 0 leaves it as it is."""
    turns = tuple(
        replace(turn, parts=tuple(_varied(part, number) for part in turn.parts))
        for turn in example.turns
    )
    return replace(example, turns=turns)


def _varied(part: Part, number: int) -> Part:
    rng = np.random.default_rng(number)
    match part:
        case Text(text):
            return Text(text * (number + 1))
        case Label(name):
            return Label(name if number % 2 == 0 else f"not {name}")
        case Number(value):
            return Number(value + number)
        case Box(name):
            return replace(part, label=name if number % 2 == 0 else f"not {name}")
        case ImageFile():
            return part
        case Image(pixels):
            return Image(
                rng.permutation(pixels.ravel()).reshape(pixels.shape) if number else pixels
            )
        case Frames(frames):
            times = rng.integers(len(frames), size=len(frames) + 2 * number)
            return Frames(frames[times] if number else frames)
