"""A task with two answers: which digit a picture shows, and whether it is even."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.tasks import task
from modelwright.tasks.vector_classification import missing_column, typed_numbers
from modelwright.types import (
    Array,
    Batch,
    Columns,
    Encoded,
    Example,
    Image,
    Label,
    Policy,
    Row,
    Turn,
)

ANSWERS = ("digit", "parity")


class DigitAndParity(task.Task):
    """Rows with ``pixels`` and a ``label``, a digit."""

    codec = __name__
    objective = __name__
    model = "mlp"
    measure = "both right"
    specimen: ClassVar[Row] = {
        "id": "a",
        "pixels": np.arange(12, dtype=np.uint8).reshape(3, 4),
        "label": "7",
    }

    def examples(self, row: Row) -> Iterator[Example] | str:
        """One example: the picture is given, both answers are to be learned."""
        for name in ("pixels", "label"):
            if name not in row:
                raise missing_column(row, name, "is read", name)
        digit = str(row["label"])
        if not digit.isdecimal():
            return "no digit"
        parity = "odd" if int(digit) % 2 else "even"
        answer = Turn("assistant", (Label(digit), Label(parity)), learn=True)
        return iter([Example((Turn("user", (Image(np.asarray(row["pixels"])),)), answer))])

    def grade(self, example: Example, answer: Turn) -> float:
        """1 where both are right, else 0."""
        return float(answer.labels == example.answer.labels)

    def measures(self, examples: Sequence[Example], policy: Policy) -> list[task.Measured]:
        """The share that is right, of each answer and of both."""
        said = np.array([turn.labels for turn in policy.answer([e.given for e in examples])])
        right = said == np.array([e.answer.labels for e in examples])
        shares = zip(("digit right", "parity right"), right.mean(axis=0).tolist(), strict=True)
        both = task.Measured(self.measure, float(right.all(axis=1).mean()))
        return [*(task.Measured(*share) for share in shares), both]

    def question(self, text: str) -> Sequence[Turn]:
        """The turns of pixels typed as a nested JSON list."""
        return (Turn("user", (Image(typed_numbers(text).astype(np.uint8)),)),)


class Codec:
    """The shape of a picture, and the labels of each answer, from the train part."""

    ragged: tuple[str, ...] = ()

    def __init__(self, shape: Sequence[int], names: Sequence[Sequence[str]]) -> None:
        self.shape, self.names = tuple(shape), [list(of) for of in names]
        self.features = int(np.prod(self.shape))
        self.sizes = [len(of) for of in self.names]
        self.outputs = sum(self.sizes)

    @classmethod
    def fit(cls, examples: Iterable[Example]) -> Codec:
        """Learn the labels of the examples."""
        pairs = [(_pixels(e).shape, e.answer.labels) for e in examples]
        return cls(
            pairs[0][0], [sorted(set(of)) for of in zip(*(p for _, p in pairs), strict=True)]
        )

    def encode(self, example: Example) -> Encoded:
        """``pixels`` uint8 and ``answers`` (2,) int64, -1 in a question."""
        pixels = _pixels(example)
        if pixels.shape != self.shape:
            raise ModelwrightError(f"a picture of {pixels.shape}; {self.shape} is meant")
        said = next((t.labels for t in example.turns if t.learn), None)
        numbers = [-1] * len(self.names) if said is None else list(map(_index, self.names, said))
        return {"pixels": pixels, "answers": np.array(numbers, dtype=np.int64)}

    def example(self, encoded: Encoded) -> Example:
        """The example that ``encode`` was given."""
        given = Turn("user", (Image(np.asarray(encoded["pixels"])),))
        numbers = np.asarray(encoded["answers"]).tolist()
        return Example((given,) if -1 in numbers else (given, self._turn(numbers, learn=True)))

    def tensors(self, columns: Columns) -> dict[str, Tensor]:
        """``features`` (B, H, W) in 0..1 and ``answers`` (B, 2)."""
        pixels = np.asarray(columns["pixels"]).astype(np.float32) / 255
        answers = np.array(columns["answers"], dtype=np.int64)
        return {"features": torch.from_numpy(pixels), "answers": torch.from_numpy(answers)}

    def decode(self, outputs: Tensor) -> list[Turn]:
        """The likeliest label of each answer, of logits (B, all labels)."""
        best = torch.stack([of.argmax(1) for of in torch.split(outputs, self.sizes, 1)], dim=1)
        return [self._turn(numbers) for numbers in best.tolist()]

    def _turn(self, numbers: Sequence[int], *, learn: bool = False) -> Turn:
        labels = (Label(of[i]) for of, i in zip(self.names, numbers, strict=True))
        return Turn("assistant", tuple(labels), learn)

    def save(self) -> dict[str, bytes]:
        """``answers.json``."""
        return {"answers.json": json.dumps({"shape": self.shape, "names": self.names}).encode()}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Codec:
        """Read what ``save`` wrote."""
        return cls(**json.loads(files["answers.json"]))


def _pixels(example: Example) -> Array:
    (pixels,) = (p.pixels for t in example.turns for p in t.parts if isinstance(p, Image))
    return np.asarray(pixels, dtype=np.uint8)


def _index(names: Sequence[str], name: str) -> int:
    if name not in names:
        raise ModelwrightError(f"label {name!r} is not in the train split; add rows of it")
    return names.index(name)


class Objective:
    """The sum of both answers' cross-entropies; a question costs and counts nothing."""

    packs = False
    draws = False

    def __init__(self, codec: Any) -> None:
        self.codec = codec

    def collate(self, columns: Columns, generator: torch.Generator) -> Batch:  # noqa: ARG002
        """``features`` are the input, ``answers`` (B, 2) the targets."""
        tensors = self.codec.tensors(columns)
        answers = tensors.pop("answers")
        return Batch(tensors, {"answers": answers}, int((answers[:, 0] >= 0).sum()))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy in nats, summed."""
        logits: Tensor = model(**batch.inputs).float()
        pairs = zip(
            torch.split(logits, self.codec.sizes, 1), batch.targets["answers"].T, strict=True
        )
        costs = [F.cross_entropy(z, y, reduction="sum", ignore_index=-1) for z, y in pairs]
        return torch.stack(costs).sum()
