"""A task with an objective of its own: predict a quantity from a table of numbers."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from modelwright.data.sources import ROW_COLUMNS
from modelwright.errors import MachineError, ModelwrightError
from modelwright.tasks import task
from modelwright.tasks.vector_classification import missing_column, typed_numbers
from modelwright.types import Array, Batch, Columns, Encoded, Example, Number, Policy, Row, Turn


def rows() -> Iterator[Row]:
    """The 442 patients of scikit-learn's diabetes data (Efron et al. 2004), in their units."""
    try:
        from sklearn.datasets import load_diabetes  # noqa: PLC0415 - only this source needs it
    except ImportError as error:
        raise MachineError(
            "the diabetes data come with scikit-learn: pip install 'modelwright[digits]'"
        ) from error
    found = load_diabetes(scaled=False)
    for values, target in zip(found.data.tolist(), found.target.tolist(), strict=True):
        yield {**dict(zip(found.feature_names, values, strict=True)), "progression": target}


class TabularRegression(task.Task):
    """Rows of numbers, one of which is to be predicted from the others.

    Args:
        target: the column to predict.
    """

    codec = __name__
    objective = __name__
    model = "mlp"
    measure = "mean absolute error"
    better = "lower"
    specimen: ClassVar[Row] = {"id": "a", "age": 59.0, "bmi": 32.1, "progression": 151.0}

    def __init__(self, target: str = "progression") -> None:
        self.target = target

    def examples(self, row: Row) -> Iterator[Example] | str:
        """One example: the other columns are given in their order."""
        if self.target not in row:
            raise missing_column(row, self.target, "is to be predicted", "target")
        others = [v for k, v in row.items() if k not in (self.target, *ROW_COLUMNS)]
        try:
            given, answer = (
                _turn("user", others),
                _turn("assistant", [row[self.target]], learn=True),
            )
        except (TypeError, ValueError):
            return "not all numbers"
        return iter([Example((given, answer))])

    def grade(self, example: Example, answer: Turn) -> float:
        """How far the answer is off, in units of the target."""
        return abs(example.answer.numbers[0] - answer.numbers[0])

    def measures(self, examples: Sequence[Example], policy: Policy) -> list[task.Measured]:
        """Mean absolute error, and R² = 1 - Σ(y - ŷ)² / Σ(y - ȳ)²."""
        answers = policy.answer([e.given for e in examples])
        y = np.array([e.answer.numbers[0] for e in examples])
        error = y - np.array([a.numbers[0] for a in answers])
        spread = float(((y - y.mean()) ** 2).sum()) or 1.0
        return [
            task.Measured(self.measure, float(np.abs(error).mean()), "lower"),
            task.Measured("R²", 1 - float((error**2).sum()) / spread),
        ]

    def baselines(self, train: Sequence[Example]) -> Mapping[str, Policy]:
        """The mean of the train part."""
        mean = statistics.fmean(e.answer.numbers[0] for e in train)
        return {"mean of train": task.Constant(_turn("assistant", [mean]))}

    def question(self, text: str) -> Sequence[Turn]:
        """The turns of a JSON list of the other columns."""
        return (_turn("user", typed_numbers(text).ravel().tolist()),)


def _turn(role: str, values: Iterable[Any], *, learn: bool = False) -> Turn:
    """A turn of numbers; a table of text gives them as text."""
    return Turn(role, tuple(Number(float(value)) for value in values), learn)


class Codec:
    """Mean and deviation of every column and of the target, from the train part."""

    ragged: tuple[str, ...] = ()
    outputs = 1

    def __init__(self, mean: Array, deviation: Array) -> None:
        self.mean, self.deviation = mean, deviation  # (features + 1,), the target last
        self.features = len(mean) - 1

    @classmethod
    def fit(cls, examples: Iterable[Example]) -> Codec:
        """Learn the scale of the examples."""
        table = np.stack([np.append(_values(e), _target(e)) for e in examples])
        deviation = table.std(axis=0)
        return cls(table.mean(axis=0), np.where(deviation > 0, deviation, 1.0))

    def encode(self, example: Example) -> Encoded:
        """``features`` (n,) and ``target`` (), float64; NaN is the target of a question."""
        values = _values(example)
        if len(values) != self.features:
            raise ModelwrightError(f"{len(values)} numbers are given, {self.features} are meant")
        return {"features": values, "target": np.array(_target(example))}

    def example(self, encoded: Encoded) -> Example:
        """The example that ``encode`` was given."""
        target = float(encoded["target"])
        given = _turn("user", np.asarray(encoded["features"]).tolist())
        learned = _turn("assistant", [target], learn=True)
        return Example((given,) if np.isnan(target) else (given, learned))

    def tensors(self, columns: Columns) -> dict[str, Tensor]:
        """``features`` (B, n) and ``target`` (B,), scaled, float32."""
        table = np.column_stack([np.asarray(columns[name]) for name in ("features", "target")])
        scaled = torch.from_numpy(((table - self.mean) / self.deviation).astype(np.float32))
        return {"features": scaled[:, :-1], "target": scaled[:, -1]}

    def decode(self, outputs: Tensor) -> list[Turn]:
        """Outputs (B, 1) as numbers in the target's unit."""
        found = outputs[:, 0].double().cpu().numpy() * self.deviation[-1] + self.mean[-1]
        return [_turn("assistant", [value]) for value in found.tolist()]

    def save(self) -> dict[str, bytes]:
        """``scale.json``."""
        scale = {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}
        return {"scale.json": json.dumps(scale).encode()}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Codec:
        """Read what ``save`` wrote."""
        scale = json.loads(files["scale.json"])
        return cls(np.array(scale["mean"]), np.array(scale["deviation"]))


def _values(example: Example) -> Array:
    values = np.array([n for t in example.turns if not t.learn for n in t.numbers])
    if not np.isfinite(values).all():
        raise ModelwrightError("the numbers hold NaN or infinity; repair or remove the row")
    return values


def _target(example: Example) -> float:
    return next((n for t in example.turns if t.learn for n in t.numbers), float("nan"))


class Objective:
    """Half the squared error of the scaled target; rows without one cost and count nothing."""

    packs = False
    draws = False

    def __init__(self, codec: Any) -> None:
        self.codec = codec

    def collate(self, columns: Columns, generator: torch.Generator) -> Batch:  # noqa: ARG002
        """``features`` are the input, ``target`` (B,) what is learned."""
        tensors = self.codec.tensors(columns)
        target = tensors.pop("target")
        return Batch(tensors, {"target": target}, int(target.isfinite().sum()))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Σ (z - y)² / 2 over the rows that have a target."""
        target = batch.targets["target"]
        error: Tensor = model(**batch.inputs)[:, 0].float() - target
        return error.where(target.isfinite(), 0.0).square().sum() / 2
