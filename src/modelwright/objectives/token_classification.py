"""Say something of the tokens of a text: tags of words, and what its last token says of the whole.

Cross-entropy of logits z (C) and label y of every token that has one:

    loss = - sum over labelled tokens t of log p(y_t),   p(c) = exp(z_c) / sum over k of exp(z_k)

in nats, the sum over k taken over the group of numbers that y belongs to: the tags, or the labels
of a whole text. Tokens without a label are read, and cost nothing.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelwright.types import Batch, Columns

needs = "tags"  # of the codec


class Objective:
    """Cross-entropy of every label that a token has."""

    packs = True
    draws = False

    def __init__(self, codec: Any) -> None:
        self.codec = codec

    def collate(self, columns: Columns, generator: torch.Generator) -> Batch:  # noqa: ARG002
        """Inputs ``tokens`` (N,) and ``starts``; targets ``labels`` (N,), -1 where there is none.

        ``first``, ``bounds`` and ``words`` are what the codec needs to read an answer.
        """
        tensors = self.codec.tensors(columns)
        inputs = {name: tensors.pop(name) for name in ("tokens", "starts")}
        count = int((tensors["labels"] >= 0).sum())
        return Batch(inputs, tensors, count, computed=len(inputs["tokens"]))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The cross-entropy summed over the labelled tokens, in nats."""
        logits: Tensor = model(**batch.inputs)
        labels, tags = batch.targets["labels"], len(self.codec.tags)
        loss = _cost(logits[:, :tags], labels.where(labels < tags, -1))
        if self.codec.wholes:
            loss = loss + _cost(logits[:, tags:], (labels - tags).clamp(min=-1))
        return loss

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """What the codec reads in the logits, (B, 1 + words, 4)."""
        found: Tensor = self.codec.read(
            model(**batch.inputs), batch.targets, batch.inputs["starts"]
        )
        return found


def _cost(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), labels, reduction="sum", ignore_index=-1)
