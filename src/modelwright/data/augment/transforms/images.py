"""Images: flips, crops, colours, RandAugment, erased patches, and mixtures of two.

Every transform takes a batch (B, height, width) or (B, height, width, channels) and a generator,
and gives a batch of the same shape, or of the size that ``resized_crop`` is given; each image has
draws of its own. Flips, crops and mixtures take any numbers, the others bytes 0..255.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from modelwright.data.augment.images_randomly import OPERATIONS, bytes_only, colour, with_channels
from modelwright.data.pictures import cut
from modelwright.errors import ModelwrightError

if TYPE_CHECKING:
    from modelwright.types import Array

Probability = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Ratio = Annotated[float, Field(gt=0)]
_TRIES = 10


@dataclass(frozen=True)
class Flip:
    """Mirror left and right, or up and down, each with its own probability."""

    kind: ClassVar[str] = "image"

    horizontal: Probability = 0.5
    vertical: Probability = 0.0

    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        """The images, some of them mirrored."""
        drawn = rng.random((2, len(images)))
        out = images.copy()
        for axis, chosen in ((2, drawn[0] < self.horizontal), (1, drawn[1] < self.vertical)):
            out[chosen] = np.flip(out[chosen], axis=axis)
        return out


@dataclass(frozen=True)
class Crop:
    """Pad all sides by ``padding`` pixels and cut the old size out at a random place."""

    kind: ClassVar[str] = "image"

    padding: Annotated[int, Field(ge=1)] = 4
    fill: Literal["zero", "reflect", "edge"] = "reflect"

    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        """The images, each moved by up to ``padding`` pixels."""
        height, width = images.shape[1:3]
        by = min(self.padding, height - 1, width - 1) if self.fill == "reflect" else self.padding
        around = ((0, 0), (by, by), (by, by), *((0, 0) for _ in images.shape[3:]))
        if self.fill == "zero":
            padded = np.pad(images, around)
        else:
            padded = np.pad(images, around, mode=self.fill)
        top, left = rng.integers(0, 2 * by + 1, size=(2, len(images)))
        rows = top[:, None] + np.arange(height)
        columns = left[:, None] + np.arange(width)
        number = np.arange(len(images))[:, None, None]
        return np.asarray(padded[number, rows[:, :, None], columns[:, None]])


@dataclass(frozen=True)
class ResizedCrop:
    """A part of random area and shape, brought to the size that the model sees.

    Szegedy et al., 2015, section 6 (arXiv:1409.4842): the area is drawn evenly from the shares
    ``scale`` of the picture's, the ratio of width to height from ``ratio``, evenly in its
    logarithm. A part that does not fit is drawn again, up to ten times; then it is the largest
    one in the middle whose ratio is allowed. Where the codec keeps a larger picture (``stored``),
    it is cut from that.
    """

    kind: ClassVar[str] = "image"
    first: ClassVar[bool] = True  # what stands before it would not be seen in a larger picture

    scale: tuple[Share, Share] = (0.08, 1.0)
    ratio: tuple[Ratio, Ratio] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if low > high:
                raise ModelwrightError(
                    f"augment: resized_crop.{name}: [{low}, {high}], the lesser number comes first"
                )

    def __call__(
        self, images: Array, rng: np.random.Generator, size: tuple[int, int] | None = None
    ) -> Array:
        """A part of each image; height and width ``size``, left out: those of the images."""
        bytes_only(images, "resized_crop")
        height, width = size or images.shape[1:3]
        parts = self.parts(len(images), images.shape[1:3], rng)
        out = np.empty((len(images), height, width, *images.shape[3:]), np.uint8)
        for image, part, into in zip(with_channels(images), parts, with_channels(out), strict=True):
            into[:] = cut(image, part, height, width)
        return out

    def parts(self, count: int, size: tuple[int, int], rng: np.random.Generator) -> Array:
        """Left, top, right and bottom (count, 4) of parts of pictures of a height and width."""
        height, width = size
        area = rng.uniform(*self.scale, (_TRIES, count)) * height * width
        low, high = map(math.log, self.ratio)
        ratio = np.exp(rng.uniform(low, high, (_TRIES, count)))
        wide, tall = np.sqrt(area * ratio), np.sqrt(area / ratio)
        fits = (wide <= width) & (tall <= height)
        chosen = fits.argmax(axis=0), np.arange(count)
        allowed = np.clip(width / height, *self.ratio)
        largest = min(width, height * allowed), min(height, width / allowed)
        wide, tall = (
            np.where(fits.any(axis=0), drawn[chosen], most)
            for drawn, most in zip((wide, tall), largest, strict=True)
        )
        places = np.where(fits.any(axis=0), rng.random((2, count)), 0.5)
        left, top = places[0] * (width - wide), places[1] * (height - tall)
        return np.stack([left, top, left + wide, top + tall], axis=1)


@dataclass(frozen=True)
class ColourJitter:
    """Brightness, contrast, saturation by factors from 1 - x to 1 + x; hue by up to x turns."""

    kind: ClassVar[str] = "image"
    in_place: ClassVar[bool] = True  # pixels stay where they are, and boxes with them

    brightness: Amount = 0.2
    contrast: Amount = 0.2
    saturation: Amount = 0.2
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0

    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        """The images in other colours."""
        bytes_only(images, "colour_jitter")
        amounts = np.array([self.brightness, self.contrast, self.saturation])[:, None]
        factors = 1 + amounts * rng.uniform(-1, 1, size=(3, len(images)))
        turns = self.hue * rng.uniform(-1, 1, size=len(images))
        return colour(with_channels(images), factors, turns).reshape(images.shape)


@dataclass(frozen=True)
class RandAugment:
    """``count`` operations an image, drawn evenly of 14, all of one ``magnitude`` (0 to 30).

    Cubuk et al., 2019, arXiv:1909.13719. Their ranges at 30: turns of 30 degrees, shears of 0.3,
    shifts of a third of a side, factors of colour, contrast, brightness and sharpness of 1 ± 0.9,
    8 to 4 bits a colour, and all above 0 inverted.
    """

    kind: ClassVar[str] = "image"

    count: Annotated[int, Field(ge=1, le=14)] = 2
    magnitude: Annotated[float, Field(ge=0, le=30)] = 9.0

    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        """The images after ``count`` operations each."""
        bytes_only(images, "rand_augment")
        out = with_channels(images).copy()
        level = self.magnitude / 30
        names = sorted(OPERATIONS)
        for _ in range(self.count):
            chosen = rng.integers(len(names), size=len(images))
            signs = rng.choice([-1.0, 1.0], size=len(images))
            for number, name in enumerate(names):
                group = np.flatnonzero(chosen == number)
                if len(group):
                    out[group] = OPERATIONS[name](out[group], level * signs[group])
        return out.reshape(images.shape)


@dataclass(frozen=True)
class Erase:
    """Fill a random rectangle with noise (Zhong et al., 2017, arXiv:1708.04896).

    Its area is a share of the image between ``least`` and ``most``, its ratio of sides between
    0.3 and 1 / 0.3; it is cut off where it would not fit.
    """

    kind: ClassVar[str] = "image"
    in_place: ClassVar[bool] = True  # pixels stay where they are, and boxes with them

    probability: Probability = 0.5
    least: Annotated[float, Field(gt=0, le=1)] = 0.02
    most: Annotated[float, Field(gt=0, le=1)] = 0.4
    fill: Literal["noise", "zero"] = "noise"

    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        """The images, some of them with a rectangle erased."""
        bytes_only(images, "erase")
        count, height, width = images.shape[:3]
        low, high = sorted((self.least, self.most))
        area = rng.uniform(low, high, size=count) * height * width
        ratio = np.exp(rng.uniform(np.log(0.3), -np.log(0.3), size=count))
        tall = np.clip(np.rint(np.sqrt(area * ratio)), 1, height)
        wide = np.clip(np.rint(np.sqrt(area / ratio)), 1, width)
        inside = _boxes(images, tall, wide, rng)
        inside[rng.random(count) >= self.probability] = False
        out = images.copy()
        if self.fill == "noise":
            size = (int(inside.sum()), *images.shape[3:])
            out[inside] = rng.integers(0, 256, size=size, dtype=np.uint8)
        else:
            out[inside] = 0
        return out


@dataclass(frozen=True)
class Mixup:
    """λ x_i + (1 - λ) x_j, λ drawn from Beta(α, α) (Zhang et al., 2017, arXiv:1710.09412).

    The loss is λ times that of the label of i plus 1 - λ times that of the label of j.
    """

    kind: ClassVar[str] = "mix"

    alpha: Annotated[float, Field(gt=0)] = 0.2

    def __call__(self, images: Array, rng: np.random.Generator) -> tuple[Array, Array, Array]:
        """Mixed images (float32), the number of each one's partner, and λ (B,), float32."""
        partner = rng.permutation(len(images))
        share = rng.beta(self.alpha, self.alpha, size=len(images)).astype(np.float32)
        wide = share.reshape(-1, *(1 for _ in images.shape[1:]))
        first = images.astype(np.float32)
        return wide * first + (1 - wide) * first[partner], partner, share


