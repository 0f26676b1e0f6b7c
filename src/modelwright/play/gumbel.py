"""A move and a better policy from a few visits: Gumbel AlphaZero (Danihelka et al., ICLR 2022).

With priors p, Gumbel noise g, means q of visited moves in 0..1, and N(a) visits:

    σ(q) = 0.15 (50 + max N) q        (1.0 in the paper, which for tens of visits learns noise)
    tried are the moves of the largest g + log p, half of them at a time by g + log p + σ(q)
    the move played is the one of these that has the largest g + log p + σ(q)
    the policy to be learned is softmax(log p + σ(q̄)), q̄ being q, or for moves never tried

    v_mix = (v + N / Σ_{tried} p(b) * Σ_{tried} p(b) q(b)) / (1 + N),   N the visits of all.

In expectation the move is no worse than one drawn of p, however few the visits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from modelwright.data.games.tree_search import Floats, Node, Search, Stand

VISITS, SCALE = 50.0, 0.15  # c_visit and c_scale
CONSIDERED = 16  # moves that are tried at most
_TINY = 1e-12


class Chosen(NamedTuple):
    """What a search came to: the number of a move in the root's list, and the policy to learn."""

    move: int
    policy: Floats


def choose(
    search: Search,
    stands: Sequence[Stand],
    rng: np.random.Generator,
    *,
    simulations: int,
    considered: int = CONSIDERED,
) -> list[Chosen]:
    """A move and a policy for each position, none of which is over.

    Args:
        search: grows the trees, all of them together.
        stands: the positions.
        rng: of the noise.
        simulations: visits of each.
        considered: moves that are tried at most.
    """
    roots = search.roots(stands)
    noise = [rng.gumbel(size=len(root.moves)) for root in roots]
    plans = [levels(min(considered, len(root.moves)), simulations) for root in roots]
    for turn in range(simulations):
        first = [
            _best(root, g, plan[turn]) for root, g, plan in zip(roots, noise, plans, strict=True)
        ]
        search.visit(roots, first)
    return [
        Chosen(_best(root, g, int(root.visits.max())), improved(root))
        for root, g in zip(roots, noise, strict=True)
    ]


def levels(moves: int, simulations: int) -> list[int]:
    """How often the move that each simulation tries has been tried before: sequential halving."""
    found: list[int] = []
    phases, alive, level = max(1, math.ceil(math.log2(max(moves, 1)))), moves, 0
    while len(found) < simulations:
        for _ in range(max(1, simulations // (phases * alive))):
            found += [level] * alive
            level += 1
        alive = max(min(2, moves), alive // 2)
    return found[:simulations]


def improved(root: Node) -> Floats:
    """The policy to be learned of a root, over its moves."""
    logits = np.log(root.priors + _TINY) + _worth(root)
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum())


def _best(root: Node, noise: Floats, level: int) -> int:
    """The best of the moves that have been tried so often."""
    scores = noise + np.log(root.priors + _TINY) + _worth(root)
    return int(np.where(root.visits == level, scores, -np.inf).argmax())


def _worth(root: Node) -> Floats:
    """σ of the means in 0..1, of moves never tried that of the mixed value."""
    tried, visits = root.visits > 0, root.visits.sum()
    means, mixed = root.means, root.value
    if visits:
        priors = root.priors[tried] + _TINY
        mixed = (mixed + visits * (priors @ means[tried]) / priors.sum()) / (1 + visits)
    completed = np.where(tried, means, mixed)
    return np.asarray(SCALE * (VISITS + root.visits.max()) * (completed + 1) / 2)
