"""The closed set of labels that a classifier knows: names to numbers and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modelwright.errors import ModelwrightError, did_you_mean
from modelwright.types import Columns, Example, Label, Part, Turn

UNKNOWN = -1  # the number of a label that was not given, as in a question
_SHOWN = 20


def label_of(example: Example) -> str | None:
    """The label to learn, or None for a question without an answer."""
    named = (p.name for t in example.turns if t.learn for p in t.parts if isinstance(p, Label))
    return next(named, None)


def label_set(names: Iterable[str]) -> list[str]:
    """The distinct names in order; whole numbers in the order of their value.

    Raises:
        ModelwrightError: fewer than two labels, between which nothing can be learned.
    """
    distinct = set(names)
    if len(distinct) < 2:
        found = f"only {distinct.pop()!r}" if distinct else "none"
        raise ModelwrightError(
            f"labels: a classifier needs at least two labels in the train split, it has {found};"
            " check the label column and how the data are split"
        )
    numbers = all(n.isdecimal() for n in distinct)
    return sorted(distinct, key=(lambda n: (len(n), n)) if numbers else None)


def label_number(example: Example, labels: list[str]) -> int:
    """Position of the example's label in ``labels``, UNKNOWN if it has none.

    Raises:
        ModelwrightError: the label is not one of those learned from the train split.
    """
    name = label_of(example)
    return UNKNOWN if name is None else numbered(name, labels)


def numbered(name: str, labels: list[str]) -> int:
    """Position of ``name`` in ``labels``.

    Raises:
        ModelwrightError: the label is not one of those learned from the train split.
    """
    if name not in labels:
        more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
        raise ModelwrightError(
            f"label {name!r} is not in the train split{did_you_mean(name, labels)}; it has:"
            f" {', '.join(labels[:_SHOWN])}{more}; add training rows of it, or remove the row"
        )
    return labels.index(name)


def turns(part: Part, number: int, labels: list[str]) -> Example:
    """The example of a stored part and label number: the part given, the label to learn."""
    given = Turn("user", (part,))
    if number == UNKNOWN:
        return Example((given,))
    return Example((given, Turn("assistant", (Label(labels[number]),), learn=True)))


class Labelled:
    """Of a codec with labels: how a model's logits are read."""

    labels: list[str]

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities (B, labels) of logits (B, labels), or of (B, 1) where there are two labels.

        softmax(z), or (1 - σ(z), σ(z)) of the single logit z of the second label.
        """
        logits = logits.detach().float()
        if logits.shape[1] == 1:
            return torch.cat((torch.sigmoid(-logits), torch.sigmoid(logits)), dim=1)
        if logits.shape[1] != len(self.labels):
            raise ModelwrightError(
                f"the model gives {logits.shape[1]} outputs for {len(self.labels)} labels;"
                " it was not built for this codec"
            )
        return logits.softmax(dim=1)

    def details(self, logits: Tensor) -> list[dict[str, Any]]:
        """For every row its ``probabilities``: of every label by name, the likeliest first."""
        rows = self.probabilities(logits).tolist()
        named = [zip(self.labels, row, strict=True) for row in rows]
        return [
            {"probabilities": dict(sorted(pairs, key=lambda pair: -pair[1]))} for pairs in named
        ]

    @staticmethod
    def scaled(columns: Columns, mean: Tensor, deviation: Tensor) -> dict[str, Tensor]:
        """``features`` float32, (x - mean) / deviation, and ``label`` (B,) int64."""
        stored = torch.from_numpy(np.require(columns["features"], requirements="W"))
        return {
            # By torch: small batches in half the time that numpy takes, the same bits.
            "features": stored.to(torch.float32, copy=True).sub_(mean).div_(deviation),
            "label": torch.from_numpy(np.array(columns["label"], dtype=np.int64)),
        }

    def decode(self, logits: Tensor) -> list[Turn]:
        """The most probable label of every row of logits (B, outputs), as the assistant's turn."""
        best = self.probabilities(logits).argmax(dim=1).tolist()
        return [Turn("assistant", (Label(self.labels[i]),)) for i in best]
