"""Which move to make, and how the game will end (AlphaZero, arXiv:1712.01815, equation 1).

With logits z of the moves, the legal ones A, shares π of the moves played (one move of a recorded
game, the visits of a search in self-play), the value v of the position and the result r for the
player to move, -1, 0 or 1:

    loss = - Σ_{a in A} π_a log p_a + w (v - r)^2 + κ KL(q ‖ p)
    p_a = exp(z_a) / Σ_{b in A} exp(z_b),   KL(q ‖ p) = Σ_{a in A} q_a log(q_a / p_a)

in nats and summed over the positions; w is ``value_weight``. A position whose result is not known
costs its move alone. Moves that are not legal have no probability, so nothing is learned of them.
Positions of self-play have the policy q that it began with, of imitation; κ is ``pull_weight``
times the position's ``pull``, which fades with the generations: ``play/self_play.py``.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from modelwright.types import Batch, Codec, Columns, ragged_column

needs = "seen_as"  # of the codec: how a network sees a game


class Objective:
    """Cross-entropy over the legal moves, the squared error of the value, and self-play's pull.

    Args:
        codec: of a game.
        value_weight: w.
        pull_weight: κ of the first generation of self-play: what holds it to the policy that it
            began with.
    """

    packs = True  # rows differ in legal moves only, which are no more to compute
    draws = False

    def __init__(
        self,
        codec: Codec,
        *,
        value_weight: Annotated[float, Field(ge=0)] = 1.0,
        pull_weight: Annotated[float, Field(ge=0)] = 0.0,
    ) -> None:
        self.codec, self.value_weight, self.pull_weight = codec, value_weight, pull_weight

    def collate(self, columns: Columns, generator: torch.Generator) -> Batch:  # noqa: ARG002
        """``features`` (B, R, C, P) are the input; a batch counts the positions with a move.

        Targets of self-play that is pulled are also ``imitated`` (B, L), the probabilities q of
        the legal moves, and ``pull`` (B,).
        """
        tensors = self.codec.tensors(columns)
        features = tensors.pop("features")
        if "imitated" in columns:
            values = np.array(ragged_column(columns, "imitated").values, dtype=np.float32)
            inside = tensors["legal"] >= 0
            tensors["imitated"] = torch.zeros(inside.shape)
            tensors["imitated"][inside] = torch.from_numpy(values)
            tensors["pull"] = torch.from_numpy(np.array(columns["pull"], dtype=np.float32))
        count = int((tensors["policy"].sum(1) > 0).sum())
        return Batch({"features": features}, tensors, count, computed=len(features))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The sum over the positions with a move to learn, in nats."""
        logits, value = _split(model(**batch.inputs))
        targets = batch.targets
        policy, result = targets["policy"], targets["value"]
        every = legal_log_softmax(logits, targets["legal"])
        chances = every.where(policy > 0, 0.0)
        asked = policy.sum(1) > 0
        known = asked & result.isfinite()
        error = (value - result.nan_to_num()).square().where(known, 0.0)
        loss = error.sum() * self.value_weight - (policy * chances).sum()
        if "imitated" not in targets:
            return loss
        of = every.where(targets["legal"] >= 0, 0.0)
        apart = F.kl_div(of, targets["imitated"], reduction="none").sum(1)
        return loss + self.pull_weight * (targets["pull"] * apart).where(asked, 0.0).sum()

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """(B, moves + 2): log-probabilities (-inf: not legal), the value, the player to move."""
        logits, value = _split(model(**batch.inputs))
        legal = batch.targets["legal"]
        chances = legal_log_softmax(logits, legal)
        found = torch.full((len(logits), logits.shape[1] + 1), -torch.inf, device=logits.device)
        # What lies beyond a row's moves goes to a column of its own, and away.
        found.scatter_(1, legal.where(legal >= 0, logits.shape[1]), chances)
        beside = torch.stack((value, batch.targets["turn"].float()), 1)
        return torch.cat((found[:, :-1], beside), 1)


def _split(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """The logits of all moves, and the value."""
    outputs = outputs.float()
    return outputs[:, :-1], outputs[:, -1]


def legal_log_softmax(logits: Tensor, legal: Tensor) -> Tensor:
    """Logarithms of the probabilities of the moves ``legal`` (B, L), -inf where that is -1."""
    chosen = logits.gather(1, legal.clamp(min=0))
    return chosen.masked_fill(legal < 0, -torch.inf).log_softmax(1)
