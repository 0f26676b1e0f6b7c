"""Answers of a model that chooses a label: the same codec and collate as in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from modelwright.types import Codec, Columns, Example, Objective, Turn, stack


class _Labels(Protocol):
    labels: list[str]

    def decode(self, logits: Tensor) -> list[Turn]: ...

    def probabilities(self, logits: Tensor) -> Tensor: ...


class Classifier:
    """A policy that answers with the most probable label."""

    def __init__(self, model: nn.Module, codec: Codec, objective: Objective) -> None:
        self.model, self.codec, self.objective = model, codec, objective

    def answer(self, given: Sequence[Sequence[Turn]]) -> list[Turn]:
        """One label for each question."""
        return cast(_Labels, self.codec).decode(self._logits(self._columns(given)))

    def probabilities(self, given: Sequence[Sequence[Turn]]) -> list[dict[str, float]]:
        """For each question the probability of every label, the likeliest first."""
        codec = cast(_Labels, self.codec)
        rows = codec.probabilities(self._logits(self._columns(given))).tolist()
        return [
            dict(sorted(zip(codec.labels, row, strict=True), key=lambda pair: -pair[1]))
            for row in rows
        ]

    def answer_columns(self, columns: Columns) -> list[Turn]:
        """One label for each stored example."""
        return cast(_Labels, self.codec).decode(self._logits(columns))

    def _columns(self, given: Sequence[Sequence[Turn]]) -> Columns:
        encoded = [self.codec.encode(Example(tuple(turns))) for turns in given]
        return stack(encoded, self.codec.ragged)

    def _logits(self, columns: Columns) -> Tensor:
        device = next(self.model.parameters()).device
        generator = torch.Generator().manual_seed(0)
        with torch.inference_mode():
            batch = self.objective.collate(columns, generator).to(device)
            logits: Tensor = self.model(**batch.inputs)
            return logits
