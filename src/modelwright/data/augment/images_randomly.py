"""The operations of RandAugment and what they are made of.

All work on batches (B, height, width, channels) of bytes.

Each takes a strength for every image between -1 and 1; where no direction is meant its size
counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from modelwright.errors import ModelwrightError

if TYPE_CHECKING:
    from modelwright.types import Array

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
# RGB to YIQ: brightness, and two axes of colour in whose plane a hue is an angle.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_GREY = 128  # what comes in from outside the image


def bytes_only(images: Array, name: str) -> None:
    """Refuse numbers that are no bytes."""
    if images.dtype != np.uint8:
        raise ModelwrightError(
            f"augment: {name} needs pixels as bytes 0..255, these are {images.dtype}; use flip, "
            "crop, mixup or cutmix, or give 8-bit images"
        )


def with_channels(images: Array) -> Array:
    """The batch with an axis of channels."""
    return images if images.ndim == 4 else images[..., None]


def as_bytes(values: Array) -> Array:
    """Rounded and clipped to 0..255."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _grey(images: Array) -> Array:
    """Luma (B, height, width, 1) float32."""
    wide = images.astype(np.float32)
    return (wide @ _LUMA)[..., None] if images.shape[3] == 3 else wide.mean(axis=3, keepdims=True)


def colour(images: Array, factors: Array, turns: Array) -> Array:
    """Factors of brightness, of the distance to the mean luma, and of the distance to grey.

    ``factors`` are (3, B), 1 changing nothing; ``turns`` (B,) turn the hue, 1 being all around.
    """
    b, c, s = (f.astype(np.float32)[:, None, None, None] for f in factors)
    out = images.astype(np.float32) * b
    middle = _grey(out).mean(axis=(1, 2), keepdims=True)
    out = middle + c * (out - middle)
    if images.shape[3] != 3:
        return as_bytes(out)
    level = _grey(out)
    out = level + s * (out - level)
    if turns.any():
        cos, sin = np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)
        turn = np.zeros((len(images), 3, 3))
        turn[:, 0, 0], turn[:, 1, 1], turn[:, 2, 2] = 1, cos, cos
        turn[:, 1, 2], turn[:, 2, 1] = -sin, sin
        matrix = (np.linalg.inv(_YIQ) @ turn @ _YIQ).astype(np.float32)
        out = np.einsum("bij,bhwj->bhwi", matrix, out)
    return as_bytes(out)


def moved(images: Array, matrix: Array) -> Array:
    """Each image seen through an affine map of its pixels, bilinear, grey from outside.

    Args:
        images: (B, height, width, C), bytes.
        matrix: (B, 2, 3): row and column, counted from the middle, of where a pixel comes from.
    """
    count, height, width = images.shape[:3]
    y = np.arange(height, dtype=np.float32) - (height - 1) / 2
    x = np.arange(width, dtype=np.float32) - (width - 1) / 2
    grid = np.stack([*np.meshgrid(y, x, indexing="ij"), np.ones((height, width))]).reshape(3, -1)
    at = matrix.astype(np.float32) @ grid.astype(np.float32)
    row = np.clip(at[:, 0] + (height - 1) / 2, -1, height) + 1
    column = np.clip(at[:, 1] + (width - 1) / 2, -1, width) + 1
    around = ((0, 0), (1, 2), (1, 2), (0, 0))
    padded = np.pad(images, around, constant_values=_GREY).astype(np.float32)
    top, left = row.astype(np.int64), column.astype(np.int64)
    down, right = (row - top)[..., None], (column - left)[..., None]
    number = np.arange(count)[:, None]
    upper = padded[number, top, left] * (1 - right) + padded[number, top, left + 1] * right
    lower = padded[number, top + 1, left] * (1 - right) + padded[number, top + 1, left + 1] * right
    return as_bytes(upper * (1 - down) + lower * down).reshape(images.shape)


def _matrix(count: int) -> Array:
    matrix = np.zeros((count, 2, 3))
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1
    return matrix


def _rotate(images: Array, strength: Array) -> Array:
    angle = np.deg2rad(30 * strength)
    matrix = _matrix(len(images))
    matrix[:, 0, 0] = matrix[:, 1, 1] = np.cos(angle)
    matrix[:, 0, 1], matrix[:, 1, 0] = -np.sin(angle), np.sin(angle)
    return moved(images, matrix)


def _with(images: Array, place: tuple[int, int], values: Array) -> Array:
    matrix = _matrix(len(images))
    matrix[:, place[0], place[1]] = values
    return moved(images, matrix)


def _factor(images: Array, strength: Array, which: int) -> Array:
    factors = np.ones((3, len(images)))
    factors[which] = 1 + 0.9 * strength
    return colour(images, factors, np.zeros(len(images)))


def _sharpness(images: Array, strength: Array) -> Array:
    """Away from, or towards, a mean of 3 x 3 pixels whose middle counts five times."""
    wide = images.astype(np.float32)
    height, width = images.shape[1:3]
    padded = np.pad(wide, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    around = sum(padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3))
    soft = (around + 4 * wide) / 13
    factor = (1 + 0.9 * strength).astype(np.float32)[:, None, None, None]
    return as_bytes(soft + factor * (wide - soft))


def _posterize(images: Array, strength: Array) -> Array:
    dropped = np.rint(4 * np.abs(strength)).astype(np.uint8)[:, None, None, None]
    return np.asarray(images >> dropped << dropped)


def _solarize(images: Array, strength: Array) -> Array:
    threshold = (256 * (1 - np.abs(strength)))[:, None, None, None]
    return np.where(images >= threshold, 255 - images, images)


def _autocontrast(images: Array, strength: Array) -> Array:  # noqa: ARG001 - as all
    low = images.min(axis=(1, 2), keepdims=True).astype(np.float32)
    span = images.max(axis=(1, 2), keepdims=True) - low
    return np.where(span > 0, as_bytes((images - low) * (255 / np.maximum(span, 1))), images)


def _equalize(images: Array, strength: Array) -> Array:  # noqa: ARG001 - as all
    """Each channel's levels by their ranks, so that all are equally frequent."""
    out = images.copy()
    pixels = images.shape[1] * images.shape[2]
    for image in out:
        for channel in range(image.shape[2]):
            counts = np.bincount(image[..., channel].ravel(), minlength=256)
            below = np.cumsum(counts)
            first = int(counts[np.flatnonzero(counts)[0]])
            if first < pixels:
                table = as_bytes(255 * (below - first) / (pixels - first))
                image[..., channel] = table[image[..., channel]]
    return out


OPERATIONS: dict[str, Callable[[Array, Array], Array]] = {
    "autocontrast": _autocontrast,
    "brightness": lambda x, s: _factor(x, s, 0),
    "colour": lambda x, s: _factor(x, s, 2),
    "contrast": lambda x, s: _factor(x, s, 1),
    "equalize": _equalize,
    "identity": lambda x, s: x,  # noqa: ARG005
    "posterize": _posterize,
    "rotate": _rotate,
    "sharpness": _sharpness,
    "shear_x": lambda x, s: _with(x, (1, 0), 0.3 * s),
    "shear_y": lambda x, s: _with(x, (0, 1), 0.3 * s),
    "solarize": _solarize,
    "translate_x": lambda x, s: _with(x, (1, 2), x.shape[2] / 3 * s),
    "translate_y": lambda x, s: _with(x, (0, 2), x.shape[1] / 3 * s),
}
