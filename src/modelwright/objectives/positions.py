"""Choose positions of a text: where an answer begins and ends, which sentence says the most.

For every head h of a model that gives each token a number z, the position is chosen among the
allowed tokens of a document by a softmax, and learned by cross-entropy with wanted shares q:

    loss = - sum over documents, heads h and allowed tokens t of q_th log p_th,
    p_th = exp(z_th) / sum over allowed tokens s of the document of exp(z_sh)

in nats, summed over the documents whose answer is known.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from modelwright.types import Batch, Columns

needs = "read"  # of the codec


class Objective:
    """Cross-entropy of positions, of packed documents."""

    packs = True
    draws = False

    def __init__(self, codec: Any) -> None:
        self.codec = codec

    def collate(self, columns: Columns, generator: torch.Generator) -> Batch:  # noqa: ARG002
        """Inputs ``tokens`` (N,), ``starts`` and, where the codec has some, ``types``.

        Targets ``allowed`` bool and ``wanted`` float32 (N, heads), ``known`` bool (documents,), and
        what the codec needs to read an answer. What is counted is documents.
        """
        tensors = self.codec.tensors(columns)
        names = ("tokens", "starts", "types")
        inputs = {name: tensors.pop(name) for name in names if name in tensors}
        count = int(tensors["known"].sum())
        return Batch(inputs, tensors, count, computed=len(inputs["tokens"]))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The cross-entropy summed over documents and heads, in nats."""
        logits: Tensor = model(**batch.inputs).float()
        allowed, wanted = batch.targets["allowed"], batch.targets["wanted"]
        starts = batch.inputs["starts"]
        lengths = starts.diff()
        document = torch.repeat_interleave(lengths, output_size=len(logits))
        logits = logits.masked_fill(~allowed, -torch.inf)
        most = torch.segment_reduce(logits.detach(), "max", lengths=lengths)
        shifted = logits - most[document]
        total = most.new_zeros(most.shape).index_add(0, document, shifted.exp())
        costs = (total.log()[document] - shifted).where(allowed, 0.0)
        known = batch.targets["known"][document]
        return (costs * wanted * known[:, None]).sum()

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """What the codec reads in the logits."""
        found: Tensor = self.codec.read(
            model(**batch.inputs), batch.targets, batch.inputs["starts"]
        )
        return found
