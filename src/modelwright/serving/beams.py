"""Beam search: several unfinished answers of a request grow side by side, the likeliest are kept.

Of the answers y that end, the one with the highest

    score(y) = log p(y | what is given) / |y|^penalty,   |y| its tokens with the end,

is taken. A search ends when ``beams`` answers have ended and none that is unfinished has a better
score as it is than the worst of these; so it may miss the best answer, as every beam does.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from modelwright.serving.batch import Batch, Row
from modelwright.serving.sampling import check_finite

_Ended = tuple[float, list[int]]  # score and tokens, without what ended them


def search(batch: Batch, rows: Sequence[Row]) -> None:
    """Find the answers of ``rows``, which all ask for the same number of beams, and finish them.

    Args:
        batch: an empty one with room for the rows and their longest answers.
        rows: new ones.
    """
    beams = rows[0].request.params.beams
    stream = batch.read(rows)
    at = stream.device
    count = len(rows)
    cache = batch.view(0).taken(torch.arange(count, device=at).repeat_interleave(beams))
    stream = stream.repeat_interleave(beams, dim=0)
    # All beams of a request are the same at first: one of them counts.
    scores = torch.full((count, beams), -torch.inf, dtype=torch.float64)
    scores[:, 0] = 0.0
    found = [_Search(row) for row in rows]
    while True:
        totals = scores[..., None] + _log_probabilities(batch, stream).view(count, beams, -1)
        vocabulary = totals.shape[-1]
        best, places = totals.flatten(1).topk(min(2 * beams, beams * vocabulary), dim=1)
        kept: list[int] = []  # rows of the cache that go on
        tokens: list[int] = []
        for i, one in enumerate(found):
            chosen = one.step(best[i].tolist(), places[i].tolist(), vocabulary)
            scores[i] = torch.tensor([score for score, _, _ in chosen], dtype=torch.float64)
            kept += [i * beams + beam for _, beam, _ in chosen]
            tokens += [token for _, _, token in chosen]
        if all(one.done for one in found):
            break
        cache = cache.taken(torch.tensor(kept, device=at))
        read = torch.tensor(tokens, device=at)[:, None]
        stream = batch.model.hidden(read, cache=cache)[:, 0]
    for one in found:
        one.finish()


def _log_probabilities(batch: Batch, stream: Tensor) -> Tensor:
    """Log-probabilities (B, vocabulary) of the next token, float64, on the CPU."""
    logits = batch.model.head(stream)
    check_finite(logits)
    return logits.double().log_softmax(dim=-1).cpu()


class _Search:
    """The beams of one request."""

    def __init__(self, row: Row) -> None:
        self.row, self.beams = row, row.request.params.beams
        self.penalty = row.request.params.length_penalty
        self.special: Collection[int] = row.codec.special
        self.live: list[list[int]] = [[]] * self.beams
        self.ended: list[_Ended] = []
        self.done = False

    def _score(self, total: float, length: int) -> float:
        return total / length**self.penalty if length else total

    def step(
        self, totals: list[float], places: list[int], vocabulary: int
    ) -> list[tuple[float, int, int]]:
        """Take the likeliest continuations, best first: (log p, beam, token) of each kept one."""
        if self.done:
            return [(-torch.inf, 0, 0)] * self.beams  # its rows are computed for nothing
        kept: list[tuple[float, int, int]] = []
        length = len(self.live[0]) + 1
        for rank, (total, place) in enumerate(zip(totals, places, strict=True)):
            beam, token = divmod(place, vocabulary)
            if total == -torch.inf or len(kept) == self.beams:
                break
            if token not in self.special:
                kept.append((total, beam, token))
            elif rank < self.beams:
                self.ended.append((self._score(total, length), self.live[beam]))
        self.ended = sorted(self.ended, key=lambda e: -e[0])[: self.beams]
        live = [[*self.live[beam], token] for _, beam, token in kept]
        best = self._score(kept[0][0], length) if kept else -torch.inf
        full = len(self.ended) == self.beams
        self.done = not kept or (full and best <= self.ended[-1][0])
        if length >= self.row.max_tokens and not self.done:
            # No room is left: what has not ended counts as it is.
            self.ended += [
                (self._score(total, length), tokens)
                for (total, _, _), tokens in zip(kept, live, strict=True)
            ]
            self.done = True
        while kept and len(kept) < self.beams:  # a tiny vocabulary
            kept.append((-torch.inf, *kept[0][1:]))
            live.append(live[0])
        self.live = live
        return kept or [(-torch.inf, 0, 0)] * self.beams

    def finish(self) -> None:
        """Give the row the best answer, token by token, so that stop texts count."""
        _, tokens = max(self.ended, key=lambda e: e[0])
        for token in tokens:
            if self.row.finish_reason is None:
                self.row.take(token)
        self.row.end()
