"""The work that all contenders do: the model, the documents, the pairs, the rates."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.training import data
from benchmarks.training.data import Tokens
from benchmarks.training.shapes import TUNED, TUNED_HIDDEN
from modelwright.training.examples import Shuffled

VOCABULARY, CONTEXT, BATCH = TUNED.vocabulary, TUNED.context, TUNED.batch
FIELDS: dict[str, Any] = {  # of the model, by the names of our family "llama"
    "vocabulary": VOCABULARY,
    "depth": TUNED.depth,
    "width": TUNED.width,
    "heads": TUNED.heads,
    "kv_heads": TUNED.heads,
    "hidden": TUNED_HIDDEN,
    "context": CONTEXT,
}
RATES = {"full": 5e-4, "lora": 2e-3, "dpo": 5e-5}
BETAS = (0.9, 0.95)  # of AdamW; nothing decays, and the gradient's norm is cut at 1
RANK, ALPHA = 16, 32.0  # of adapters on every linear layer of the blocks
DPO_BETA = 0.1
PAIRS = BATCH // 2  # of a step: as many texts as documents
BASE_RULE, TUNED_RULE = 0, 1  # which token follows which: another one is to be learned
HELD_OUT = 64
PROMPT_LONGEST = 256


@dataclass(frozen=True)
class Pair:
    """A question and two answers: one follows the rule that is to be learned, the other none."""

    prompt: Tokens
    chosen: Tokens
    rejected: Tokens

    @property
    def read(self) -> int:
        """Tokens that a model reads of it: the question twice."""
        return 2 * len(self.prompt) + len(self.chosen) + len(self.rejected)


def documents(count: int, seed: int, rule: int = TUNED_RULE) -> list[Tokens]:
    """Documents as in ``benchmarks.training``, by the rule that is to be learned."""
    return data.documents(VOCABULARY, count, seed, rule)


def pairs(count: int, seed: int) -> list[Pair]:
    """Pairs whose answers are as long as documents, and whose questions are half as long."""
    asked = data.lengths(count, seed, data.MEDIAN // 2, PROMPT_LONGEST)
    good, bad = (data.lengths(count, seed + i, longest=CONTEXT - PROMPT_LONGEST) for i in (1, 2))
    ends = np.cumsum(np.stack([asked, good], axis=1))
    right = np.split(data.stream(VOCABULARY, int(ends[-1]), seed, TUNED_RULE), ends[:-1])
    ends = np.cumsum(bad)
    wrong = np.split(data.stream(VOCABULARY, int(ends[-1]), seed + 1, BASE_RULE), ends[:-1])
    for answer in (*right[1::2], *wrong):
        answer[-1] = 0  # both end
    return [Pair(*found) for found in zip(right[::2], right[1::2], wrong, strict=True)]


def in_turn(rows: list[Pair], size: int, seed: int) -> list[Pair]:
    """Rows in the order in which our steps of ``size`` read them; no step is incomplete.

    A few steps end where their order leads: six of them from the same weights over the same 24
    pairs ended at a held-out loss of 0.195 in one order and 0.228 in another, ours and TRL's alike.
    """
    whole = len(rows) - len(rows) % size
    order = Shuffled({"row": np.arange(len(rows))}, size, seed=seed).order(0)
    return [rows[i] for i in order[:whole]]


def arguments(*whats: str) -> argparse.Namespace:
    """The command line of a contender."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=whats)
    parser.add_argument("base", type=Path)
    parser.add_argument("--documents", type=int, default=400)
    parser.add_argument("--precision", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()
