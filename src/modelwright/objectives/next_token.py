"""Predict the next token: pretraining on documents, and fine-tuning on the turns to learn.

loss = - sum over learned positions t of log p(token_t | tokens_<t), in nats.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modelwright.objectives.teaching import Teaching
from modelwright.types import Array, Batch, Codec, Columns, Ragged

needs = "token_bytes"  # of the codec


class Objective:
    """Cross-entropy of the next token, over the tokens marked ``learn``.

    Nothing is padded: rows of different lengths stand one after another, and no document sees
    another one (law 3). In a window of joined documents the token that ends one begins the next.
    With a ``teacher``, a run or a published checkpoint of the same tokenizer, its probabilities are
    learned beside the tokens: ``teaching.py``.
    """

    packs = True
    draws = False

    def __init__(
        self,
        codec: Codec,
        *,
        teacher: str | None = None,
        temperature: float = 2.0,
        teacher_weight: float = 0.5,
    ) -> None:
        self.codec = codec
        self.teaching = Teaching.of(teacher, temperature, teacher_weight)
        self.token_bytes: Any = codec.token_bytes  # type: ignore[attr-defined]
        self.end: int = codec.end  # type: ignore[attr-defined]

    def collate(self, columns: Columns, generator: torch.Generator) -> Batch:  # noqa: ARG002
        """Inputs ``tokens`` (B, T) with the documents' ``starts``, targets (B, T).

        Targets are -100 where nothing is learned. Rows of different lengths come as one row,
        B = 1.
        """
        tokens, learn = columns["tokens"], columns["learn"]
        if isinstance(tokens, Ragged) and isinstance(learn, Ragged):
            before, after, learned, starts = packed(tokens, learn)
        else:
            tokens, learn = np.asarray(tokens), np.asarray(learn)
            before, after, learned = tokens[:, :-1], tokens[:, 1:], learn[:, 1:]
            begins = before == self.end
            begins[:, 0] = True
            starts = np.append(np.flatnonzero(begins), begins.size)
        targets = np.where(learned, after.astype(np.int64), -100)
        return Batch(
            {
                "tokens": torch.from_numpy(before.astype(np.int64)),
                "starts": torch.from_numpy(starts.astype(np.int64)),
            },
            {"tokens": torch.from_numpy(targets)},
            count=int(np.count_nonzero(learned)),
            bytes=int(np.asarray(self.token_bytes)[after[learned]].sum()),
            computed=targets.size,
        )

    def at(self, batch: Batch, rows: Tensor) -> Batch:
        """What a collated batch has to learn at some of its positions, as one row (1, n).

        ``rows`` (n,) number the positions in the order of the flattened ``tokens``; at -1 nothing
        is learned. The inputs are left out.
        """
        targets = batch.targets["tokens"].flatten()[rows].masked_fill(rows < 0, -100)
        learned = targets[targets >= 0].numpy()
        spelled = int(np.asarray(self.token_bytes)[learned].sum())
        return Batch({}, {"tokens": targets[None]}, count=len(learned), bytes=spelled)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The negative log-likelihood of the learned tokens, summed, in nats."""
        targets = batch.targets["tokens"].flatten()
        learned = (targets >= 0).nonzero().squeeze(1)
        hidden: Tensor = model.hidden(**batch.inputs).flatten(0, 1)  # type: ignore[operator]
        # Only learned positions reach the head: in fine-tuning most of the batch is given.
        if len(learned) < len(targets):
            hidden, targets = hidden[learned], targets[learned]
        loss: Tensor = model.negative_log_likelihood(hidden, targets)  # type: ignore[operator]
        if self.teaching is None:
            return loss
        return self.teaching.beside(loss, model, hidden, batch.inputs, learned)


def packed(tokens: Ragged, learn: Ragged) -> tuple[Array, Array, Array, Array]:
    """Inputs, targets and which are learned, (1, N) each, and the bounds of the rows."""
    first, last = tokens.offsets[:-1], tokens.offsets[1:] - 1
    shifted = np.ones(len(tokens.values), dtype=np.bool_)
    shifted[first] = False
    kept = np.ones(len(tokens.values), dtype=np.bool_)
    kept[last] = False
    values, marks = np.asarray(tokens.values), np.asarray(learn.values)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(tokens.lengths - 1)])
    return values[None, kept], values[None, shifted], marks[None, shifted], starts
