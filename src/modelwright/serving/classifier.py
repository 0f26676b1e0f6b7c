"""Answers of a model that chooses a label: the same codec and collate as in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from modelwright.types import Codec, Columns, Example, Objective, Turn, stack


class _Labels(Protocol):
    def decode(self, logits: Tensor) -> list[Turn]: ...


class Classifier:
    """A policy that answers with the most probable label."""

    def __init__(self, model: nn.Module, codec: Codec, objective: Objective) -> None:
        self.model, self.codec, self.objective = model, codec, objective

    def answer(self, given: Sequence[Sequence[Turn]]) -> list[Turn]:
        """One label for each question."""
        encoded = [self.codec.encode(Example(tuple(turns))) for turns in given]
        return self.answer_columns(stack(encoded, self.codec.ragged))

    def answer_columns(self, columns: Columns) -> list[Turn]:
        """One label for each stored example."""
        device = next(self.model.parameters()).device
        generator = torch.Generator().manual_seed(0)
        with torch.inference_mode():
            batch = self.objective.collate(columns, generator).to(device)
            return cast(_Labels, self.codec).decode(self.model(**batch.inputs))
