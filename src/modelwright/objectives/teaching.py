"""Learning from a teacher's probabilities beside the data (arXiv:1503.02531).

With logits z of the student and t of the teacher, p(z) = softmax(z / T) and a share a:

    loss = (1 - a) L + a T^2 KL(p(t) || p(z)),   KL in nats, summed over what is learned

where L is the loss without a teacher. T^2 keeps the gradient of the second part as large as that
of the first when T grows. The teacher speaks in training alone: a held-out loss is L.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from modelwright.errors import ModelwrightError

ROWS = 256  # whose logits are made at once, where there are many


class Teaching:
    """A teacher with its temperature and share.

    Args:
        source: a run, or a published checkpoint; whoever trains gives its model as ``model``.
        temperature: T, above 0.
        share: a, above 0 and at most 1.
    """

    def __init__(self, source: str, temperature: float, share: float) -> None:
        if temperature <= 0:
            raise ModelwrightError(f"objective: temperature {temperature} is not above 0")
        if not 0 < share <= 1:
            raise ModelwrightError(f"objective: teacher_weight {share} is not in (0, 1]")
        self.source, self.temperature, self.share = source, temperature, share
        self.model: nn.Module | None = None

    @classmethod
    def of(cls, source: str | None, temperature: float, share: float) -> Teaching | None:
        """What an objective's options say; None without a teacher."""
        return None if source is None else cls(source, temperature, share)

    def teacher(self, student: nn.Module) -> nn.Module | None:
        """The teacher where it is to be heard: while the student is trained."""
        return self.model if student.training else None

    def joined(self, loss: Tensor, soft: Tensor) -> Tensor:
        """The loss of both, from that of the data and the sum of ``divergence``."""
        return (1 - self.share) * loss + self.share * soft

    def divergence(self, logits: Tensor, meant: Tensor) -> Tensor:
        """T^2 KL of rows of logits (n, C) from the teacher's, (n,) in nats; C = 1 is a sigmoid."""
        if logits.shape[-1] == 1:
            logits, meant = (F.pad(z, (1, 0)) for z in (logits, meant))
        t = self.temperature
        log_p, log_q = ((z.float() / t).log_softmax(-1) for z in (meant, logits))
        return t * t * (log_p.exp() * (log_p - log_q)).sum(-1)

    def beside(
        self,
        loss: Tensor,
        student: nn.Module,
        hidden: Tensor,
        inputs: Mapping[str, Tensor],
        rows: Tensor | None = None,
    ) -> Tensor:
        """A loss of tokens with what the teacher says of them; the loss itself if it is not heard.

        Args:
            loss: of the data, summed.
            student: whose ``head`` makes logits of ``hidden``.
            hidden: (n, width), its stream where tokens are learned.
            inputs: of the batch, which the teacher reads as well.
            rows: (n,) the positions of ``hidden`` in the flattened batch; None: all of them.
        """
        teacher: Any = self.teacher(student)
        if teacher is None:
            return loss
        with torch.no_grad():
            meant: Tensor = teacher.hidden(**inputs).flatten(0, 1)
        own: Any = student
        told = meant if rows is None else meant[rows]
        return self.joined(loss, self.over_rows(hidden, told, own.head, teacher.head))

    def over_rows(
        self,
        hidden: Tensor,
        meant: Tensor,
        head: Callable[[Tensor], Tensor],
        heads: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """The sum of ``divergence`` over rows of two streams (n, width), each by its own head.

        A few rows at a time, whose logits are made again in the backward pass rather than kept.
        """

        def part(ours: Tensor, theirs: Tensor) -> Tensor:
            with torch.no_grad():
                logits = heads(theirs)
            return self.divergence(head(ours), logits).sum()

        total = hidden.new_zeros((), dtype=torch.float32)
        for ours, theirs in zip(torch.split(hidden, ROWS), torch.split(meant, ROWS), strict=True):
            piece: Tensor = checkpoint(part, ours, theirs, use_reentrant=False)
            total = total + piece
        return total
