"""Models one pass of which is an answer: labels, numbers, tags, boxes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from modelwright.data.hearing import questions
from modelwright.data.scripts import apart
from modelwright.data.shards import open_shard
from modelwright.errors import ModelwrightError
from modelwright.pipeline import labelled
from modelwright.pipeline.answering.answerer import Answerer
from modelwright.pipeline.drawn_mistakes import draw_mistakes
from modelwright.pipeline.fitted import Fitted
from modelwright.pipeline.predicted import predicted
from modelwright.pipeline.prepare import Say
from modelwright.runs import Run
from modelwright.serving.predictor import AT_ONCE, Predictor
from modelwright.tasks.task import Task
from modelwright.types import Answer, Codec, Columns, Objective, Turn, text_turn


class Predicting(Answerer):
    """What the codec's ``decode`` reads from the model's outputs."""

    at_once = AT_ONCE

    @staticmethod
    def suits(codec: Codec, objective: Objective) -> bool:  # noqa: ARG004 - the codec says it all
        """Whether outputs are answers as they stand: the codec has ``decode``."""
        return hasattr(codec, "decode")

    @cached_property
    def predictor(self) -> Predictor:
        """The policy itself."""
        return Predictor(self.model, self.codec, self.objective)

    def answer(self, given: Sequence[Sequence[Turn]], **params: Any) -> list[Turn]:  # noqa: ARG002
        """The answers; there is nothing to draw, so ``params`` change nothing."""
        return self.predictor.answer(given)

    def detailed(self, given: Sequence[Sequence[Turn]], **params: Any) -> list[Answer]:
        """The answers with their details, of one pass.

        Of ``params``, ``seen`` is told the transcript of the only recording, piece by piece;
        ``timestamps`` adds to the details of transcripts when their words are said.

        Raises:
            ModelwrightError: times are asked of a model that has none.
        """
        if params.get("timestamps"):
            if not self.times:
                raise ModelwrightError(
                    f"{self.place}: this model does not say when words are said, which a model"
                    " trained by ctc does; ask without timestamps"
                )
            return self.predictor.timed(given)
        seen = params.get("seen")
        if seen is None or not hasattr(self.codec, "ear"):
            return self.predictor.detailed(given)
        told = ""
        for number, question in enumerate(questions(given[0], self.codec)):
            (turn,) = self.predictor.answer([question])
            if fresh := turn.said:
                fresh = f" {fresh}" if apart(told, fresh) else fresh
                seen(number, text_turn("assistant", fresh))
                told += fresh
        return [Answer(text_turn("assistant", told))]

    @property
    def times(self) -> bool:
        """Whether the codec aligns transcripts with their recordings."""
        return bool(getattr(self.codec, "times", False))

    def facts(self) -> dict[str, Any]:
        """What a client must know to ask; of transcripts their language, and whether with times."""
        language = getattr(self.codec, "spoken_language", "")
        known = {"language": language} if language else {}
        return {**super().facts(), **known, **({"times": True} if self.times else {})}

    @property
    def embed(self) -> Callable[[Sequence[str]], tuple[list[list[float]], int]] | None:
        """What makes vectors of texts, of a model that reads packed documents; else None."""
        if not hasattr(self.model, "hidden"):
            return None
        return lambda texts: self.predictor.embed([self.task.request(text) for text in texts])

    def details(self, given: Sequence[Sequence[Turn]]) -> list[Mapping[str, Any]]:
        """What the codec's ``details`` says of each answer, where it has some."""
        return [answer.details for answer in self.predictor.detailed(given)]

    def said(self, turns: Sequence[Turn], **params: Any) -> str:  # noqa: ARG002 - nothing is drawn
        """The answer; of labels each with its probability."""
        (found,) = self.predictor.detailed([turns])
        if not (probabilities := found.details.get("probabilities")):
            return found.turn.said
        named = [f"{label} ({probabilities[label]:.1%})" for label in found.turn.labels]
        return ", ".join(named) or "none of the labels"

    def sampler(self, run: Run, stage: str) -> None:
        """None: what it learns is seen in the validation."""

    def measure(
        self, run: Run, stage: str, fitted: Fitted, result: dict[str, Any], say: Say
    ) -> None:
        """Accuracy of labels, and the measures that the task has of its own."""
        labels = "label" in open_shard(run.path / "data" / stage / "test")
        if labels:
            labelled.accuracy(run, stage, fitted, result, say)
            draw_mistakes(run, stage, fitted, say)
        if not labels or type(self.task).measures is not Task.measures:
            predicted(run, stage, fitted, result, say)

    def held_out(self, columns: Columns) -> dict[str, float]:
        """The accuracy, where examples have a label."""
        if "label" not in columns:
            return {}
        right = labelled.names(self.codec, columns)
        said = labelled.predictions(self.predictor, columns)
        same = [a == b for a, b in zip(right, said, strict=True)]
        return {"accuracy": sum(same) / len(same)}
