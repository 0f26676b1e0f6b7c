"""Models that draw a picture of the class that they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast

from torch import nn

from modelwright.data.pictures import encode_png
from modelwright.pipeline import drawn
from modelwright.pipeline.answering.answerer import Answerer, Sampler
from modelwright.pipeline.fitted import Fitted
from modelwright.pipeline.prepare import Say
from modelwright.runs import Run
from modelwright.serving.flow import ImageMaker
from modelwright.types import Codec, Image, Objective, Turn


class Drawing(Answerer):
    """Pictures by the flow of a velocity, with the task's settings of how they are drawn."""

    suffix = ".png"

    @staticmethod
    def suits(codec: Codec, objective: Objective) -> bool:
        """Whether the objective's model is a velocity, and the codec makes pictures."""
        return hasattr(objective, "velocity") and hasattr(codec, "pictures")

    @cached_property
    def maker(self) -> ImageMaker:
        """The policy itself."""
        return ImageMaker.of(self.model, self.codec, self.objective, self.task)

    def answer(self, given: Sequence[Sequence[Turn]], **params: Any) -> list[Turn]:
        """A picture for each question.

        Of ``params`` a ``seed`` is taken, for all of them; ``looks`` and ``seen`` are told of the
        only one while it is drawn, see ``ImageMaker.answer``.
        """
        seed = params.get("seed")
        maker = self.maker if seed is None else self.maker.seeded(seed)
        return maker.answer(given, params.get("looks", 0), params.get("seen"))

    def facts(self) -> dict[str, Any]:
        """What a client must know to ask; of pictures their width and height."""
        height, width = cast(Any, self.codec).shape[:2]
        return {**super().facts(), "size": f"{width}x{height}"}

    def content(self, answer: Turn) -> bytes:
        """The picture as a PNG file."""
        (picture,) = (part for part in answer.parts if isinstance(part, Image))
        return encode_png(picture.pixels)

    def sampler(self, run: Run, stage: str) -> Sampler:
        """A grid of pictures, a row a class."""

        def sample(model: nn.Module, step: int) -> None:
            maker = ImageMaker.of(model, self.codec, self.objective, self.task)
            drawn.sample(run, stage, step, maker)

        return sample

    def measure(
        self, run: Run, stage: str, fitted: Fitted, result: dict[str, Any], say: Say
    ) -> None:
        """Made pictures beside real ones, and how far they are from copies."""
        drawn.drawn(run, stage, fitted, result, say)
