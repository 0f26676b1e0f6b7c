"""Find the things in a picture: of each its class, a score and a box."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from modelwright.data.pictures import measured
from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.tasks.box_scores import Usual, average_precision, f1
from modelwright.tasks.image_classification import ImageClassification, sound_picture
from modelwright.tasks.task import Measured
from modelwright.tasks.vector_classification import missing_column
from modelwright.types import Box, Example, ImageFile, Policy, Row, Turn

SIDES = ("x0", "y0", "x1", "y1")
LEAST = 1.0  # pixels of a box that lie in the picture, each way


class ObjectDetection(ImageClassification):
    """Rows with a picture and its boxes.

    Folders and tars with the notes of Pascal VOC, COCO or YOLO give ``image`` and ``boxes``; tables
    name files and give ``boxes`` as a list of {label, x0, y0, x1, y1}, in pixels from the upper
    left corner. A picture without any box is one where nothing is.

    Args:
        image: the column that holds the picture; left out: ``image``, ``pixels`` or ``x``.
        boxes: the column that holds the boxes.
        classes: what is looked for; all else is background. Left out: every class of the rows.

    Raises:
        ModelwrightError: ``classes`` names nothing.
    """

    codec = "boxes"
    objective = "detection"
    model = "detector"
    measure = "F1 at IoU 0.5"
    by_class: ClassVar[bool] = False
    specimen: ClassVar[Row] = {
        "id": "a",
        "pixels": np.arange(64 * 96, dtype=np.uint8).reshape(64, 96),
        "boxes": [
            {"label": "small", "x0": 8, "y0": 10, "x1": 30, "y1": 28},
            {"label": "large", "x0": 20.5, "y0": 4, "x1": 90, "y1": 60},
        ],
    }

    def __init__(
        self, image: str = "", boxes: str = "boxes", classes: Sequence[str] | None = None
    ) -> None:
        super().__init__(image=image)
        self.boxes = boxes
        self.classes = [classes] if isinstance(classes, str) else classes
        self._seen: set[str] = set()  # classes of rows, also of those that are not looked for
        if self.classes is not None and not all(self.classes or [""]):
            raise ModelwrightError(
                "options.classes: names no class; name some, or leave it out for all"
            )

    def examples(self, row: Row) -> Iterator[Example] | str:
        """One example, or why a row has none: a damaged picture, a box that cannot be."""
        if self.boxes not in row:
            raise missing_column(row, self.boxes, "holds the boxes", "boxes")
        if row.get("problem"):
            return str(row["problem"])
        part = sound_picture(row, self.image)
        if isinstance(part, str):
            return part
        if isinstance(part, ImageFile):
            height, width, _ = measured(part.content)
        else:
            height, width = np.shape(part.pixels)[:2]
        found = _boxes(row, self.boxes)
        if found is None:
            return "no boxes given"
        clipped = []
        for box in found:
            self._seen.add(box.label)
            if self.classes is not None and box.label not in self.classes:
                continue
            if reason := _problem(box, height, width):
                return reason
            clipped.append(
                Box(
                    box.label,
                    max(box.left, 0.0),
                    max(box.top, 0.0),
                    min(box.right, float(width)),
                    min(box.bottom, float(height)),
                )
            )
        given = Turn("user", (part,))
        return iter([Example((given, Turn("assistant", tuple(clipped), True)))])

    def examined(self, parts: Mapping[str, Sequence[Example]]) -> Iterator[str]:
        """How many boxes of every class there are, part by part.

        Raises:
            ModelwrightError: a class that is looked for never occurs, or the pictures that it is
                learned from or measured on have no box at all: a precision of 0 would say nothing.
        """
        for name in self.classes or ():
            if name not in self._seen:
                raise ModelwrightError(
                    f"options.classes: no box is of class {name!r}"
                    f"{did_you_mean(name, self._seen)}; there are {', '.join(sorted(self._seen))}"
                )
        for part, examples in parts.items():
            found = Counter(box.label for e in examples for box in e.answer.boxes)
            if examples and not found and part != "validation":
                raise ModelwrightError(
                    f"data.split: none of the {len(examples):,} pictures of {part} has a box to be"
                    " found; split otherwise, or check the boxes"
                )
            if found:
                counts = ", ".join(f"{found[name]:,} {name}" for name in sorted(found))
                yield f"{part}: boxes of {len(examples):,} pictures: {counts}"

    def grade(self, example: Example, answer: Turn) -> float:
        """F1 of the boxes that are shown, each right when it overlaps one of its class by half."""
        return f1(example.answer.boxes, answer.boxes)

    def kind(self, example: Example) -> str:  # noqa: ARG002 - a picture has several classes
        """Nothing: a picture has things of many classes."""
        return ""

    def measures(self, examples: Sequence[Example], policy: Policy) -> list[Measured]:
        """COCO's mean average precisions, and the mean F1 of what is shown."""
        answers = policy.answer([example.given for example in examples])
        meant, said = [e.answer.boxes for e in examples], [a.boxes for a in answers]
        found = average_precision(meant, said)
        grades = [f1(boxes, some) for boxes, some in zip(meant, said, strict=True)]
        by_class = ", ".join(f"{name} {value:.3f}" for name, value in found.by_class.items())
        return [
            Measured("mAP@0.5", found.half, note=f"by class: {by_class}"),
            Measured("mAP@[.5:.95]", found.mean, note="the mean over overlaps from 0.5 to 0.95"),
            Measured(self.measure, statistics.fmean(grades), note="of a picture, boxes as shown"),
        ]

    def baselines(self, train: Sequence[Example]) -> Mapping[str, Policy]:
        """The boxes that are commonest in train, wherever one looks."""
        return {"commonest boxes": Usual(train)}


def _boxes(row: Row, column: str) -> list[Box] | None:
    """The boxes of a row, None where it does not say."""
    value: Any = row[column]
    if value is None:
        return None
    try:
        return [Box(str(one["label"]), *(float(one[side]) for side in SIDES)) for one in value]
    except (KeyError, TypeError, ValueError) as error:
        raise ModelwrightError(
            f"row {row.get('id', '?')}: column {column!r} holds {str(value)[:60]!r}; a list of"
            f" {{label, x0, y0, x1, y1}} in pixels is meant ({type(error).__name__}: {error})"
        ) from error


def _problem(box: Box, height: int, width: int) -> str:
    """Why a box cannot be, or an empty string; one that reaches over an edge is cut there."""
    sides = (box.left, box.top, box.right, box.bottom)
    if not all(map(math.isfinite, sides)):
        return "a box that is not finite"
    if box.right - box.left < LEAST or box.bottom - box.top < LEAST:
        return "a box without area"
    across = min(box.right, width) - max(box.left, 0)
    along = min(box.bottom, height) - max(box.top, 0)
    if across < LEAST or along < LEAST:
        return "a box outside the image"
    return "" if box.label else "a box without a class"
