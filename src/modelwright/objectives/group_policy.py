"""Learn from the rewards of answers that the model drew itself: GRPO and RLOO.

Of a question several answers are drawn and rewarded with r_1 .. r_G. With l_t the log-probability
of token t by the model as it is, o_t when the answer was drawn, q_t by the reference, and
p_t = exp(l_t - o_t), an answer of T tokens costs

    grpo   1/T sum_t [ - min(p_t A, clip(p_t) A) + b (exp(q_t - l_t) - (q_t - l_t) - 1) ]
           A_i = (r_i - mean r) / (deviation of r + 1e-4)          (arXiv:2402.03300, equation 3)
    rloo   - min(P A, clip(P) A),   P = exp(sum_t (l_t - o_t))
           A_i = r_i - mean of the other r,   with r less b sum_t (o_t - q_t)   (arXiv:2402.14740)

where clip keeps a ratio within 1 - ``clip`` and 1 + ``clip_high``. Summed over the answers. Of
stored answers, which nobody has rewarded, the loss is their negative log-likelihood, a token an
item: so a validation part says how likely the meant answers are.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from modelwright.objectives.answers import joined, summed, token_log_probabilities
from modelwright.types import Array, Batch, Codec, Columns, ragged_column, rows_in

needs = "token_bytes"  # of the codec
SMALL = 1e-4


class Objective:
    """A clipped policy gradient of groups of answers; a batch counts answers.

    Args:
        codec: of text.
        loss: "grpo" or "rloo".
        kl: b, how strongly the model is held to the reference; 0: there is none.
        clip: how far a ratio may fall before it teaches nothing more.
        clip_high: how far it may rise; left out: as far as ``clip``.
    """

    packs = True
    draws = False

    def __init__(
        self,
        codec: Codec,
        *,
        loss: Literal["grpo", "rloo"] = "grpo",
        kl: Annotated[float, Field(ge=0)] = 0.0,
        clip: Annotated[float, Field(gt=0, lt=1)] = 0.2,
        clip_high: Annotated[float, Field(gt=0)] | None = None,
    ) -> None:
        self.codec, self.kind, self.kl, self.clip = codec, loss, kl, clip
        self.clip_high = clip if clip_high is None else clip_high

    def advantages(self, rewards: Array, apart: Array) -> Array:
        """A of every answer, from rewards (questions, answers) and sum_t (o_t - q_t), alike."""
        if self.kind == "grpo":
            middle, spread = rewards.mean(1, keepdims=True), rewards.std(1, keepdims=True, ddof=1)
            even: Array = (rewards - middle) / (spread + SMALL)
            return even
        r = rewards - self.kl * apart
        others = (r.sum(1, keepdims=True) - r) / (r.shape[1] - 1)
        alone: Array = r - others
        return alone

    def collate(self, columns: Columns, generator: torch.Generator) -> Batch:  # noqa: ARG002
        """Inputs ``tokens`` (1, N) and ``starts``; targets those of ``answers.joined``.

        Of drawn answers also, each (K,), ``old``, ``reference``, ``advantage``, ``share``: 1 / T.
        """
        inputs, targets = joined(ragged_column(columns, "tokens"), ragged_column(columns, "learn"))
        of = targets["of"].numpy()
        computed = inputs["tokens"].numel()
        if "advantage" not in columns:
            return Batch(inputs, targets, len(of), computed=computed)
        lengths = np.bincount(of, minlength=rows_in(columns))
        found = {
            "old": np.asarray(ragged_column(columns, "old").values),
            "reference": np.asarray(ragged_column(columns, "reference").values),
            "advantage": np.asarray(columns["advantage"])[of],
            "share": (1 / lengths[of]),
            "temperature": np.asarray(columns["temperature"])[:1],
        }
        targets |= {k: torch.from_numpy(v.astype(np.float32)) for k, v in found.items()}
        return Batch(inputs, targets, rows_in(columns), computed=computed)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The sum over the answers, of stored ones over their tokens."""
        t = batch.targets
        if "advantage" not in t:
            return -token_log_probabilities(model, batch.inputs, t).sum()
        ours = token_log_probabilities(model, batch.inputs, t, float(t["temperature"]))
        away, advantage = ours - t["old"], t["advantage"]
        if self.kind == "rloo":
            last = len(batch.inputs["starts"]) - 1
            away = summed(away, t["of"], last)
            advantage = summed(advantage * t["share"], t["of"], last)
        ratio = away.exp()
        kept = ratio.clamp(1 - self.clip, 1 + self.clip_high)
        costs = -torch.minimum(ratio * advantage, kept * advantage)
        if self.kind == "rloo":
            return costs.sum()
        if self.kl:
            apart = t["reference"] - ours
            costs = costs + self.kl * (apart.exp() - apart - 1)
        return (costs * t["share"]).sum()
