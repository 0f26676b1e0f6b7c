"""Say of each label whether it holds.

Sigmoid cross-entropy of logits z (C) and answers y in {0, 1}:

    loss = - sum over labels c of [y_c log s(z_c) + (1 - y_c) log(1 - s(z_c))]

with s(z) = 1 / (1 + exp(-z)),
in nats, summed over the examples.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelwright.types import Batch, Columns

needs = "labels"  # of the codec


class Objective:
    """Sigmoid cross-entropy of every label; rows without an answer cost and count nothing."""

    packs = True
    draws = False

    def __init__(self, codec: Any) -> None:
        self.codec = codec

    def collate(self, columns: Columns, generator: torch.Generator) -> Batch:  # noqa: ARG002
        """The codec's tensors are the inputs, all but ``chosen`` (B, labels), the target."""
        tensors = self.codec.tensors(columns)
        chosen = tensors.pop("chosen")
        count = int((chosen[:, 0] >= 0).sum())
        return Batch(tensors, {"chosen": chosen}, count, computed=len(tensors["tokens"]))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The cross-entropy summed over labels and answered examples, in nats."""
        logits: Tensor = model(**batch.inputs).float()
        chosen = batch.targets["chosen"]
        costs = F.binary_cross_entropy_with_logits(
            logits, chosen.clamp(min=0).float(), reduction="none"
        )
        return costs.where(chosen >= 0, 0.0).sum()
