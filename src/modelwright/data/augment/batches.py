"""Other views of the batches of a training, as a pure function of (seed, step).

The rows of a whole step are changed together, before they are divided among micro-batches and
processes, so neither changes what is drawn; and nothing is kept from step to step, so a training
that is resumed sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from modelwright.data.augment import Line, chain, generator
from modelwright.data.augment.transforms.boxes import boxed
from modelwright.data.codecs import codec_class
from modelwright.data.sound_settings import SCALED
from modelwright.errors import ModelwrightError
from modelwright.extensions import short
from modelwright.types import Array, Columns, Ragged, ragged_column


def views(codec: str) -> tuple[str, tuple[str, ...]]:
    """The column of a codec that can be changed, and the kinds of transforms that can change it.

    As the attribute ``views`` of its class says; without one there are none.
    """
    found: tuple[str, tuple[str, ...]] = getattr(codec_class(codec), "views", ("", ()))
    return found


def check(lines: Sequence[Line], codec: str) -> tuple[Any, ...]:
    """The transforms of a recipe's lines, if they can change what the codec makes.

    Raises:
        ModelwrightError: a line is wrong, or is for another kind of data.
    """
    transforms = chain(lines)
    able = views(codec)[1]
    for transform in transforms:
        if transform.kind not in able:
            raise ModelwrightError(
                f"augment: {type(transform).__name__} is for {transform.kind}, and the codec "
                f"{short(codec)!r} of this task has none in training; use it under `augment` of a"
                " corpus"
                if transform.kind in ("text", "sound", "game")
                else f"augment: {type(transform).__name__} is for {transform.kind}, which the "
                f"codec {short(codec)!r} of this task does not make; leave it out"
            )
        moves = transform.kind == "image" and not hasattr(transform, "in_place")
        if "boxes" in able and moves:
            raise ModelwrightError(
                f"augment: {type(transform).__name__} moves pixels and not their boxes; take"
                " box_flip, box_scale or mosaic"
            )
    if any(hasattr(transform, "first") for transform in transforms[1:]):
        raise ModelwrightError(
            "augment: resized_crop cuts from the stored picture, so it stands in the first line,"
            " once"
        )
    kinds = [t.kind for t in transforms]
    if "sound" in able and kinds != sorted(kinds, key=("sound", "frames").index):
        raise ModelwrightError(
            "augment: frames are made of a recording that is changed already; name what changes"
            " recordings (speed, noise, gain, shift) before spec_augment"
        )
    mixes = [i for i, t in enumerate(transforms) if t.kind == "mix"]
    if mixes and mixes != [len(transforms) - 1]:
        raise ModelwrightError(
            "augment: one of mixup and cutmix may stand, in the last line: a row has two labels "
            "after it"
        )
    return transforms


class Augment:
    """The transforms of a recipe as a function from the columns of a step to other columns.

    ``fitted`` is the codec of the run, of which recordings are asked: ``rate``, and ``viewed``,
    which makes frames of them.
    """

    def __init__(self, lines: Sequence[Line], codec: str, seed: int, fitted: Any = None) -> None:
        self.transforms, self.fitted = check(lines, codec), fitted
        self.column, self.able = views(codec)
        self.seed = seed

    def __call__(self, columns: Columns, step: int) -> Columns:
        """The columns of all rows of a step, changed.

        A mixture adds ``other`` (B,), the second label, and ``weight`` (B,) float32, the share
        of the first. A part of a picture is cut from ``larger`` where the codec keeps that.

        Raises:
            ModelwrightError: the rows are vectors, not images.
        """
        rng = generator(self.seed, "augment", step)
        whole = [t for t in self.transforms if t.kind == "board"]
        if whole:  # positions of games: their moves follow
            for transform in whole:
                columns = transform.columns(columns, rng)
            return columns
        values = columns[self.column]
        if isinstance(values, Ragged) and "sound" in self.able:
            return {**columns, **self._sounds(values, rng)}
        if isinstance(values, Ragged):
            return {**columns, self.column: self._frames(values, rng)}
        if values.ndim not in (3, 4):
            raise ModelwrightError(
                f"augment: rows of shape {values.shape[1:]} are no images (height, width) or "
                "(height, width, channels); leave the transforms out"
            )
        if "boxes" in columns:
            return self._boxed(columns, values, rng)
        size, larger = values.shape[1:3], columns.get("larger")
        columns = {name: column for name, column in columns.items() if name != "larger"}
        added = {}
        for transform in self.transforms:
            if hasattr(transform, "first"):
                values = transform(values if larger is None else larger, rng, size)
                continue
            if transform.kind != "mix":
                values = transform(values, rng)
                continue
            before, labels = values, np.asarray(columns["label"])
            values, partner, weight = transform(before, rng)
            alone = (labels < 0) | (labels[partner] < 0)  # a question has no label to mix
            values[alone], weight[alone] = before[alone], 1.0
            added = {"other": np.where(alone, labels, labels[partner]), "weight": weight}
        return {**columns, self.column: values, **added}

    def _boxed(self, columns: Columns, values: Array, rng: np.random.Generator) -> Columns:
        """The columns of pictures with boxes; each box keeps its class."""
        boxes, classes = ragged_column(columns, "boxes"), ragged_column(columns, "classes")
        found = boxed(values, boxes.values, boxes.lengths)
        for transform in self.transforms:
            if transform.kind == "boxes":
                found = transform(found, rng)
            else:
                found = replace(found, pixels=transform(found.pixels, rng))
        ends = np.bincount(found.picture, minlength=len(values)).cumsum()
        offsets = np.concatenate([np.zeros(1, np.int64), ends])
        changed = {
            "boxes": Ragged(found.boxes, offsets),
            "classes": Ragged(np.asarray(classes.values)[found.rows], offsets),
        }
        return {**columns, self.column: found.pixels, **changed}

    def _sounds(self, column: Ragged, rng: np.random.Generator) -> Columns:
        """Recordings of 16 bits, changed; and their frames, where transforms change those."""
        rows = [np.asarray(column[i]) for i in range(len(column))]
        for transform in self.transforms:
            if transform.kind == "sound":
                rows = [_changed(row, transform, self.fitted.rate, rng) for row in rows]
        recordings = Ragged.of(rows)
        if all(transform.kind == "sound" for transform in self.transforms):
            return {self.column: recordings}
        frames = self._frames(self.fitted.viewed(recordings), rng)
        return {self.column: recordings, "frames": frames}

    def _frames(self, column: Ragged, rng: np.random.Generator) -> Ragged:
        values = np.array(column.values)
        for transform in self.transforms:
            if transform.kind != "frames":
                continue
            for start, end in zip(column.offsets, column.offsets[1:], strict=False):
                values[start:end] = transform(values[start:end], rng)
        return Ragged(values, column.offsets)


def _changed(row: Array, transform: Any, rate: int, rng: np.random.Generator) -> Array:
    """A stored recording through a transform of samples in [-1, 1]."""
    samples = transform(row.astype(np.float32) / np.float32(SCALED), rate, rng)
    whole = np.rint(np.asarray(samples) * SCALED)
    return np.asarray(np.clip(whole, -SCALED, SCALED - 1).astype(np.int16))
