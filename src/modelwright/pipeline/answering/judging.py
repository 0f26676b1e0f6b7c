"""Models that judge an answer by a number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch

from modelwright.errors import ModelwrightError
from modelwright.pipeline.answering.answerer import Answerer
from modelwright.pipeline.answering.comparing import Preferring
from modelwright.runs import Run
from modelwright.types import Codec, Example, Number, Objective, Ragged, Turn


class Judging(Preferring, Answerer):
    """The reward of a conversation that ends with an answer."""

    at_once = 16

    @staticmethod
    def suits(codec: Codec, objective: Objective) -> bool:  # noqa: ARG004 - the objective says it
        """Whether the objective's model gives every text a number."""
        return hasattr(objective, "judged")

    def answer(self, given: Sequence[Sequence[Turn]], **params: Any) -> list[Turn]:  # noqa: ARG002
        """A number for each conversation; nothing is drawn, so ``params`` change nothing.

        Raises:
            ModelwrightError: a conversation is longer than the model's context.
        """
        if not given:
            return []
        encoded = [self.codec.encode(Example(tuple(turns))) for turns in given]
        tokens = Ragged.of([np.asarray(one["tokens"]) for one in encoded])
        context, length = cast(Any, self.model).config.context, int(tokens.lengths.max()) - 1
        if length > context:
            raise ModelwrightError(
                f"{self.place}: the conversation is {length} tokens long and the model's context"
                f" holds {context}; shorten it"
            )
        objective = cast(Any, self.objective)
        device = next(self.model.parameters()).device
        inputs = {k: v.to(device) for k, v in objective.texts(tokens).items()}
        self.model.eval()
        with torch.inference_mode():
            found = objective.judged(self.model, inputs).tolist()
        return [Turn("assistant", (Number(round(value, 4)),)) for value in found]

    def sampler(self, run: Run, stage: str) -> None:
        """None: what it learns is seen in the validation."""
