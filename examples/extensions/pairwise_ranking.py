"""An objective that ranks: a model gives each of two things a score, the better one a higher one.

P(second above first) = σ(s(second) - s(first)), so the loss of a pair is softplus of minus that
difference, the right way round (Bradley and Terry 1952; RankNet, Burges et al. 2005).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelwright.data.codecs import vectors
from modelwright.errors import MachineError, ModelwrightError
from modelwright.tasks.task import Task
from modelwright.tasks.vector_classification import missing_column, typed_numbers
from modelwright.types import Array, Batch, Columns, Example, Image, Label, Row, Turn

PATIENTS, PAIRS = 20, 100  # of a group: no patient is in two, so none is in two parts


def rows(seed: int) -> Iterator[Row]:
    """Pairs of scikit-learn's diabetes patients: which one's disease has gone further."""
    try:
        from sklearn.datasets import load_diabetes  # noqa: PLC0415 - only this source needs it
    except ImportError as error:
        raise MachineError(
            "the diabetes data come with scikit-learn: pip install 'modelwright[digits]'"
        ) from error
    found = load_diabetes(scaled=False)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(found.target))
    for group, start in enumerate(range(0, len(order), PATIENTS)):
        patients = order[start : start + PATIENTS]
        for _ in range(PAIRS if len(patients) > 1 else 0):
            one, other = rng.choice(patients, 2, replace=False)
            if found.target[one] != found.target[other]:
                first = found.target[one] > found.target[other]
                pair = {"first": found.data[one], "second": found.data[other]}
                yield {"group": str(group), **pair, "higher": "first" if first else "second"}


class PairwiseRanking(Task):
    """Rows with the numbers of a ``first`` and a ``second`` thing, and which is ``higher``."""

    codec = __name__
    objective = __name__
    model = "mlp"
    measure = "accuracy"
    specimen: ClassVar[Row] = {
        "id": "a",
        "first": np.array([1.0, 2.0, 3.0]),
        "second": np.array([3.0, 1.0, 2.5]),
        "higher": "second",
    }

    def examples(self, row: Row) -> Iterator[Example] | str:
        """One example: both are given, which one is higher is to be learned."""
        for name in ("first", "second", "higher"):
            if name not in row:
                raise missing_column(row, name, "is read", name)
        answer = Turn("assistant", (Label(str(row["higher"])),), learn=True)
        pair = np.stack([np.asarray(row[name], dtype=np.float64) for name in ("first", "second")])
        return iter([Example((_given(pair), answer))])

    def grade(self, example: Example, answer: Turn) -> float:
        """1 for the right one, else 0."""
        return float(answer.label == example.answer.label)

    def question(self, text: str) -> Sequence[Turn]:
        """The turns of two lists of numbers in JSON: [[...], [...]]."""
        return (_given(typed_numbers(text)),)


def _given(pair: Array) -> Turn:
    if pair.ndim != 2 or len(pair) != 2:
        raise ModelwrightError(f"a pair of shape {pair.shape}; two rows of numbers are meant")
    return Turn("user", (Image(pair),))


class Codec(vectors.Codec):
    """Pairs as arrays (2, n), every number scaled; the model reads one of the two at a time."""

    outputs = 1

    def __init__(
        self,
        labels: list[str],
        shape: tuple[int, ...],
        mean: Array,
        deviation: Array,
        *,
        bytes_only: bool,
    ) -> None:
        super().__init__(labels, shape, mean, deviation, bytes_only=bytes_only)
        self.features = shape[1]

    @classmethod
    def fit(cls, examples: Iterable[Example], *, scale: str = "feature") -> Codec:
        """Learn one scale for both sides: a thing must score the same on either."""
        found = super().fit(examples, scale=scale)
        mean = found.mean.mean(axis=0)
        deviation = np.sqrt((found.deviation**2 + (found.mean - mean) ** 2).mean(axis=0))
        both = (np.stack([side, side]).astype(np.float32) for side in (mean, deviation))
        return cls(found.labels, found.shape, *both, bytes_only=found.bytes_only)


class Objective:
    """Cross-entropy of which one is higher, of the difference of two scores."""

    packs = False
    draws = False
    needs = "labels"

    def __init__(self, codec: Any) -> None:
        self.codec = codec

    def collate(self, columns: Columns, generator: torch.Generator) -> Batch:  # noqa: ARG002
        """``features`` (B, 2, n) are the input, ``label`` (B,) the target."""
        tensors = self.codec.tensors(columns)
        label = tensors.pop("label")
        return Batch(tensors, {"label": label}, int((label >= 0).sum()))

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Score of the second less that of the first, (B, 1): the logit of "second"."""
        pairs = batch.inputs["features"]
        scores: Tensor = model(features=pairs.flatten(0, 1)).view(len(pairs), 2)
        return scores[:, 1:] - scores[:, :1]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """softplus(-d) or softplus(d) of each difference, summed, in nats."""
        label = batch.targets["label"]
        margin = self.predict(model, batch)[:, 0].float() * (2 * label - 1)
        return F.softplus(-margin).where(label >= 0, 0.0).sum()
