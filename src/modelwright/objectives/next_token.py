"""Predict the next token: pretraining on documents, and fine-tuning on the turns to learn.

loss = - sum over learned positions t of log p(token_t | tokens_<t), in nats.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modelwright.types import Batch, Codec, Columns

name = "next_token"
item = "token"
needs = "token_bytes"  # of the codec


class Objective:
    """Cross-entropy of the next token, over the tokens marked ``learn``."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.token_bytes: Any = codec.token_bytes  # type: ignore[attr-defined]

    def collate(self, columns: Columns, generator: torch.Generator) -> Batch:  # noqa: ARG002
        """Inputs ``tokens`` (B, T); targets (B, T) with -100 where nothing is learned."""
        tensors = self.codec.tensors(columns)
        tokens, learn = tensors["tokens"], tensors["learn"]
        targets = tokens[:, 1:].masked_fill(~learn[:, 1:], -100)
        chosen = targets[targets >= 0]
        spelled = int(np.asarray(self.token_bytes)[chosen.numpy()].sum())
        return Batch(
            {"tokens": tokens[:, :-1]},
            {"tokens": targets},
            count=len(chosen),
            bytes=spelled,
            computed=targets.numel(),
        )

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The negative log-likelihood of the learned tokens, summed, in nats."""
        targets = batch.targets["tokens"].flatten()
        learned = (targets >= 0).nonzero().squeeze(1)
        hidden: Tensor = model.hidden(**batch.inputs).flatten(0, 1)  # type: ignore[operator]
        # Only learned positions reach the head: in fine-tuning most of the batch is given.
        if len(learned) < len(targets):
            hidden, targets = hidden[learned], targets[learned]
        loss: Tensor = model.negative_log_likelihood(hidden, targets)  # type: ignore[operator]
        return loss
