"""Say what letters a recording holds, not when: connectionist temporal classification.

A path gives a letter or the blank to each of the T frames; taken once where it repeats and without
blanks it reads as a transcript. With p_t the probabilities of frame t,

    loss = - log Σ over paths that read as the transcript Π_t p_t(path_t)

(Graves et al. 2006), summed over the recordings and counted by letters. A transcript that needs
more frames than there are has no path: it costs nothing and teaches nothing.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from modelwright.data.hearing import in_pieces
from modelwright.errors import ModelwrightError
from modelwright.types import Batch, Codec, Columns, ragged_column

name = "ctc"
item = "letter"
needs = "blank"  # of the codec

AT_ONCE = 16  # recordings, or pieces of them, that are answered together
NEVER = -1e4  # log-probability of what cannot be


class Objective:
    """The likelihood of transcripts; questions, which have none, cost and count nothing."""

    packs = False
    draws = False

    def __init__(self, codec: Codec) -> None:
        self.codec: Any = codec
        self.blank: int = codec.blank  # type: ignore[attr-defined]
        heard = getattr(getattr(codec, "ear", None), "reads", "frames")
        self.unit = "seconds" if heard == "samples" else "examples"  # of what is computed

    def collate(self, columns: Columns, generator: torch.Generator) -> Batch:  # noqa: ARG002
        """What the model reads goes in; ``letters`` and their ``counts`` are what is meant.

        Recordings longer than the codec's ``longest`` are cut, so that memory is bounded;
        ``pieces`` (B,) says into how many. None of them has a transcript. What is computed are
        recordings; of a model that reads samples, seconds.
        """
        columns, pieces = in_pieces(columns, self.codec)
        tensors = self.codec.tensors(columns)
        targets = {"letters": tensors.pop("letters"), "counts": tensors.pop("counts")}
        targets["pieces"] = torch.from_numpy(pieces)
        computed = len(targets["counts"])
        if self.unit == "seconds":
            computed = math.ceil(ragged_column(columns, "samples").lengths.sum() / self.codec.rate)
        return Batch(tensors, targets, int(targets["counts"].sum()), computed=computed)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The negative log-likelihood of the transcripts, summed, in nats."""
        scores, frames = scored(model, batch.inputs)
        counts = batch.targets["counts"]
        costs = F.ctc_loss(
            scores.transpose(0, 1),
            batch.targets["letters"],
            frames,
            counts,
            blank=self.blank,
            reduction="none",
            zero_infinity=True,
        )
        return costs.where(counts > 0, 0.0).sum()

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Log-probabilities (B, T, letters) of every frame; beyond a recording all is blank."""
        rows: list[Tensor] = []
        total = len(batch.targets["pieces"].repeat_interleave(batch.targets["pieces"]))
        for first in range(0, total, AT_ONCE):
            part = {k: v[first : first + AT_ONCE] for k, v in batch.inputs.items()}
            longest = int(part["lengths"].max())
            part = {k: v[:, :longest] if v.ndim > 1 else v for k, v in part.items()}
            scores, frames = scored(model, part)
            rows += [s[:n] for s, n in zip(scores, frames.tolist(), strict=True)]
        whole = [torch.cat(part) for part in _grouped(rows, batch.targets["pieces"].tolist())]
        padded = pad_sequence(whole, batch_first=True, padding_value=NEVER)
        ends = torch.tensor([len(row) for row in whole], device=padded.device)
        beyond = torch.arange(padded.shape[1], device=padded.device) >= ends[:, None]
        padded[..., self.blank] = padded[..., self.blank].masked_fill(beyond, 0.0)
        return padded


def scored(model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Log-probabilities (B, T, letters) of a batch, and how many frames are true (B,)."""
    logits = model(**inputs)
    if logits.ndim != 3 or not hasattr(model, "frame_counts"):
        raise ModelwrightError(
            "objective ctc: the model gives no letters frame by frame; take model.family conformer"
            " or wav2vec2"
        )
    return logits.float().log_softmax(-1), model.frame_counts(inputs["lengths"])


def _grouped(rows: list[Tensor], counts: list[int]) -> list[list[Tensor]]:
    found, first = [], 0
    for count in counts:
        found.append(rows[first : first + count])
        first += count
    return found
