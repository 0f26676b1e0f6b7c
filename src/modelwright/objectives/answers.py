"""Log-probabilities of answers, of which objectives that compare or reward answers are made.

    log p(y | x) = sum over the learned tokens t of log p(y_t | x, y_<t), in nats.

Answers stand one after another with what they answer, and nothing is padded. The logits of a few
tokens at a time exist: ``models/likelihood.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modelwright.objectives.next_token import packed
from modelwright.types import Array, Columns, Ragged, ragged_column


def chained(one: Ragged, other: Ragged) -> Ragged:
    """The rows of ``one`` and after them those of ``other``."""
    values = np.concatenate([one.values, other.values])
    return Ragged(values, np.concatenate([one.offsets, other.offsets[1:] + one.offsets[-1]]))


def of_pairs(columns: Columns) -> tuple[Ragged, Ragged]:
    """Tokens and marks of 2 B conversations: all chosen answers, then all rejected ones."""
    pairs = (("tokens", "rejected"), ("learn", "rejected_learn"))
    tokens, learn = (
        chained(ragged_column(columns, a), ragged_column(columns, b)) for a, b in pairs
    )
    return tokens, learn


def joined(tokens: Ragged, learn: Ragged) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Inputs and targets of conversations that stand one after another.

    Returns:
        ``tokens`` (1, N) and the conversations' ``starts``; and of the K tokens to be learned their
        ``places`` (K,) among the N, ``tokens`` (K,) themselves and ``of`` (K,), which conversation
        each belongs to, all int64.
    """
    before, after, learned, starts = packed(tokens, learn)
    places = np.flatnonzero(learned)
    of = np.repeat(np.arange(len(tokens)), tokens.lengths - 1)[places]
    inputs = {"tokens": _numbers(before), "starts": _numbers(starts)}
    targets = {
        "places": _numbers(places),
        "tokens": _numbers(after[0, places]),
        "of": _numbers(of),
    }
    return inputs, targets


def _numbers(values: Array) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.int64))


def token_log_probabilities(
    model: nn.Module, inputs: dict[str, Any], targets: dict[str, Tensor], temperature: float = 1.0
) -> Tensor:
    """Log p of every learned token, (K,) float32, for what ``joined`` gave.

    Logits are divided by ``temperature``, by which the tokens were drawn.
    """
    language: Any = model
    hidden: Tensor = language.hidden(**inputs).flatten(0, 1)[targets["places"]]
    found: Tensor = language.log_probabilities(hidden, targets["tokens"], temperature)
    return found


def summed(values: Tensor, of: Tensor, conversations: int) -> Tensor:
    """Sums of ``values`` (K,) by conversation, (conversations,) float32."""
    zeros = values.new_zeros(conversations, dtype=torch.float32)
    return zeros.index_add(0, of, values.float())
