"""Write a target, given its source: translation, summaries, and whatever maps text to text.

    loss = - sum over target positions t of log p(target_t | source, target_<t), in nats.

Label smoothing (arXiv:1512.00567) asks for (1 - e) of the probability on the target and spreads e
evenly over the V tokens of the vocabulary:

    loss = - sum over t of [(1 - e) log p(target_t) + e / V sum over v of log p(v)].

It holds in training only: what is validated is the likelihood itself. So does a teacher, whose
probabilities are learned beside the targets: ``teaching.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.objectives.teaching import Teaching
from modelwright.types import Batch, Codec, Columns

name = "sequence_to_sequence"
needs = "opening"  # of the codec


class Objective:
    """Cross-entropy of the target's tokens, the end included.

    Nothing is padded: sources stand one after another and so do targets, and each target sees its
    own source alone (law 3). With a ``teacher``, a run or a published checkpoint of the same
    tokenizer, its probabilities are learned beside the targets.
    """

    packs = True
    draws = False

    def __init__(
        self,
        codec: Codec,
        *,
        label_smoothing: float = 0.0,
        teacher: str | None = None,
        temperature: float = 2.0,
        teacher_weight: float = 0.5,
    ) -> None:
        if not 0 <= label_smoothing < 1:
            raise ModelwrightError(
                f"objective {name}: label_smoothing {label_smoothing} is not in [0, 1)"
            )
        self.codec, self.label_smoothing = codec, label_smoothing
        self.teaching = Teaching.of(teacher, temperature, teacher_weight)
        self.token_bytes: Any = codec.text.token_bytes  # type: ignore[attr-defined]

    def collate(self, columns: Columns, generator: torch.Generator) -> Batch:  # noqa: ARG002
        """Inputs ``tokens`` (1, N), ``sources`` (M,) and their bounds; targets (1, N).

        The decoder reads a target from its start token to the one before the end, and learns it
        from the one after the start to the end. What is computed is a token of a source and one of
        a target together, of which there are (M + N) / 2.
        """
        packed = self.codec.tensors(columns)
        tokens, starts = packed["tokens"], packed["starts"]
        first, last = (torch.ones(len(tokens), dtype=torch.bool) for _ in range(2))
        first[starts[:-1]] = False
        last[starts[1:] - 1] = False
        before, after = tokens[last], tokens[first]
        bounds = starts - torch.arange(len(starts))  # every target is one token shorter
        sources = packed["sources"]
        return Batch(
            {
                "tokens": before[None],
                "sources": sources,
                "starts": bounds,
                "source_starts": packed["source_starts"],
            },
            {"tokens": after[None]},
            count=len(after),
            bytes=int(np.asarray(self.token_bytes)[after.numpy()].sum()),
            computed=(len(sources) + len(after) + 1) // 2,
        )

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The negative log-likelihood of the targets, summed, in nats; in training as above."""
        targets = batch.targets["tokens"].flatten()
        hidden: Tensor = model.hidden(**batch.inputs).flatten(0, 1)  # type: ignore[operator]
        smoothing = self.label_smoothing if model.training else 0.0
        loss: Tensor = model.negative_log_likelihood(hidden, targets, smoothing)  # type: ignore[operator]
        if self.teaching is None:
            return loss
        return self.teaching.beside(loss, model, hidden, batch.inputs)
