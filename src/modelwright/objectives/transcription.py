"""Write down what is heard, token by token: an encoder of sound and a decoder of text (Whisper).

    loss = - sum over tokens t of log p(token_t | sound, token_<t), in nats,

the end among them, the prompt of the decoder (language, task) not: that is given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from modelwright.data.hearing import in_pieces
from modelwright.types import Batch, Codec, Columns

name = "transcription"
needs = "window"  # of the codec

AT_ONCE = 8  # windows that are answered together
IGNORED = -100


class Objective:
    """Cross-entropy of a transcript's tokens; questions, which have none, cost and count nothing.

    ``most`` is how many tokens an answer has at most for each window of sound.
    """

    packs = False
    draws = False

    def __init__(self, codec: Codec, *, label_smoothing: float = 0.0, most: int = 200) -> None:
        self.codec: Any = codec
        self.label_smoothing, self.most = label_smoothing, most

    def collate(self, columns: Columns, generator: torch.Generator) -> Batch:  # noqa: ARG002
        """``mel`` (B, bands, frames) and ``tokens`` (B, T) go in; ``tokens`` (B, T) are meant.

        The decoder reads from the start to the last token, and writes from the first to the end.
        What is given or padded is -100 in the targets. Long questions are ``pieces`` (B,).
        """
        columns, pieces = in_pieces(columns, self.codec)
        tensors = self.codec.tensors(columns)
        counts = tensors["counts"].tolist()
        start, end = torch.tensor([self.codec.start]), torch.tensor([self.codec.end])
        rows = tensors["letters"].split(counts)
        read = [torch.cat((start, row)) for row in rows]
        meant = [torch.cat((row, end)) if len(row) else row.new_full((1,), IGNORED) for row in rows]
        for row in meant:
            row[: len(self.codec.given)] = IGNORED
        tokens = pad_sequence(read, batch_first=True, padding_value=self.codec.end)
        targets = pad_sequence(meant, batch_first=True, padding_value=IGNORED)
        count = int((targets != IGNORED).sum())
        return Batch(
            {"mel": tensors["mel"], "tokens": tokens},
            {"tokens": targets, "pieces": torch.from_numpy(np.asarray(pieces))},
            count,
            computed=len(tokens),
        )

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The negative log-likelihood of the tokens, summed, in nats; smoothed in training."""
        logits: Tensor = model(**batch.inputs)
        return F.cross_entropy(
            logits.float().flatten(0, 1),
            batch.targets["tokens"].flatten(),
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=self.label_smoothing if model.training else 0.0,
        )

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """The likeliest tokens (B, n) of each recording, window after window, then the end."""
        mel, written = batch.inputs["mel"], list[Tensor]()
        given = torch.tensor([self.codec.start, *self.codec.given], device=mel.device)
        for part in mel.split(AT_ONCE):
            found = model.greedy(part, given.expand(len(part), -1), self.most)  # type: ignore[operator]
            written += [row[row != self.codec.end] for row in found]
        whole = [torch.cat(rows) for rows in _grouped(written, batch.targets["pieces"].tolist())]
        return pad_sequence(whole, batch_first=True, padding_value=self.codec.end)


def _grouped(rows: list[Tensor], counts: list[int]) -> list[list[Tensor]]:
    """Rows one after another, in groups of so many."""
    places = iter(rows)
    return [[next(places) for _ in range(count)] for count in counts]
