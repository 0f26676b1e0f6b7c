"""How a trained model answers: chosen here once, by asking its codec and its objective.

Training (samples), evaluation (measures), ``ask``, the server and the model card all use the same
``Answerer``. A further way of answering is a class in a file of its own, and a place in ``WAYS``.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from modelwright.pipeline.answering.answerer import Answerer, Sampler
from modelwright.pipeline.answering.comparing import Comparing
from modelwright.pipeline.answering.drawing import Drawing
from modelwright.pipeline.answering.embedding import Embedding
from modelwright.pipeline.answering.judging import Judging
from modelwright.pipeline.answering.predicting import Predicting
from modelwright.pipeline.answering.speaking import Speaking, Vocoding
from modelwright.pipeline.answering.writing import Writing
from modelwright.pipeline.fitted import Fitted
from modelwright.tasks.task import Task
from modelwright.types import Codec, Objective

__all__ = ["WAYS", "Answerer", "Sampler", "answerer", "answerer_of"]

# The first that suits.
WAYS: tuple[type[Answerer], ...] = (
    Drawing,
    Speaking,
    Vocoding,
    Embedding,
    Predicting,
    Judging,
    Comparing,
    Writing,
)


def way_of(codec: Codec, objective: Objective) -> type[Answerer]:
    """How a model of this codec and objective answers."""
    return next(way for way in WAYS if way.suits(codec, objective))


def answerer(
    model: nn.Module,
    codec: Codec,
    objective: Objective,
    task: Task,
    place: str | Path = "model",
) -> Answerer:
    """What answers with this model; ``place`` is how messages name it."""
    return way_of(codec, objective)(model, codec, objective, task, place)


def answerer_of(fitted: Fitted) -> Answerer:
    """What answers with a trained model."""
    return answerer(fitted.model, fitted.codec, fitted.objective, fitted.task, fitted.path)
