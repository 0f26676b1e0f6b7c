"""Choose actions: as they were recorded, then as they paid (PPO, arXiv:1707.06347, equation 9).

With p(a) the probability of the action a that was taken, p_old(a) that when it was taken, A its
advantage, v the value, R what the value should have been, and q the policy of imitation:

    loss = - min(r A, clip(r, 1 - ε, 1 + ε) A) + w (v - R)^2 - β H(p) + κ KL(q ‖ p)
    r = p(a) / p_old(a),   H(p) = - Σ_b p(b) log p(b),   KL(q ‖ p) = Σ_b q(b) log(q(b) / p(b))

in nats and summed over the rows; κ is ``pull_weight`` times the row's ``pull``, which fades with
the generations. A row without an advantage is a record: it costs - log p(a), which is imitation
(behaviour cloning). What R is: ``play/rollouts.py``.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from modelwright.types import Batch, Codec, Columns

needs = "labels"  # of the codec: the actions
MADE = ("chance", "advantage", "value", "imitated", "pull")  # columns of rows that were played


class Objective:
    """The clipped surrogate, the value, entropy and the pull towards imitation.

    Args:
        codec: whose labels are the actions.
        clip: ε, how far the probability of an action may go from what it was.
        value_weight: w.
        entropy_weight: β.
        pull_weight: κ of the first generation.
    """

    packs = False
    draws = False

    def __init__(
        self,
        codec: Codec,
        *,
        clip: Annotated[float, Field(gt=0, lt=1)] = 0.2,
        value_weight: Annotated[float, Field(ge=0)] = 0.5,
        entropy_weight: Annotated[float, Field(ge=0)] = 0.01,
        pull_weight: Annotated[float, Field(ge=0)] = 0.0,
    ) -> None:
        self.codec, self.clip, self.value_weight = codec, clip, value_weight
        self.entropy_weight, self.pull_weight = entropy_weight, pull_weight

    def collate(self, columns: Columns, generator: torch.Generator) -> Batch:  # noqa: ARG002
        """``features`` (B, ...) are the input; a batch counts the rows with an action.

        Targets are ``label`` (B,) and, of rows that were played, log ``chance`` (B,),
        ``advantage`` (B,), ``value`` (B,), log ``imitated`` (B, actions) and ``pull`` (B,).
        """
        tensors = self.codec.tensors(columns)
        targets = {"label": tensors.pop("label")}
        count = int(np.count_nonzero(targets["label"].numpy() >= 0))
        if "advantage" in columns:
            made = ((name, np.array(columns[name], dtype=np.float32)) for name in MADE)
            targets |= {name: torch.from_numpy(values) for name, values in made}
        return Batch(tensors, targets, count)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The sum over the rows with an action, in nats."""
        chances, value = self.policy_and_value(model, batch)
        of, label = batch.targets, batch.targets["label"]
        taken = chances.gather(1, label.clamp(min=0)[:, None]).squeeze(1)
        if "advantage" not in of:
            return -taken.where(label >= 0, 0.0).sum()
        ratio = (taken - of["chance"]).exp()
        near = ratio.clamp(1 - self.clip, 1 + self.clip)
        gained = torch.minimum(ratio * of["advantage"], near * of["advantage"])
        error = (value - of["value"]).square()
        entropy = -(chances.exp() * chances).sum(1)
        apart = F.kl_div(chances, of["imitated"], reduction="none", log_target=True).sum(1)
        pull = self.pull_weight * of["pull"] * apart
        costs = self.value_weight * error - gained - self.entropy_weight * entropy + pull
        return costs.where(label >= 0, 0.0).sum()

    @staticmethod
    def policy_and_value(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The logarithms of all actions' probabilities (B, actions), and the values (B,)."""
        outputs = model(**batch.inputs).float()
        return outputs[:, :-1].log_softmax(1), outputs[:, -1]

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Logarithms of probabilities (B, actions), as the codec's ``decode`` reads them."""
        return self.policy_and_value(model, batch)[0]
