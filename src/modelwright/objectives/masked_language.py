"""Guess masked tokens from both sides: pretraining of encoders (BERT, arXiv:1810.04805).

Of every row a share of the tokens is chosen; of the chosen 80 % are replaced by the mask, 10 %
by a random token and 10 % left as they are, and the model has to name what stood there:

    loss = - sum over chosen positions t of log p(token_t | the row as changed), in nats.

With ``span`` > 1 neighbours are chosen together, in spans of geometrically distributed length
with that mean, at most 10, and a span shares one fate (SpanBERT, arXiv:1907.10529).

What is chosen in a row depends on the number drawn for the batch and on the row's own tokens, so
it is the same whatever else is in the batch.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modelwright.errors import ModelwrightError
from modelwright.types import Array, Batch, Codec, Columns, Ragged

name = "masked_language"
needs = "token_bytes"  # of the codec

MASKED, RANDOM = 0.8, 0.1  # of the chosen; the rest is left as it is
LONGEST_SPAN = 10


class Objective:
    """Cross-entropy of the chosen tokens.

    The mask is the codec's ``mask`` where it has one (published tokenizers), else the number
    after its last token, which no text can spell; the model has a row for it.
    """

    packs = True
    draws = True

    def __init__(self, codec: Codec, *, share: float = 0.15, span: float = 1.0) -> None:
        """Choose how much is masked.

        Args:
            codec: of the task.
            share: of the tokens of a row that spell something, at least one of them.
            span: mean length of what is chosen together.
        """
        if not 0 < share < 1:
            raise ModelwrightError(f"objective {name}: share {share} is not between 0 and 1")
        if span < 1:
            raise ModelwrightError(f"objective {name}: span {span} is below 1")
        self.share, self.span = share, span
        self.token_bytes: Any = np.asarray(codec.token_bytes)  # type: ignore[attr-defined]
        self.end: int = codec.end  # type: ignore[attr-defined]
        self.vocabulary: int = codec.vocabulary  # type: ignore[attr-defined]
        self.mask: int = getattr(codec, "mask", self.vocabulary)

    def collate(self, columns: Columns, generator: torch.Generator) -> Batch:
        """Inputs ``tokens`` (N,) and ``starts`` of all rows, targets (N,).

        Targets are -100 where nothing was chosen. In a window of joined documents each of them
        stands for itself; the window's last token is left out, as it is for decoders.
        """
        seed = int(torch.randint(1 << 62, (1,), generator=generator))
        rows, learned, starts = _rows(columns, self.end)
        values, targets = [], []
        for row, learn in zip(rows, learned, strict=True):
            changed, wanted = self._masked(row, learn, seed)
            values.append(changed)
            targets.append(wanted)
        wanted = np.concatenate(targets)
        chosen = wanted[wanted >= 0]
        return Batch(
            {
                "tokens": torch.from_numpy(np.concatenate(values)),
                "starts": torch.from_numpy(starts),
            },
            {"tokens": torch.from_numpy(wanted)},
            count=len(chosen),
            bytes=int(self.token_bytes[chosen].sum()),
            computed=len(wanted),
        )

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The negative log-likelihood of the chosen tokens, summed, in nats."""
        targets = batch.targets["tokens"]
        chosen = (targets >= 0).nonzero().squeeze(1)
        hidden: Tensor = model.hidden(**batch.inputs)  # type: ignore[operator]
        loss: Tensor = model.negative_log_likelihood(  # type: ignore[operator]
            hidden[chosen], targets[chosen]
        )
        return loss

    def _masked(self, row: Array, learn: Array, seed: int) -> tuple[Array, Array]:
        """A row as it is shown, and what is to be named (-100: nothing)."""
        tokens = row.astype(np.int64)
        targets = np.full(len(tokens), -100, dtype=np.int64)
        open_to_choice = np.flatnonzero(learn & (self.token_bytes[tokens] > 0))
        if not len(open_to_choice):
            return tokens, targets
        rng = np.random.default_rng([seed, zlib.crc32(tokens.tobytes())])
        wanted = max(1, round(self.share * len(open_to_choice)))
        chosen, spans = self._chosen(rng, open_to_choice, wanted)
        targets[chosen] = tokens[chosen]
        fate = rng.random(int(spans.max()) + 1)[spans]
        shown = np.where(fate < MASKED, self.mask, tokens[chosen])
        at_random = (fate >= MASKED) & (fate < MASKED + RANDOM)
        drawn = rng.integers(self.vocabulary, size=len(chosen))
        tokens[chosen] = np.where(at_random, drawn, shown)
        return tokens, targets

    def _chosen(self, rng: np.random.Generator, places: Array, wanted: int) -> tuple[Array, Array]:
        """``wanted`` of the places, and which span each belongs to."""
        if self.span == 1:
            return rng.choice(places, wanted, replace=False), np.arange(wanted)
        span_of: dict[int, int] = {}
        while len(span_of) < wanted:
            number = max(span_of.values(), default=-1) + 1
            first = int(rng.integers(len(places)))
            length = min(int(rng.geometric(1 / self.span)), LONGEST_SPAN)
            for i in range(first, min(first + length, len(places))):
                if len(span_of) < wanted:
                    span_of.setdefault(i, number)
        found = np.array(list(span_of))
        return places[found], np.array(list(span_of.values()))


def _rows(columns: Columns, end: int) -> tuple[list[Array], list[Array], Array]:
    """Tokens and what may be learned of every row, and the bounds of all documents."""
    tokens, learn = columns["tokens"], columns["learn"]
    if isinstance(tokens, Ragged) and isinstance(learn, Ragged):
        rows, learned = ([np.asarray(c[i]) for i in range(len(c))] for c in (tokens, learn))
        return rows, learned, np.array(tokens.offsets, dtype=np.int64)
    windows = np.asarray(tokens)[:, :-1]
    begins = np.zeros(windows.shape, dtype=np.bool_)
    begins[:, 1:] = windows[:, :-1] == end
    begins[:, 0] = True
    starts = np.append(np.flatnonzero(begins), begins.size).astype(np.int64)
    return list(windows), list(np.asarray(learn, dtype=np.bool_)[:, :-1]), starts
