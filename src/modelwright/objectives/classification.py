"""Choose one of a closed set of labels.

Softmax cross-entropy of logits z (C) and label y, smoothed by ε:

    loss = - Σ_c q_c log p_c,   p_c = exp(z_c) / Σ_k exp(z_k),   q_c = (1 - ε) [c = y] + ε / C

Sigmoid cross-entropy of one logit z for two labels y in {0, 1} (or of C logits, each asking
"is it c?", summed over c):

    loss = - q log σ(z) - (1 - q) log(1 - σ(z)),   σ(z) = 1 / (1 + exp(-z)),   q = (1 - ε) y + ε / 2

Both in nats and summed over the examples. A mixture of two examples (mixup, cutmix) costs
λ loss(z, y) + (1 - λ) loss(z, y'), with both labels and the share λ of the first.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.objectives.teaching import Teaching
from modelwright.types import Batch, Codec, Columns

needs = "labels"  # of the codec


class Objective:
    """Cross-entropy of the label; rows without one (questions) cost and count nothing.

    A model of one output is always trained with the sigmoid, since the softmax of a single
    logit is constant; ``sigmoid`` asks for it with more outputs as well. With a ``teacher``, a run
    or a published checkpoint, its probabilities are learned beside the labels: ``teaching.py``.
    """

    mixes = True  # a row may have two labels

    def __init__(
        self,
        codec: Codec,
        *,
        label_smoothing: float = 0.0,
        sigmoid: bool = False,
        teacher: str | None = None,
        temperature: float = 2.0,
        teacher_weight: float = 0.5,
    ) -> None:
        if not 0 <= label_smoothing < 1:
            raise ModelwrightError(
                f"objective classification: label_smoothing {label_smoothing} is not in [0, 1)"
            )
        if teacher is not None and sigmoid:
            raise ModelwrightError(
                "objective classification: a teacher's labels exclude each other; leave out sigmoid"
            )
        self.teaching = Teaching.of(teacher, temperature, teacher_weight)
        self.codec, self.label_smoothing, self.sigmoid = codec, label_smoothing, sigmoid
        self.packs: bool = getattr(codec, "packs", False)
        self.draws = False
        self.highest = -1  # label number that was collated

    def collate(self, columns: Columns, generator: torch.Generator) -> Batch:  # noqa: ARG002
        """The codec's tensors are the inputs, all but ``label`` (B,), the target.

        Columns ``other`` and ``weight`` (B,), of mixtures, are targets as well.
        """
        tensors = self.codec.tensors(columns)
        label = tensors.pop("label")
        computed = len(tensors[self.codec.ragged[0]]) if self.packs else 0
        numbers = label.numpy()  # here, not in the loss: there a GPU would have to be waited for
        self.highest = max(self.highest, int(np.maximum.reduce(numbers, initial=-1)))
        count = int(np.count_nonzero(numbers >= 0))
        targets = {"label": label}
        if "other" in columns:
            other, weight = np.asarray(columns["other"]), np.asarray(columns["weight"])
            targets |= {"other": torch.from_numpy(other), "weight": torch.from_numpy(weight)}
        return Batch(tensors, targets, count, computed=computed)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The cross-entropy summed over the labelled examples, in nats."""
        found = model(**batch.inputs)
        if isinstance(found, tuple):  # in training: the logits of a second head as well
            logits, auxiliary = found
            weight: float = model.auxiliary_weight  # type: ignore[assignment]
            loss = self._loss(logits, batch) + weight * self._loss(auxiliary, batch)
            return self._taught(model, batch, logits, loss)
        return self._taught(model, batch, found, self._loss(found, batch))

    def _taught(self, model: nn.Module, batch: Batch, logits: Tensor, loss: Tensor) -> Tensor:
        """The loss with what the teacher says of the labelled examples."""
        teacher = None if self.teaching is None else self.teaching.teacher(model)
        if self.teaching is None or teacher is None:
            return loss
        with torch.no_grad():
            meant = teacher(**batch.inputs)
        apart = self.teaching.divergence(logits, meant)
        return self.teaching.joined(loss, apart.where(batch.targets["label"] >= 0, 0.0).sum())

    def _loss(self, logits: Tensor, batch: Batch) -> Tensor:
        logits, label = logits.float(), batch.targets["label"]
        outputs = logits.shape[1]
        if not torch.compiler.is_compiling() and self.highest >= max(
            outputs, 2 if outputs == 1 else 0
        ):
            raise ModelwrightError(
                f"objective classification: label number {self.highest}, but the model has"
                f" {outputs} outputs; set model.classes or model.outputs to the number of labels"
            )
        if "other" in batch.targets:
            weight = batch.targets["weight"]
            first, second = self._costs(logits, label), self._costs(logits, batch.targets["other"])
            return (weight * first + (1 - weight) * second).sum()
        if outputs > 1 and not self.sigmoid:
            return F.cross_entropy(
                logits,
                label,
                reduction="sum",
                ignore_index=-1,
                label_smoothing=self.label_smoothing,
            )
        return self._costs(logits, label).sum()

    def _costs(self, logits: Tensor, label: Tensor) -> Tensor:
        """The cost of every example, shape (B,); 0 for those without a label."""
        outputs = logits.shape[1]
        if outputs > 1 and not self.sigmoid:
            return F.cross_entropy(
                logits,
                label,
                reduction="none",
                ignore_index=-1,
                label_smoothing=self.label_smoothing,
            )
        known, label = (label >= 0)[:, None], label.clamp(min=0)[:, None]
        chosen = label if outputs == 1 else label == torch.arange(outputs, device=label.device)
        target = (1 - self.label_smoothing) * chosen.float() + self.label_smoothing / 2
        logits = logits.where(known, 0.0)  # which costs log 2, and teaches nothing
        cost = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return cost.where(known, 0.0).sum(dim=1)
