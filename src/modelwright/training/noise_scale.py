"""The gradient noise scale: how large a batch still pays (arXiv:1812.06162, appendix A).

The gradient of B items has the expected squared norm |G|^2 + S / B, with G the gradient of
them all and S the summed variance of the gradient of one. Two batch sizes give both unknowns.
Below the noise scale S / |G|^2 a doubled batch nearly halves the steps that are needed; far
above it, it saves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from modelwright import runtime
from modelwright.training.train import Trainer, compute
from modelwright.types import Batch, Columns, rows_in, take

PARTS = 8  # micro-batches that a step is cut into where it has but one


@dataclass(frozen=True)
class NoiseScale:
    """Unbiased estimates: ``signal`` |G|^2 and ``noise`` S, from the gradients of one step.

    Either can be below zero by chance. Means over several steps are to be taken of the two, and
    only then their ratio, as in the source: a ratio of noisy numbers is biased.
    """

    signal: float
    noise: float

    @property
    def items(self) -> float:
        """S / |G|^2 in items of the objective (tokens, images); infinite without a signal."""
        return max(0.0, self.noise) / self.signal if self.signal > 0 else float("inf")


def noise_scale(squared_norms: Sequence[float], counts: Sequence[int], whole: float) -> NoiseScale:
    """The estimates of one step's micro-batches (equations A.2 and A.3 of the source).

    Args:
        squared_norms: of each micro-batch's mean gradient.
        counts: items of each.
        whole: squared norm of the mean gradient of all of them together.

    Returns:
        With B the items of all and 1/b the mean of 1 / counts, which is what the noise of
        unlike micro-batches goes with: S = (mean of the squared norms - whole) / (1/b - 1/B)
        and |G|^2 = whole - S / B.

    Raises:
        ValueError: fewer than two micro-batches, which say nothing about noise.
    """
    if len(counts) < 2 or len(counts) != len(squared_norms):
        raise ValueError("the noise scale needs the squared norms and counts of two micro-batches")
    total = sum(counts)
    small = sum(1 / count for count in counts) / len(counts)
    noise = (sum(squared_norms) / len(counts) - whole) / (small - 1 / total)
    return NoiseScale(signal=whole - noise / total, noise=noise)


def measured_noise_scale(trainer: Trainer, step: int) -> NoiseScale | None:
    """The estimates for the examples of ``step`` at the trainer's parameters as they are.

    Costs about as much as a step, and two gradients in memory. Gradients, parameters and the
    random numbers of later steps are left as they were. Dropout acts as in training.

    Returns:
        None when the step has but one example, and where several processes train: the loop's
        own exchange of gradients is not for these.
    """
    if not trainer.world.alone:
        return None
    seed = runtime.derived_seed(trainer.seed, "noise scale", step)
    generator = torch.Generator().manual_seed(seed)
    batches = [trainer.objective.collate(c, generator) for c in _cut(trainer.examples(step))]
    batches = [batch for batch in batches if batch.count]
    if len(batches) < 2:
        return None
    norms: list[float] = []
    total: list[Tensor] = []
    kept = [(buffer, buffer.clone()) for buffer in trainer.model.buffers()]
    for batch in batches:
        gradient = _gradient(trainer, batch, seed)
        norms.append(_squared_norm(gradient) / batch.count**2)
        total = list(torch._foreach_add(total, gradient)) if total else gradient
    for buffer, value in kept:  # the running statistics of batch norms went on
        buffer.copy_(value)
    counts = [batch.count for batch in batches]
    return noise_scale(norms, counts, _squared_norm(total) / sum(counts) ** 2)


def _cut(parts: Sequence[Columns]) -> Sequence[Columns]:
    """The micro-batches of a step; a single one is cut into some."""
    if len(parts) > 1:
        return parts
    rows = rows_in(parts[0])
    return [take(parts[0], part) for part in np.array_split(np.arange(rows), min(PARTS, rows))]


def _gradient(trainer: Trainer, batch: Batch, seed: int) -> list[Tensor]:
    """The gradient of a batch's summed loss, given back instead of kept in the parameters."""
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]
    device = trainer.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        with compute(trainer.precision, device):
            loss = trainer.objective.loss(trainer.model, batch.to(device))
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]


def _squared_norm(tensors: list[Tensor]) -> float:
    return float(torch.stack(list(torch._foreach_norm(tensors))).double().square().sum())
