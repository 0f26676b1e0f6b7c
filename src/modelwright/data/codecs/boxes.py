"""Pictures with boxes: what is seen as in ``images``, boxes in pixels of what the model sees.

Pictures are turned upright and stretched to one size when they are stored, and their boxes with
them; with the size that a picture had, a box is brought back to the pixels of the original.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from modelwright.data.codecs import images
from modelwright.data.picture_settings import ImageSettings, prepared
from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.types import (
    Array,
    Box,
    Columns,
    Encoded,
    Example,
    Image,
    ImageFile,
    Text,
    Turn,
    ragged_column,
)

_SHOWN = 20


class Codec:
    """The classes of things, and how pictures and boxes are brought to what the model sees.

    ``shape`` is (height, width) of grey pictures, (height, width, 3) of coloured ones; ``scale``
    is mean and deviation of every channel in units of bytes.
    """

    ragged: tuple[str, ...] = ("boxes", "classes")
    views: ClassVar[tuple[str, tuple[str, ...]]] = ("features", ("boxes", "image"))
    targets: ClassVar[tuple[str, ...]] = ("boxes", "classes", "picture", "stretch", "known")

    def __init__(self, labels: list[str], settings: ImageSettings) -> None:
        self.labels, self.settings = labels, settings
        self.pictures = images.Codec(labels, settings)
        self.shape, self.scale = self.pictures.shape, self.pictures.scale

    @property
    def outputs(self) -> int:
        """How many classes a model tells apart; one is enough."""
        return len(self.labels)

    @classmethod
    def fit(
        cls,
        examples: Iterable[Example],
        *,
        size: int | tuple[int, int] | None = None,
        resample: images.Resample = "bilinear",
        channels: Literal[1, 3] | None = None,
        mean: tuple[float, ...] | None = None,
        deviation: tuple[float, ...] | None = None,
    ) -> Codec:
        """Learn classes, channels and scale from the ``examples`` of the train split.

        Args:
            examples: each with one picture to read and boxes to learn.
            size: side, or height and width, of what the model sees, to which pictures are
                stretched; left out: that of the pictures, which must all have the same then.
            resample: Pillow's filter.
            channels: 1 or 3; left out: 1 where all pictures are grey.
            mean: of every channel, of pixels scaled to 0..1; left out: of the train split.
            deviation: as ``mean``.

        Raises:
            ModelwrightError: no box at all, or pictures of two sizes where ``size`` is left out.
        """
        kept = list(examples)
        parts = [images.picture(example) for example in kept]
        labels = sorted({b.label for e in kept for t in e.turns if t.learn for b in t.boxes})
        if not labels:
            raise ModelwrightError(
                "codec boxes: no picture of the train split has a box, so nothing can be learned;"
                " check the annotations, and options.classes where it is given"
            )
        if size is None or channels is None:
            found, grey = images.surveyed(parts, wanted=size is None)
            size, channels = size or found, channels or (1 if grey else 3)
        height, width = (size, size) if isinstance(size, int) else size
        plain = ImageSettings(
            height, width, resample=resample, mean=(0.0,) * channels, deviation=(1.0,) * channels
        )
        fitted = images.moments(parts, plain) if mean is None or deviation is None else ((), ())
        settings = dataclasses.replace(
            plain, mean=mean or fitted[0], deviation=deviation or fitted[1]
        )
        if (given := len(settings.mean)) != channels:
            raise ModelwrightError(
                f"codec.mean: {given} numbers for pictures of {channels} channels; give one for"
                " each"
            )
        return cls(labels, settings)

    def encode(self, example: Example) -> Encoded:
        """The picture as bytes and its boxes at the codec's size.

        ``features`` of the codec's shape, uint8; ``boxes`` (N, 4) float32, left, top, right,
        bottom; ``classes`` (N,) int64; ``size`` (2,) int64, height and width of the original;
        ``known`` (), whether there were boxes to learn at all: of a question there are none.

        Raises:
            ModelwrightError: a picture that cannot be read, or an unknown class.
        """
        part = images.picture(example)
        if isinstance(part, Image) and part.prepared and part.pixels.shape == self.shape:
            pixels, size = part.pixels, part.original or self.shape[:2]
        else:
            whole = images.pixels_of(part)
            pixels, size = prepared(whole, self.settings), whole.shape[:2]
        found = [box for turn in example.turns if turn.learn for box in turn.boxes]
        sides = [[b.left, b.top, b.right, b.bottom] for b in found]
        original = np.array(sides, dtype=np.float64).reshape(-1, 4)
        return {
            "features": pixels,
            "boxes": (original / self.stretch(np.array(size))).astype(np.float32),
            "classes": np.array([self._number(box, part) for box in found], dtype=np.int64),
            "size": np.array(size, dtype=np.int64),
            "known": np.array(any(turn.learn for turn in example.turns)),
        }

    def _number(self, box: Box, part: Image | ImageFile) -> int:
        if box.label not in self.labels:
            where = f"{part.name}: " if isinstance(part, ImageFile) else ""
            raise ModelwrightError(
                f"{where}class {box.label!r} of a box is not in the train split"
                f"{did_you_mean(box.label, self.labels)}; it has:"
                f" {', '.join(self.labels[:_SHOWN])}; add training pictures of it, or remove the"
                " box"
            )
        return self.labels.index(box.label)

    def stretch(self, size: Array) -> Array:
        """Pixels of originals of ``size`` (..., 2) to one that is seen, (..., 4): x, y, x, y.

        float64, so that a box brought to the codec's size and back is the same.
        """
        seen = np.array(self.shape[:2], dtype=np.float64)
        return np.asarray(np.concatenate([(size / seen)[..., ::-1]] * 2, axis=-1))

    def example(self, encoded: Encoded) -> Example:
        """The example that ``encode`` was given, its picture at the codec's size."""
        height, width = (int(n) for n in encoded["size"])
        image = Image(np.asarray(encoded["features"]), prepared=True, original=(height, width))
        given = Turn("user", (image,))
        if not encoded["known"]:
            return Example((given,))
        original = np.asarray(encoded["boxes"], np.float64) * self.stretch(encoded["size"])
        boxes = tuple(
            Box(self.labels[int(number)], *sides)
            for sides, number in zip(original.tolist(), encoded["classes"], strict=True)
        )
        return Example((given, Turn("assistant", boxes, learn=True)))

    def tensors(self, columns: Columns) -> dict[str, Tensor]:
        """``features`` (B, *shape) float32, scaled, and the boxes of all pictures, T together.

        ``boxes`` (T, 4) float32, ``classes`` (T,) and ``picture`` (T,), the row that a box is of;
        ``stretch`` (B, 4) float32, what brings boxes to the pixels of the original; ``known`` (B,).
        """
        boxes, classes = ragged_column(columns, "boxes"), ragged_column(columns, "classes")
        stored = torch.from_numpy(np.require(columns["features"], requirements="W"))
        mean, deviation = self.scale
        return {
            "features": stored.to(torch.float32, copy=True).sub_(mean).div_(deviation),
            "boxes": torch.from_numpy(np.array(boxes.values, dtype=np.float32)),
            "classes": torch.from_numpy(np.array(classes.values, dtype=np.int64)),
            "picture": torch.from_numpy(np.repeat(np.arange(len(boxes)), boxes.lengths)),
            "stretch": torch.from_numpy(
                self.stretch(np.asarray(columns["size"])).astype(np.float32)
            ),
            "known": torch.from_numpy(np.array(columns["known"], dtype=bool)),
        }

    def front(self) -> images.Front:
        """What ``tensors`` does with pictures, for exported graphs."""
        return self.pictures.front()

    def decode(self, found: Tensor) -> list[Turn]:
        """The boxes of found (B, M, 6): left, top, right, bottom, score, class; below 0: none."""
        return [
            Turn(
                "assistant",
                tuple(
                    Box(self.labels[int(number)], left, top, right, bottom, score)
                    for left, top, right, bottom, score, number in rows
                    if number >= 0
                )
                or (Text("nothing found"),),
            )
            for rows in found.tolist()
        ]

    def save(self) -> dict[str, bytes]:
        """``boxes.json``."""
        facts = {"labels": self.labels, "settings": dataclasses.asdict(self.settings)}
        return {"boxes.json": json.dumps(facts, sort_keys=True).encode()}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Codec:
        """Read what ``save`` wrote."""
        read = images.Codec.load({"images.json": files["boxes.json"]})
        return cls(read.labels, read.settings)