@dataclass(frozen=True)
class Cutmix:
    """A rectangle of x_i replaced by that of x_j (Yun et al., 2019, arXiv:1905.04899).

    Its share of the area is 1 - λ with λ from Beta(α, α); the λ of the loss is what is left of i
    after the rectangle was cut at the borders.
    """

    kind: ClassVar[str] = "mix"

    alpha: Annotated[float, Field(gt=0)] = 1.0

    def __call__(self, images: Array, rng: np.random.Generator) -> tuple[Array, Array, Array]:
        """Mixed images, the number of each one's partner, and λ (B,), float32."""
        count, height, width = images.shape[:3]
        partner = rng.permutation(count)
        side = np.sqrt(1 - rng.beta(self.alpha, self.alpha, size=count))
        inside = _boxes(images, np.rint(side * height), np.rint(side * width), rng, over=True)
        out = images.copy()
        out[inside] = images[partner][inside]
        kept = 1 - inside.mean(axis=(1, 2), dtype=np.float64)
        return out, partner, kept.astype(np.float32)


def _boxes(
    images: Array, tall: Array, wide: Array, rng: np.random.Generator, *, over: bool = False
) -> Array:
    """A rectangle an image as a mask (B, height, width), bool.

    It lies inside the image; ``over`` draws its centre anywhere instead, and cuts it off.
    """
    count, height, width = images.shape[:3]
    draws = rng.random((2, count))
    if over:
        top, left = draws[0] * height - tall / 2, draws[1] * width - wide / 2
    else:
        top, left = draws[0] * (height - tall + 1), draws[1] * (width - wide + 1)
    top, left = np.floor(top)[:, None], np.floor(left)[:, None]
    row, column = np.arange(height), np.arange(width)
    rows = (row >= top) & (row < top + tall[:, None])
    columns = (column >= left) & (column < left + wide[:, None])
    mask: Array = rows[:, :, None] & columns[:, None, :]
    return mask
