"""How good found boxes are: COCO's average precision, F1, and the boxes that are common anyway."""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwright.errors import MachineError
from modelwright.types import SAID_SCORE, Box, Example, Image, ImageFile, Turn

HALF = 0.5  # overlap from which a box is right
CELLS = 8  # along a side, of the places by which common boxes are counted
MOST = 100  # boxes of an answer, as COCO counts them


@dataclass(frozen=True)
class Precision:
    """Average precision, 0 to 1, the mean over the classes that occur.

    ``half`` is at an overlap of 0.5, ``mean`` over overlaps 0.5, 0.55, ..., 0.95; ``by_class`` is
    that of every class at 0.5.
    """

    half: float
    mean: float
    by_class: dict[str, float]


def average_precision(meant: Sequence[Sequence[Box]], said: Sequence[Sequence[Box]]) -> Precision:
    """COCO's measure by pycocotools (arXiv:1405.0312), all sizes, 100 boxes a picture at most.

    Args:
        meant: the boxes of every picture.
        said: those that were found, with their scores.

    Raises:
        MachineError: pycocotools is not installed.
    """
    try:
        from pycocotools.coco import COCO  # noqa: PLC0415 - of an extra
        from pycocotools.cocoeval import COCOeval  # noqa: PLC0415
    except ImportError as error:
        raise MachineError(
            "mAP needs pycocotools, which is not installed: pip install 'modelwright[vision]'"
        ) from error
    names = sorted({box.label for boxes in meant for box in boxes})
    numbers = {name: number for number, name in enumerate(names, start=1)}
    truth, found = _records(meant, numbers), _records(said, numbers)
    if not found or not truth:
        return Precision(0.0, 0.0, dict.fromkeys(names, 0.0))
    with contextlib.redirect_stdout(io.StringIO()):  # it talks
        known = COCO()
        known.dataset = {
            "images": [{"id": i} for i in range(len(meant))],
            "categories": [{"id": number, "name": name} for name, number in numbers.items()],
            "annotations": truth,
        }
        known.createIndex()
        guessed = COCO()
        guessed.dataset = {**known.dataset, "annotations": found}
        guessed.createIndex()
        judged = COCOeval(known, guessed, "bbox")
        judged.params.areaRng, judged.params.areaRngLbl = [[0, 1e10]], ["all"]
        judged.params.maxDets = [MOST]
        judged.evaluate()
        judged.accumulate()
    table = judged.eval["precision"][:, :, :, 0, 0]  # overlaps, recalls, classes
    by_class = table.mean(axis=1)
    return Precision(
        float(by_class[0].mean()),
        float(by_class.mean()),
        {name: float(by_class[0, number - 1]) for name, number in numbers.items()},
    )


def _records(boxes: Sequence[Sequence[Box]], numbers: dict[str, int]) -> list[dict[str, Any]]:
    """COCO's records; those of classes that never occur are left out, for nothing counts them."""
    found: list[dict[str, Any]] = []
    for picture, some in enumerate(boxes):
        for box in some:
            if box.label not in numbers:
                continue
            width, height = box.right - box.left, box.bottom - box.top
            found.append(
                {
                    "id": len(found) + 1,
                    "image_id": picture,
                    "category_id": numbers[box.label],
                    "bbox": [box.left, box.top, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "score": box.score,
                }
            )
    return found


def f1(meant: Sequence[Box], said: Sequence[Box]) -> float:
    """F1 of the boxes of at least ``SAID_SCORE``; 1 where there are none and none are said.

    The surest box takes the box of its class that it overlaps most, if by ``HALF``; and so on.
    """
    shown = sorted((b for b in said if b.score >= SAID_SCORE), key=lambda b: -b.score)
    if not shown and not meant:
        return 1.0
    left, right = list(meant), 0
    for box in shown:
        same = [other for other in left if other.label == box.label]
        best = max(same, key=lambda other: overlap(box, other), default=None)
        if best is not None and overlap(box, best) >= HALF:
            left.remove(best)
            right += 1
    return 2 * right / (len(shown) + len(meant))


def overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    across = min(one.right, other.right) - max(one.left, other.left)
    along = min(one.bottom, other.bottom) - max(one.top, other.top)
    shared = max(across, 0.0) * max(along, 0.0)
    areas = ((b.right - b.left) * (b.bottom - b.top) for b in (one, other))
    union = sum(areas) - shared
    return shared / union if union > 0 else 0.0


class Usual:
    """A policy that says the same of every picture: the boxes that were commonest in train.

    The places of a class are counted in ``CELLS`` x ``CELLS`` cells of the picture; what is said
    of a cell is the mean of its boxes, its score the share of pictures that have one there.
    """

    def __init__(self, train: Sequence[Example]) -> None:
        cells: dict[tuple[str, int, int], list[NDArray[np.float64]]] = defaultdict(list)
        for example in train:
            height, width = _size(example.given)
            for box in example.answer.boxes:
                sides = np.array([box.left, box.top, box.right, box.bottom], np.float64)
                sides /= [width, height, width, height]
                x, y = (sides[:2] + sides[2:]) / 2 * CELLS
                cells[box.label, int(x), int(y)].append(sides)
        common = sorted(cells.items(), key=lambda cell: -len(cell[1]))[:MOST]
        self.common = [
            (label, np.mean(boxes, axis=0), min(1.0, len(boxes) / len(train)))
            for (label, _, _), boxes in common
        ]

    def answer(self, given: Sequence[Sequence[Turn]]) -> list[Turn]:
        """The common boxes, at the size of each picture."""
        return [self._said(*_size(turns)) for turns in given]

    def _said(self, height: int, width: int) -> Turn:
        scale = np.array([width, height, width, height])
        boxes = []
        for name, sides, share in self.common:
            left, top, right, bottom = (sides * scale).tolist()
            boxes.append(Box(name, left, top, right, bottom, share))
        return Turn("assistant", tuple(boxes))


def _size(turns: Sequence[Turn]) -> tuple[int, int]:
    """Height and width of the only picture."""
    from modelwright.data.pictures import measured  # noqa: PLC0415 - of files alone

    (part,) = [p for t in turns for p in t.parts if isinstance(p, Image | ImageFile)]
    if isinstance(part, ImageFile):
        height, width, _ = measured(part.content)
        return height, width
    height, width = part.original or part.pixels.shape[:2]
    return height, width
