"""Labelled text of which any number of labels holds: none, one or several."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from modelwright.data import labels as label_sets
from modelwright.data.codecs import labelled_text
from modelwright.types import Array, Columns, Encoded, Example, Label, Shortened, Turn

LEAST = 0.5  # probability from which a label holds


class Codec(labelled_text.Codec):
    """As labelled text, with a 0 or a 1 for every label in place of a number.

    Each label has a probability of its own, the sigmoid of its logit.
    """

    def encode(self, example: Example) -> Encoded:
        """``tokens`` (T,), and ``chosen`` (labels,), int8: 1 holds, 0 not, -1 of a question.

        Raises:
            ModelwrightError: not one text or two, or an unknown label.
        """
        chosen = np.full(len(self.labels), label_sets.UNKNOWN, dtype=np.int8)
        for turn in example.turns:
            if turn.learn:
                chosen[:] = 0
                chosen[[label_sets.numbered(name, self.labels) for name in turn.labels]] = 1
        tokens, cut = self._read(example)
        return Shortened.where(cut, {"tokens": tokens, "chosen": chosen})

    def example(self, encoded: Encoded) -> Example:
        """The example that ``encode`` was given, as far as its texts were read."""
        given, chosen = self._given(encoded["tokens"].tolist()), encoded["chosen"]
        if chosen[0] == label_sets.UNKNOWN:
            return Example(given)
        return Example((*given, self._turn(chosen > 0, learn=True)))

    def _turn(self, chosen: Array, *, learn: bool = False) -> Turn:
        parts = tuple(Label(self.labels[i]) for i in np.flatnonzero(chosen))
        return Turn("assistant", parts, learn)

    def tensors(self, columns: Columns) -> dict[str, Tensor]:
        """``tokens`` (N,), ``starts`` (B + 1,), and ``chosen`` (B, labels): int64."""
        nowhere = np.full(len(np.asarray(columns["chosen"])), label_sets.UNKNOWN, dtype=np.int64)
        found = super().tensors({"tokens": columns["tokens"], "label": nowhere})
        del found["label"]
        return {
            **found,
            "chosen": torch.from_numpy(np.asarray(columns["chosen"]).astype(np.int64)),
        }

    def probabilities(self, logits: Tensor) -> Tensor:
        """The probability that each label holds, (B, labels): the sigmoid of its logit."""
        return torch.sigmoid(logits.detach().float())

    def decode(self, logits: Tensor) -> list[Turn]:
        """The labels that hold with a probability of LEAST or more."""
        return [self._turn(row >= LEAST) for row in self.probabilities(logits).cpu().numpy()]
