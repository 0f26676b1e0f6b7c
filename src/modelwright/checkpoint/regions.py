"""Boxes of tensors: which part of a whole a process holds, and how parts make the whole again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Region:
    """The box [offset, offset + extent) of a tensor of the given shape."""

    shape: tuple[int, ...]
    offset: tuple[int, ...]
    extent: tuple[int, ...]

    @staticmethod
    def all(shape: Sequence[int]) -> Region:
        """The whole of a tensor."""
        return Region(tuple(shape), (0,) * len(shape), tuple(shape))

    def chunk(self, dim: int, parts: int, index: int) -> Region:
        """Part ``index`` of this box cut along ``dim`` as ``torch.chunk`` and DTensor cut it.

        Every part has ceil(n / parts) rows as long as there are rows; the last ones may be
        shorter, or empty.
        """
        length = -(-self.extent[dim] // parts)
        begin = min(index * length, self.extent[dim])
        end = min(begin + length, self.extent[dim])
        offset, extent = list(self.offset), list(self.extent)
        offset[dim] += begin
        extent[dim] = end - begin
        return Region(self.shape, tuple(offset), tuple(extent))

    @property
    def numel(self) -> int:
        """Elements inside."""
        return math.prod(self.extent)

    @property
    def whole(self) -> bool:
        """Whether nothing lies outside."""
        return self.extent == self.shape

    def of(self, tensor: Tensor) -> Tensor:
        """This box of the whole tensor, sharing its memory."""
        for dim, (begin, length) in enumerate(zip(self.offset, self.extent, strict=True)):
            tensor = tensor.narrow(dim, begin, length)
        return tensor

    def common(self, other: Region) -> Region | None:
        """What lies in both boxes of the same tensor, or None."""
        begin = tuple(map(max, self.offset, other.offset))
        ends = zip(self.offset, self.extent, other.offset, other.extent, strict=True)
        extent = tuple(min(a + b, c + d) - e for (a, b, c, d), e in zip(ends, begin, strict=True))
        return Region(self.shape, begin, extent) if all(n > 0 for n in extent) else None

    def within(self, outer: Region) -> Region:
        """This box as a box of ``outer``, in which it lies."""
        moved = tuple(a - b for a, b in zip(self.offset, outer.offset, strict=True))
        return Region(outer.extent, moved, self.extent)


def problem_of(shape: Sequence[int], boxes: Sequence[Region]) -> str | None:
    """Say why the boxes do not make up a tensor of this shape, each element once; None if so.

    The boxes of a mesh are the cells of a grid: the cuts along every dimension leave no gap, there
    are as many boxes as cells, and no two begin at the same place.
    """
    if math.prod(shape) == 0:
        sole = len(boxes) == 1 and boxes[0].whole
        return None if sole else "an empty tensor is not stored once"
    if not boxes:
        return "no part of it is stored"
    cells = 1
    for dim, length in enumerate(shape):
        cuts = sorted({(b.offset[dim], b.extent[dim]) for b in boxes})
        at = 0
        for begin, extent in cuts:
            if begin != at or extent <= 0:
                return f"its parts leave a gap or overlap along dimension {dim}"
            at += extent
        if at != length:
            return f"its parts do not reach {length} along dimension {dim}"
        cells *= len(cuts)
    if len(boxes) != cells or len({b.offset for b in boxes}) != cells:
        return f"{len(boxes)} parts are not the {cells} that it is cut into"
    return None


@dataclass(frozen=True)
class Piece:
    """A tensor as one process holds it: its data, which region that is, and who writes it.

    ``mine`` is False where another process holds the same and writes it; ``same_as`` is the first
    name of a tensor that has two.
    """

    data: Tensor
    region: Region
    mine: bool = True
    same_as: str = ""
