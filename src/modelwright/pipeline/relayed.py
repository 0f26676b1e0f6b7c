"""What is said, understood in two steps: a recogniser writes it down, a text model reads that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from modelwright.errors import ModelwrightError
from modelwright.pipeline.fitted import Fitted, load_fitted, newest_checkpoint
from modelwright.runs import Run
from modelwright.serving.predictor import Predictor
from modelwright.tasks.task import Task
from modelwright.types import Example, Policy, Turn, text_turn

NAME = "recogniser and text model"


class Relayed:
    """A policy of two models, whose answer the task makes of the text and what was found in it."""

    def __init__(self, task: Task, recogniser: Fitted, reader: Fitted, usual: str) -> None:
        self.task, self.usual = cast(Any, task), usual
        self.recogniser, self.reader = (
            Predictor(of.model, of.codec, of.objective) for of in (recogniser, reader)
        )

    def answer(self, given: Sequence[Sequence[Turn]]) -> list[Turn]:
        """One answer for each recording; silence is the usual intent without slots."""
        texts = [turn.text for turn in self.recogniser.answer(given)]
        heard = [text for text in texts if text]
        read = iter(self.reader.answer([(text_turn("user", text),) for text in heard]))
        found = (next(read) if text else Turn("assistant", ()) for text in texts)
        return [
            self.task.understood(text, turn, self.usual)
            for text, turn in zip(texts, found, strict=True)
        ]


def beside(task: Task, train: Sequence[Example]) -> Mapping[str, Policy]:
    """The policy of the two runs that a task names as ``recogniser`` and ``reader``, if it does.

    Raises:
        ModelwrightError: it names one of both, or a run that is not trained.
    """
    named = {name: getattr(task, name, "") for name in ("recogniser", "reader")}
    if not hasattr(task, "understood") or not any(named.values()):
        return {}
    for name, path in named.items():
        if not path:
            raise ModelwrightError(
                f"train.options.{name}: the other of recogniser and reader is given; name both"
            )
    intents = Counter(cast(Any, task).intent_of(example.answer) for example in train)
    ((usual, _),) = intents.most_common(1)
    recogniser, reader = (_trained(name, path) for name, path in named.items())
    return {NAME: Relayed(task, recogniser, reader, usual)}


def _trained(name: str, path: str) -> Fitted:
    try:
        return load_fitted(newest_checkpoint(Run.open(Path(path).expanduser())))
    except ModelwrightError as error:
        raise ModelwrightError(f"train.options.{name}: {error}; or leave it out") from error
