"""What every way of answering offers: the one place where it is asked how a model answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from modelwright.errors import ModelwrightError
from modelwright.models.ready import ready
from modelwright.pipeline.fitted import Fitted
from modelwright.pipeline.prepare import Say
from modelwright.runs import Run
from modelwright.tasks.task import Task
from modelwright.types import Answer, Codec, Columns, Objective, Turn

if TYPE_CHECKING:  # it needs the library of the server
    from modelwright.serving.service import Answering

Sampler = Callable[[nn.Module, int], None]  # keeps samples of a model at a step


class Answerer(ABC):
    """A policy made of a model, with its codec, objective and task.

    Class attributes:
        suffix: of the file that an answer is, such as ".png"; empty where answers are said.
        at_once: how many questions of different people a server may ask it together: 1 where what
            is drawn for one depends on those beside it.
    """

    suffix: ClassVar[str] = ""
    at_once: ClassVar[int] = 1

    def __init__(
        self,
        model: nn.Module,
        codec: Codec,
        objective: Objective,
        task: Task,
        place: str | Path = "model",
    ) -> None:
        """Take the parts; ``place`` is how messages name the model, such as its checkpoint."""
        self.model, self.codec, self.objective, self.task = model, codec, objective, task
        self.place = place

    @staticmethod
    @abstractmethod
    def suits(codec: Codec, objective: Objective) -> bool:
        """Whether models of this codec and objective answer so."""

    @abstractmethod
    def answer(self, given: Sequence[Sequence[Turn]], **params: Any) -> list[Turn]:
        """One answer for each conversation; ``params`` are those of this way of answering.

        Raises:
            ModelwrightError: the model cannot answer, or cannot read a question.
        """

    def details(self, given: Sequence[Sequence[Turn]]) -> list[Mapping[str, Any]]:
        """What else is known of each answer, by name: ``probabilities``, where it has some."""
        return [{} for _ in given]

    def detailed(self, given: Sequence[Sequence[Turn]], **params: Any) -> list[Answer]:
        """The answers with their details."""
        pairs = zip(self.answer(given, **params), self.details(given), strict=True)
        return [Answer(turn, details) for turn, details in pairs]

    def facts(self) -> dict[str, Any]:
        """What a client of a server must know to ask; see ``serving.asking.facts``."""
        from modelwright.serving.asking import facts  # noqa: PLC0415 - the library of the server

        return facts(self.task, self.codec)

    @property
    def times(self) -> bool:
        """Whether answers are told with the times of their words, for ``timestamps=True``."""
        return False

    def complete(self, text: str, **params: Any) -> str:  # noqa: ARG002 - of models that write
        """The continuation of a document that begins with ``text``.

        Raises:
            ModelwrightError: the model writes no text.
        """
        raise ModelwrightError(
            f"{self.place}: this model does not write text, so it continues none; just ask it"
        )

    def said(self, turns: Sequence[Turn], **params: Any) -> str:
        """The answer as a person is shown it."""
        (answer,) = self.answer([turns], **params)
        return answer.said

    def value(self, answer: Turn) -> Any:
        """The answer as a caller in Python has it: its text, its label; of vectors the numbers."""
        return answer.said

    def content(self, answer: Turn) -> bytes:  # noqa: ARG002 - of answers that are files
        """The answer as the content of a file that ends in ``suffix``.

        Raises:
            ModelwrightError: answers are no files.
        """
        raise ModelwrightError(f"{self.place}: this model's answers are no files; just ask it")

    def server(self, *, max_waiting: int = 64, **settings: Any) -> Answering:  # noqa: ARG002
        """What answers the requests of a server; ``settings`` are those of an ``Engine``.

        The model is made `ready`: it answers from now on, and is trained no more.

        Raises:
            ModelwrightError: the model cannot answer.
        """
        from modelwright.serving.passes import PassEngine  # noqa: PLC0415 - as above

        ready(self.model)
        return PassEngine(self, self.task.request, max_waiting=max_waiting)

    @property
    def tag(self) -> str:
        """The hub's name for what the model does, for its card; empty where it has none."""
        return ""

    @abstractmethod
    def sampler(self, run: Run, stage: str) -> Sampler | None:
        """What keeps samples while a stage trains, below ``samples/``; None: it has none to keep.

        The sampler is given the model as it is then, which need not be the one in here.
        """

    @abstractmethod
    def measure(
        self, run: Run, stage: str, fitted: Fitted, result: dict[str, Any], say: Say
    ) -> None:
        """Measure on the test part: adds to ``measures`` and ``examples`` of ``result``."""

    def held_out(self, columns: Columns) -> dict[str, float]:  # noqa: ARG002 - where there are any
        """What is measured of a whole part of stored examples beside the loss, by name."""
        return {}
