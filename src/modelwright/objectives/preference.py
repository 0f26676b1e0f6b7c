"""Prefer one answer to another: DPO, IPO, ORPO, SimPO, and KTO, which needs no pairs.

For a question x with a chosen answer c and a rejected one r, let l(y) = log p(y | x) be what the
model gives an answer in nats, q(y) the same by the reference (the model that the training begins
with), |y| the number of tokens of y, and s(z) = 1 / (1 + exp(-z)). Per pair:

    dpo    - (1 - e) log s(b h) - e log s(-b h),   h = (l(c) - q(c)) - (l(r) - q(r))
           (arXiv:2305.18290, equation 7; e is ``label_smoothing``)
    ipo    (h' - 1 / (2 b))^2,   h' = (l(c) - q(c)) / |c| - (l(r) - q(r)) / |r|
           (arXiv:2310.12036, equation 17, per token as its authors do)
    simpo  - log s(b l(c) / |c| - b l(r) / |r| - g)                 (arXiv:2405.14734, equation 6)
    orpo   - l(c) / |c| - b log s(o(c) - o(r)),   o(y) = log(P / (1 - P)),  P = exp(l(y) / |y|)
           (arXiv:2403.07691, equations 6 and 7)

and per answer, of pairs or of single ones that are good or bad:

    kto    w_good (1 - s(b (l(c) - q(c)))),   w_bad s(b (l(r) - q(r)))      (arXiv:2402.01306)

with KTO's reference point at 0: it is a mean over other answers of the batch, and would make the
cost of a row depend on those beside it. b is ``beta``, g is ``margin``. The gradient moves l alone:
q is computed once, before the training (``pipeline/references.py``). Where no reference is given,
all answers are equally likely by it (q = 0).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.objectives.answers import joined, of_pairs, summed, token_log_probabilities
from modelwright.types import Array, Batch, Codec, Columns, rows_in

needs = "token_bytes"  # of the codec
BETAS = {"dpo": 0.1, "ipo": 0.1, "simpo": 2.0, "orpo": 0.1, "kto": 0.1}
REFERENCE = "reference"  # (rows, 2) float32: q of the chosen and the rejected answer


class Answers(NamedTuple):
    """Pairs of answers: log-probabilities by the model and the reference, and how long they are.

    Each (B, 2) float32, the chosen answer first; a length of 0 says that there is no such answer.
    """

    ours: Tensor
    reference: Tensor
    lengths: Tensor

    @property
    def ratio(self) -> Tensor:
        """Log p(y | x) of the model less that of the reference, (B, 2)."""
        return self.ours - self.reference

    def each(self, values: Tensor) -> Tensor:
        """Values (B, 2) per token."""
        return values / self.lengths.clamp(min=1)


class Objective:
    """One of five losses of answers that are preferred; a batch counts pairs, with "kto" answers.

    Args:
        codec: of text.
        loss: which of them.
        beta: b, how strongly answers are told apart; left out: 0.1, of "simpo" 2.
        label_smoothing: e of "dpo", the share of pairs that are the wrong way round.
        margin: g of "simpo", by which the chosen answer shall lead.
        good: w_good of "kto".
        bad: w_bad of "kto".
    """

    packs = True
    draws = False

    def __init__(
        self,
        codec: Codec,
        *,
        loss: Literal["dpo", "ipo", "simpo", "orpo", "kto"] = "dpo",
        beta: Annotated[float, Field(gt=0)] | None = None,
        label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0,
        margin: Annotated[float, Field(ge=0)] = 1.0,
        good: Annotated[float, Field(gt=0)] = 1.0,
        bad: Annotated[float, Field(gt=0)] = 1.0,
    ) -> None:
        self.codec, self.kind = codec, loss
        self.beta = BETAS[loss] if beta is None else beta
        self.label_smoothing, self.margin, self.good, self.bad = label_smoothing, margin, good, bad
        costs: dict[str, Callable[[Answers], Tensor]] = {
            "dpo": self._dpo,
            "ipo": self._ipo,
            "simpo": self._simpo,
            "orpo": self._orpo,
            "kto": self._kto,
        }
        self._cost = costs[loss]
        self.refers = loss in ("dpo", "ipo", "kto")  # a batch is to have the reference's column

    def collate(self, columns: Columns, generator: torch.Generator) -> Batch:  # noqa: ARG002
        """Inputs ``tokens`` (1, N) and ``starts`` of 2 B conversations, the chosen ones first.

        Targets: those of ``answers.joined``, ``lengths`` and ``reference`` (B, 2).

        Raises:
            ModelwrightError: a row has one answer only, and the loss compares two.
        """
        inputs, targets = joined(*of_pairs(columns))
        rows = rows_in(columns)
        counted = np.bincount(targets["of"].numpy(), minlength=2 * rows)
        lengths = counted.reshape(2, rows).T
        count = int(np.count_nonzero(lengths))
        if self.kind != "kto":
            if count < 2 * rows:
                raise ModelwrightError(
                    f"objective preference: {self.kind} compares two answers, and a row has one"
                    " only; give pairs, or set objective_options.loss to kto"
                )
            count = rows
        reference: Array = np.zeros((rows, 2), dtype=np.float32)
        if self.refers and REFERENCE in columns:
            reference = np.asarray(columns[REFERENCE])
        targets |= {
            "lengths": torch.from_numpy(lengths.astype(np.float32)),
            REFERENCE: torch.from_numpy(reference.astype(np.float32)),
        }
        return Batch(inputs, targets, count, computed=inputs["tokens"].numel())

    def answers(self, model: nn.Module, batch: Batch) -> Answers:
        """What a model gives the answers of a batch."""
        targets = batch.targets
        lengths = targets["lengths"]
        tokens = token_log_probabilities(model, batch.inputs, targets)
        ours = summed(tokens, targets["of"], 2 * len(lengths)).view(2, -1).T
        return Answers(ours, targets[REFERENCE], lengths)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The sum over pairs, with "kto" over answers."""
        return self._cost(self.answers(model, batch)).sum()

    def rewards(self, model: nn.Module, batch: Batch) -> Tensor:
        """What a model makes of the two answers, (B, 2): the higher one is the one it prefers.

        b (l(y) - q(y)), of "ipo" per token; of "simpo" and "orpo" b l(y) / |y|.
        """
        found = self.answers(model, batch)
        scores = found.ratio if self.refers else found.ours
        return self.beta * (scores if self.kind in ("dpo", "kto") else found.each(scores))

    def _dpo(self, found: Answers) -> Tensor:
        h = self.beta * _lead(found.ratio)
        e = self.label_smoothing
        return -(1 - e) * F.logsigmoid(h) - e * F.logsigmoid(-h)

    def _ipo(self, found: Answers) -> Tensor:
        return (_lead(found.each(found.ratio)) - 1 / (2 * self.beta)).square()

    def _simpo(self, found: Answers) -> Tensor:
        return -F.logsigmoid(self.beta * _lead(found.each(found.ours)) - self.margin)

    def _orpo(self, found: Answers) -> Tensor:
        each = found.each(found.ours)
        odds = each - _log_rest(each)
        return -each[:, 0] - self.beta * F.logsigmoid(_lead(odds))

    def _kto(self, found: Answers) -> Tensor:
        value = torch.sigmoid(self.beta * found.ratio)
        costs = torch.stack((self.good * (1 - value[:, 0]), self.bad * value[:, 1]), 1)
        return costs.where(found.lengths > 0, 0.0)


def _lead(scores: Tensor) -> Tensor:
    """By how much the chosen answer leads, (B,), of scores (B, 2)."""
    return scores[:, 0] - scores[:, 1]


def _log_rest(log_p: Tensor) -> Tensor:
    """log(1 - p) of log p < 0, exact at both ends."""
    x = log_p.clamp(max=-1e-6)
    near: Tensor = torch.log(-torch.expm1(x))
    return torch.where(x > -0.6931, near, torch.log1p(-x.exp()))


def of_reference(columns: Columns, values: Array) -> Columns:
    """Columns with the reference's log-probabilities (rows, 2) beside the answers."""
    found: dict[str, Any] = {**columns, REFERENCE: values}
    return found
