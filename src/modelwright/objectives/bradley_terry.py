"""A reward for every answer, learned from pairs of which one is better (Bradley and Terry, 1952).

    P(c better than r) = s(R(c) - R(r)),   s(z) = 1 / (1 + exp(-z))
    loss = - log s(R(c) - R(r)) + k (R(c) + R(r))^2

in nats and summed over the pairs (arXiv:2203.02155, equation 1; the second part, weighed by
``center``, keeps rewards near 0, arXiv:2312.09244). The reward R of a text is the logit of the
token that ends answers, read before the last token of the text: a linear function of the last
stream, of weights that every language model has, so that none has to be added.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.objectives.answers import joined, of_pairs
from modelwright.types import Batch, Codec, Columns, Ragged, rows_in

needs = "token_bytes"  # of the codec


class Objective:
    """Bradley-Terry's likelihood of the preferred answers; a batch counts pairs.

    Args:
        codec: of text.
        center: k, 0 or more.
    """

    packs = True
    draws = False

    def __init__(self, codec: Codec, *, center: Annotated[float, Field(ge=0)] = 0.0) -> None:
        self.codec, self.center = codec, center
        self.end: int = codec.end  # type: ignore[attr-defined]

    def collate(self, columns: Columns, generator: torch.Generator) -> Batch:  # noqa: ARG002
        """Inputs ``tokens`` (1, N) and ``starts`` of 2 B texts; targets ``lengths`` (B, 2).

        Raises:
            ModelwrightError: a row has one answer only.
        """
        tokens, learn = of_pairs(columns)
        rows = rows_in(columns)
        learned = np.add.reduceat(np.asarray(learn.values, dtype=np.int64), learn.offsets[:-1])
        lengths = learned.reshape(2, rows).T.astype(np.float32)
        if not lengths.all():
            raise ModelwrightError(
                "objective bradley_terry: a row has one answer only, and two are compared; give"
                " pairs, or learn from single answers with the objective preference, loss kto"
            )
        inputs = self.texts(tokens)
        return Batch(
            inputs, {"lengths": torch.from_numpy(lengths)}, rows, computed=len(tokens.values)
        )

    def texts(self, tokens: Ragged) -> dict[str, Tensor]:
        """Texts without their last tokens as inputs of a model, one after another."""
        inputs, _ = joined(tokens, Ragged(np.zeros(len(tokens.values), np.bool_), tokens.offsets))
        return inputs

    def judged(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        """R of every text, (texts,) float32."""
        language: Any = model
        last = inputs["starts"][1:] - 1
        hidden: Tensor = language.hidden(**inputs).flatten(0, 1)[last]
        logits: Tensor = language.head(hidden)
        return logits[:, self.end].float()

    def rewards(self, model: nn.Module, batch: Batch) -> Tensor:
        """R of the chosen and the rejected answer, (B, 2)."""
        return self.judged(model, batch.inputs).view(2, -1).T

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The sum over the pairs."""
        found = self.rewards(model, batch)
        costs = -F.logsigmoid(found[:, 0] - found[:, 1])
        return (costs + self.center * found.sum(1).square()).sum()
