"""Make a picture, of a class that is asked for or of any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from modelwright.tasks.image_classification import sound_picture
from modelwright.tasks.task import Task
from modelwright.tasks.vector_classification import missing_column
from modelwright.types import Example, Label, Row, Turn


class ImageGeneration(Task):
    """Rows with a picture, and a label unless it is left out; how pictures are drawn of a model.

    Args:
        image: the column that holds the picture; left out: ``image``, ``pixels`` or ``x``.
        label: the column that holds the class; empty: pictures are made without classes.
        steps: of the sampler for one picture.
        sampler: "euler" asks the model once a step, "heun" twice, of second order.
        guidance: weight w of classifier-free guidance; 1 takes the conditional model alone, for
            half the cost.
        samples: pictures that the evaluation draws.
    """

    codec = "generated_images"
    objective = "flow_matching"
    model = "unet"
    measure = "share recognised"
    specimen: ClassVar[Row] = {
        "id": "a",
        "pixels": np.arange(0, 256, 2, dtype=np.uint8).reshape(16, 8),
        "label": "striped",
    }

    def __init__(
        self,
        *,
        image: str = "",
        label: str = "label",
        steps: Annotated[int, Field(ge=1, le=1000)] = 10,
        sampler: Literal["euler", "heun"] = "heun",
        guidance: Annotated[float, Field(ge=0)] = 1.0,
        samples: Annotated[int, Field(ge=1)] = 1000,
    ) -> None:
        self.image, self.label, self.samples = image, label, samples
        self.sampling: dict[str, Any] = {"steps": steps, "sampler": sampler, "guidance": guidance}

    def examples(self, row: Row) -> Iterator[Example] | str:
        """One example, or why a row has none: no label, or a picture that is not whole."""
        given: tuple[Turn, ...] = ()
        if self.label:
            if self.label not in row:
                raise missing_column(row, self.label, "holds the class", "label")
            if row[self.label] is None or row[self.label] == "":
                return "no label"
            given = (Turn("user", (Label(str(row[self.label])),)),)
        part = sound_picture(row, self.image)
        if isinstance(part, str):
            return part
        return iter([Example((*given, Turn("assistant", (part,), learn=True)))])

    def kind(self, example: Example) -> str:
        """The class that is given, if any."""
        return next((name for turn in example.given for name in turn.labels), "")

    def question(self, text: str) -> Sequence[Turn]:
        """The turns of a class's name; an empty text asks for a picture of any class."""
        name = text.strip()
        return (Turn("user", (Label(name),)),) if name else ()
