"""Progressive resolution: small pictures first, larger ones as a training goes on.

Steps on small pictures cost their area, and what is learned on them serves the larger ones
(arXiv:1707.02921, arXiv:2104.00298). What a step sees is a function of its number alone, so a
training that is resumed sees what it would have seen; validation is never made smaller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from modelwright.errors import ModelwrightError
from modelwright.types import Array, Columns


class Sizes:
    """Pictures of a step made smaller.

    ``sides`` are the longer sides in pixels by the step from which on they are seen; before the
    first of them pictures are as they are stored, and never larger than that.
    """

    def __init__(self, sides: Mapping[int, int]) -> None:
        self.sides = dict(sorted(sides.items()))

    def __call__(self, columns: Columns, step: int) -> Columns:
        """The columns with ``features`` (B, h, w[, C]), the shape in proportion.

        Raises:
            ModelwrightError: the rows are no pictures, or pictures with boxes.
        """
        values = columns.get("features")
        if not isinstance(values, np.ndarray) or values.ndim not in (3, 4) or "boxes" in columns:
            raise ModelwrightError(
                "sizes: for pictures without boxes, which these rows are not; leave it out"
            )
        side = next((n for first, n in reversed(self.sides.items()) if first <= step), None)
        height, width = values.shape[1:3]
        if side is None or side >= max(height, width):
            return columns
        share = side / max(height, width)
        small = (max(1, round(height * share)), max(1, round(width * share)))
        return {**columns, "features": averaged(values, small)}


def averaged(values: Array, size: Sequence[int]) -> Array:
    """Pictures (N, H, W, ...) with each pixel the mean of those that it stands for.

    Args:
        values: bytes, which stay such, or floating-point numbers.
        size: height and width to reach, at most H and W.
    """
    kind, found = values.dtype, values
    for axis, side in zip((1, 2), size, strict=True):
        edges = np.arange(side + 1) * values.shape[axis] // side
        total = np.add.reduceat(found, edges[:-1], axis=axis, dtype=np.float32)
        shape = [1] * values.ndim
        shape[axis] = side
        found = total / np.diff(edges).astype(np.float32).reshape(shape)
    return np.rint(found).astype(kind) if kind == np.uint8 else found.astype(kind)
