"""Who plays: chance, greed, search with games of chance, a network's policy, search with a network.

A player is asked for a move in many positions at once, so that one who asks a network asks it in
batches. Whatever is drawn comes from a seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from modelwright.data.games import Move
from modelwright.data.games.greedy_choice import gains
from modelwright.data.games.tree_search import Floats, Judged, Rollouts, Search, Stand
from modelwright.errors import MachineError
from modelwright.types import Encoded, Objective, Position, stack

AT_ONCE = 8  # leaves of one tree that a network judges together
MOST = 256  # positions in one pass of a network


class Player(Protocol):
    """Somebody who chooses moves."""

    name: str

    def choose(self, game: str, stands: Sequence[Stand]) -> list[Move]:
        """A legal move for each position, none of which is over."""
        ...


class Fault(MachineError):
    """A player has failed in a position; whoever keeps the score counts that game as lost for him.

    ``moves`` are those that he had chosen already, in the order in which he was asked.
    """

    def __init__(self, message: str, moves: Sequence[Move] = ()) -> None:
        super().__init__(message)
        self.moves = list(moves)


class Chance:
    """Any legal move."""

    name = "random"

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)

    def choose(self, game: str, stands: Sequence[Stand]) -> list[Move]:  # noqa: ARG002
        """Moves drawn evenly."""
        legal = [stand.state.legal_moves() for stand in stands]
        return [moves[int(self.rng.integers(len(moves)))] for moves in legal]


class Greed:
    """What wins most on the board at once; equals are drawn among."""

    name = "greedy"

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)

    def choose(self, game: str, stands: Sequence[Stand]) -> list[Move]:
        """The moves after which most stands on one's own side."""
        chosen = []
        for stand in stands:
            found = gains(game, stand.state)
            most = max(gain for gain, _ in found)
            best = [move for gain, move in found if gain == most]
            chosen.append(best[int(self.rng.integers(len(best)))])
        return chosen


class PlainSearch:
    """Search with games of chance (UCT): strong with time, and without anything learned."""

    def __init__(self, rollouts: int = 200, seed: int = 0) -> None:
        self.name, self.rollouts, self.seed = f"mcts:{rollouts}", rollouts, seed
        self.judge = Rollouts(seed)

    def choose(self, game: str, stands: Sequence[Stand]) -> list[Move]:
        """The moves visited most."""
        search = Search(game, self.judge, "uct")
        roots = search.roots(stands)
        search.grow(roots, self.rollouts)
        return [root.moves[int(root.visits.argmax())] for root in roots]


class Network:
    """A trained model as a judge of positions."""

    def __init__(self, model: nn.Module, codec: Any, objective: Objective) -> None:
        self.model, self.codec, self.objective = model, codec, objective
        self.game: str = codec.game

    def judge(self, stands: Sequence[Stand], moves: Sequence[Sequence[Move]]) -> list[Judged]:
        """Priors of the legal moves and a value for the mover, by the model."""
        found: list[Judged] = []
        for first in range(0, len(stands), MOST):
            part = slice(first, first + MOST)
            found += self._part(stands[part], moves[part])
        return found

    def _part(self, stands: Sequence[Stand], moves: Sequence[Sequence[Move]]) -> list[Judged]:
        number = self.codec.seen_as.number
        numbers = [
            [number(stand.state, move) for move in legal]
            for stand, legal in zip(stands, moves, strict=True)
        ]
        found = self.asked([self._row(*of) for of in zip(stands, numbers, strict=True)])
        return [
            Judged(_normal(np.exp(row[of])), float(row[-2]))
            for row, of in zip(found, numbers, strict=True)
        ]

    def asked(self, rows: Sequence[Encoded]) -> Floats:
        """What the objective predicts of stored positions, in one pass (n, moves + 2)."""
        device = next(self.model.parameters()).device
        with torch.inference_mode():
            batch = self.objective.collate(stack(rows, self.codec.ragged), torch.Generator())
            outputs = self.objective.predict(self.model, batch.to(device))  # type: ignore[attr-defined]
        found: Floats = outputs.double().cpu().numpy()
        return found

    def _row(self, stand: Stand, numbers: Sequence[int]) -> Encoded:
        position = Position(self.game, stand.state, stand.touched)
        row: Encoded = self.codec.stored(position, list(dict.fromkeys(numbers)), {}, float("nan"))
        return row


def _normal(chances: Floats) -> Floats:
    """Probabilities that add up to one: moves that share a number have theirs twice."""
    return np.asarray(chances / chances.sum())


class Policy:
    """The network's likeliest move, without looking ahead."""

    def __init__(self, network: Network, name: str = "policy") -> None:
        self.network, self.name = network, name

    def choose(self, game: str, stands: Sequence[Stand]) -> list[Move]:  # noqa: ARG002
        """The likeliest moves."""
        legal = [stand.state.legal_moves() for stand in stands]
        judged = self.network.judge(stands, legal)
        return [m[int(j.priors.argmax())] for m, j in zip(legal, judged, strict=True)]


def at_once(simulations: int) -> int:
    """Leaves of a tree alone that a network judges together: few where there are few in all."""
    return max(1, min(AT_ONCE, simulations // 8))


class NetworkSearch:
    """Search whose leaves the network judges (PUCT)."""

    def __init__(self, network: Network, simulations: int = 100, name: str = "") -> None:
        self.network, self.simulations = network, simulations
        self.name = name or f"policy, search {simulations}"

    def choose(self, game: str, stands: Sequence[Stand]) -> list[Move]:
        """The moves visited most."""
        together = at_once(self.simulations) if len(stands) < AT_ONCE else 1
        search = Search(game, self.network, "puct", together)
        roots = search.roots(stands)
        search.grow(roots, self.simulations)
        return [root.moves[int(root.visits.argmax())] for root in roots]
