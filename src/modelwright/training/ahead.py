"""Batches of a small model, made several at a time: one by one they cost a tenth of its step."""

from __future__ import annotations

import torch
from torch import Tensor

from modelwright.training.examples import Examples
from modelwright.types import Batch, Objective, join, rows_in

STEPS = 8  # whose batches are made at once; with 16 they leave the nearest memory and cost more
LARGEST = 2**20  # bytes of a batch: making a larger one costs its bytes, not its calls
ALIGNED = 64  # bytes: products may round otherwise where rows begin elsewhere


class Ahead:
    """The batches of ``STEPS`` steps from one call of the objective, cut into views.

    Their values are those of batches made one by one. Which steps are made together depends on
    their numbers alone, so a resumed training reads the same addresses of the same blocks.
    """

    def __init__(self, examples: Examples, objective: Objective) -> None:
        self.examples, self.objective = examples, objective
        self._fits: bool | None = None  # not known before the first
        self._first, self._made = 0, list[Batch]()

    def __call__(self, step: int) -> Batch | None:
        """The one batch of a step of the plan; None where it cannot be one of several."""
        if not 0 <= step - self._first < len(self._made):
            if self._fits is None:
                self._fits = self._cut(range(step, step + 1), LARGEST) is not None
            self._first = step - step % STEPS
            steps = range(self._first, self._first + STEPS)
            made = self._cut(steps, STEPS * LARGEST) if self._fits else None
            self._fits, self._made = made is not None, made or []
        return self._made[step - self._first] if self._made else None

    def _cut(self, steps: range, limit: int) -> list[Batch] | None:
        parts = [self.examples(step) for step in steps]
        if any(len(part) != 1 for part in parts):
            return None
        columns = join([part for (part,) in parts])
        rows = rows_in(columns)
        each = rows // len(steps)
        batch = self.objective.collate(columns, torch.Generator())
        tensors = [*batch.inputs.values(), *batch.targets.values()]
        alike = (batch.count, batch.bytes, batch.computed) == (rows, 0, 0)
        if not alike or not all(isinstance(t, Tensor) and len(t) == rows for t in tensors):
            return None
        sizes = [t.nbytes // len(steps) for t in tensors]
        if sum(t.nbytes for t in tensors) > limit or any(size % ALIGNED for size in sizes):
            return None
        return _views(batch, each, len(steps))


def _views(batch: Batch, rows: int, count: int) -> list[Batch]:
    """The batch as ``count`` of ``rows`` rows each."""
    inputs = {k: torch.split(v, rows) for k, v in batch.inputs.items()}
    targets = {k: torch.split(v, rows) for k, v in batch.targets.items()}
    return [
        Batch({k: v[i] for k, v in inputs.items()}, {k: v[i] for k, v in targets.items()}, rows)
        for i in range(count)
    ]
