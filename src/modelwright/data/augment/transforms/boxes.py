"""Pictures with boxes: flips, other sizes and places, and four pictures in one.

Every transform takes pictures (B, height, width[, channels]), the boxes of all of them together
(left, top, right, bottom in pixels) with whose they are, and a generator, and gives the same. A
box of which little is left inside the picture is left out; the others are cut at its edges.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from modelwright.data.augment.transforms.images import Probability
from modelwright.data.pictures import resized
from modelwright.errors import ModelwrightError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from modelwright.types import Array

KEPT = 0.3  # least share of a box's area that must lie inside for it to be kept
LEAST = 2.0  # pixels of its sides, there
GREY = 114  # of what no picture covers


@dataclass(frozen=True)
class Boxed:
    """Pictures with boxes.

    ``pixels`` (B, H, W[, C]) uint8; ``boxes`` (T, 4) float32; ``picture`` (T,), whose each box is;
    ``rows`` (T,), which of the boxes that were given each one comes from.
    """

    pixels: Array
    boxes: Array
    picture: NDArray[np.int64]
    rows: NDArray[np.int64]


def moved(given: Boxed, pixels: Array, boxes: Array) -> Boxed:
    """Pictures and boxes in their new places; boxes are cut at the edges, or left out."""
    height, width = pixels.shape[1:3]
    limits = np.array([width, height, width, height], dtype=np.float32)
    inside = np.clip(boxes, 0, limits).astype(np.float32)
    before, after = boxes[:, 2:] - boxes[:, :2], inside[:, 2:] - inside[:, :2]
    kept = (after.prod(axis=1) >= KEPT * before.prod(axis=1)) & (after >= LEAST).all(axis=1)
    return Boxed(pixels, inside[kept], given.picture[kept], given.rows[kept])


@dataclass(frozen=True)
class BoxFlip:
    """Mirror left and right, or up and down, each with its own probability, boxes with pictures."""

    kind: ClassVar[str] = "boxes"

    horizontal: Probability = 0.5
    vertical: Probability = 0.0

    def __call__(self, given: Boxed, rng: np.random.Generator) -> Boxed:
        """Some of the pictures mirrored."""
        drawn = rng.random((2, len(given.pixels)))
        pixels, boxes = given.pixels.copy(), given.boxes.copy()
        chances = (self.horizontal, self.vertical)
        for axis, chosen in ((2, drawn[0] < chances[0]), (1, drawn[1] < chances[1])):
            pixels[chosen] = np.flip(pixels[chosen], axis=axis)
            mine, first = chosen[given.picture], 0 if axis == 2 else 1
            far = pixels.shape[axis]
            boxes[np.ix_(mine, [first, first + 2])] = far - boxes[np.ix_(mine, [first + 2, first])]
        return replace(given, pixels=pixels, boxes=boxes)


@dataclass(frozen=True)
class BoxScale:
    """Other sizes, by a factor from ``least`` to ``most`` and up to ``aspect`` more one way.

    What is larger than the picture is cut, at a random place; what is smaller lies on grey.
    """

    kind: ClassVar[str] = "boxes"

    least: Annotated[float, Field(ge=0.1, le=1)] = 0.7
    most: Annotated[float, Field(ge=1, le=10)] = 1.4
    aspect: Annotated[float, Field(ge=1, le=4)] = 1.2

    def __call__(self, given: Boxed, rng: np.random.Generator) -> Boxed:
        """The pictures at other sizes."""
        height, width = given.pixels.shape[1:3]
        count = len(given.pixels)
        factor = np.exp(rng.uniform(np.log(self.least), np.log(self.most), count))
        bent = np.exp(rng.uniform(-0.5, 0.5, count) * np.log(self.aspect))
        places = rng.random((count, 2))
        pixels = np.full_like(given.pixels, GREY)
        boxes = given.boxes.astype(np.float64)
        for i in range(count):
            new = _size(height, factor[i] * bent[i]), _size(width, factor[i] / bent[i])
            top, left = (
                int(p * (was - is_))
                for p, was, is_ in zip(places[i], (height, width), new, strict=True)
            )
            _put(pixels[i], resized(given.pixels[i], new[1], new[0]), top, left)
            mine = given.picture == i
            boxes[mine] *= [new[1] / width, new[0] / height] * 2
            boxes[mine] += [left, top] * 2
        return moved(given, pixels, boxes)


@dataclass(frozen=True)
class Mosaic:
    """Four pictures of the batch in one, around a point drawn in its middle (YOLOv4).

    Bochkovskiy et al., 2020, arXiv:2004.10934. The first is the picture itself, the others are
    drawn. Each is brought to ``scale`` of its size and fills a quarter, cut at its edges.
    """

    kind: ClassVar[str] = "boxes"

    probability: Probability = 0.5
    scale: Annotated[float, Field(ge=0.5, le=1)] = 0.6

    def __call__(self, given: Boxed, rng: np.random.Generator) -> Boxed:
        """Some of the pictures replaced by four."""
        height, width = given.pixels.shape[1:3]
        count = len(given.pixels)
        chosen = rng.random(count) < self.probability
        others = rng.integers(0, count, (count, 3))
        middles = rng.uniform(1 - self.scale, self.scale, (count, 2))
        pixels = given.pixels.copy()
        kept = [
            Boxed(
                pixels,
                *(a[~chosen[given.picture]] for a in (given.boxes, given.picture, given.rows)),
            )
        ]
        for i in np.flatnonzero(chosen):
            y, x = int(middles[i, 0] * height), int(middles[i, 1] * width)
            for quarter, source in enumerate((i, *others[i])):
                below, right = divmod(quarter, 2)
                part = _Quarter(
                    (y, height)[below] - (0, y)[below],
                    (x, width)[right] - (0, x)[right],
                    (0, y)[below],
                    (0, x)[right],
                )
                kept.append(self._quarter(given, pixels, int(i), int(source), part))
        order = np.argsort(np.concatenate([k.picture for k in kept]), kind="stable")
        boxes, picture, rows = (
            np.concatenate([getattr(k, name) for k in kept])[order]
            for name in ("boxes", "picture", "rows")
        )
        return Boxed(pixels, boxes, picture, rows)

    def _quarter(
        self, given: Boxed, pixels: Array, target: int, source: int, part: _Quarter
    ) -> Boxed:
        """A quarter of picture ``target``: the upper left corner of ``source``, made smaller."""
        height, width = given.pixels.shape[1:3]
        new = max(_size(height, self.scale), part.height), max(_size(width, self.scale), part.width)
        small = resized(given.pixels[source], new[1], new[0])[: part.height, : part.width]
        rows = slice(part.top, part.top + part.height)
        pixels[target, rows, part.left : part.left + part.width] = small
        mine = given.picture == source
        boxes = given.boxes[mine].astype(np.float64) * ([new[1] / width, new[0] / height] * 2)
        alone = Boxed(small[None], boxes, np.full(mine.sum(), target), given.rows[mine])
        found = moved(alone, small[None], boxes)
        return replace(
            found, boxes=found.boxes + np.array([part.left, part.top] * 2, dtype=np.float32)
        )


@dataclass(frozen=True)
class _Quarter:
    height: int
    width: int
    top: int
    left: int


def boxed(pixels: Array, boxes: Array, lengths: Array) -> Boxed:
    """Pictures with their boxes, ``lengths`` (B,) of each.

    Raises:
        ModelwrightError: these are no pictures of bytes.
    """
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4):
        raise ModelwrightError(
            f"augment: rows of {pixels.dtype} and shape {pixels.shape[1:]} are no pictures; leave"
            " the transforms out"
        )
    picture = np.repeat(np.arange(len(pixels)), lengths)
    return Boxed(pixels, np.asarray(boxes), picture, np.arange(len(boxes)))


def _size(side: int, factor: float) -> int:
    return max(1, round(side * factor))


def _put(canvas: Array, image: Array, top: int, left: int) -> None:
    """Lay ``image`` on ``canvas`` from a corner that may lie outside of it."""
    height, width = canvas.shape[:2]
    y, x = max(0, -top), max(0, -left)
    into = canvas[max(0, top) : top + image.shape[0], max(0, left) : left + image.shape[1]]
    into[:] = image[y : y + min(height, into.shape[0]), x : x + min(width, into.shape[1])]
