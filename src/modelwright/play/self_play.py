"""Games that the model in training plays against itself: a generation of ``play/generations.py``.

Connect Four and Othello are played by a kernel (``kernels/playing.py``) that asks the network for
the leaves of all games at once and remembers what was judged; other games, and all of them where
nothing can be compiled, by the same search in Python. Where the objective has a ``pull_weight``,
each position has the policy as well that the model began with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from modelwright.data.games import Move
from modelwright.data.games.tree_search import Floats, Search, Stand
from modelwright.data.shards import write_shard
from modelwright.kernels import playing
from modelwright.play.frozen import as_it_began
from modelwright.play.generations import Context
from modelwright.play.gumbel import CONSIDERED, choose
from modelwright.play.matches import opened
from modelwright.play.players import MOST, Network
from modelwright.play.quick import Quick
from modelwright.runtime import derived_seed
from modelwright.types import Encoded, Objective, Position

REFERENCE = "imitation.safetensors"  # the policy as it was before it played itself
IMITATED = "imitated"  # a column: its probabilities of the legal moves


@dataclass(frozen=True)
class Settings:
    """How a model plays itself.

    Attributes:
        games: of a generation.
        simulations: visits of the search for each move.
        steps: of training between two generations.
        window: generations that are learned from together.
        opening: plies of chance at the start of a game, at most; they are not learned.
        at_once: games that are played side by side by the kernel.
        pull_half: generations in which the pull towards imitation halves; 0: it stays.
    """

    games: int = 64
    simulations: int = 32
    steps: int = 40
    window: int = 4
    opening: int = 4
    at_once: int = 128
    pull_half: float = 5.0


class Maker:
    """Plays the games of a generation and writes their positions down."""

    def __init__(self, network: Network, settings: Settings, context: Context) -> None:
        self.network, self.settings, self.context = network, settings, context
        self.steps, self.window = settings.steps, settings.window
        self.pulls = bool(getattr(network.objective, "pull_weight", 0.0))
        self.reference: Network | None = None

    def make(self, number: int, folder: Path) -> str:
        """Write a generation into a folder."""
        reference = self._reference(number)
        seed = derived_seed(self.context.seed, "games", number)
        play = quick_games if playing.native(self.network.game) else games
        rows, results = play(self.network, self.settings, seed, lambda: self.context.tell(""))
        ragged = self.network.codec.ragged
        if reference is not None:
            rows, ragged = self._pulled(rows, reference, number), (*ragged, IMITATED)
        write_shard(folder, rows, ragged)
        first, drawn = results.count(1.0), results.count(0.0)
        return (
            f"{len(results)} games, {len(rows):,} positions; who began won {first}, drawn {drawn}"
        )

    def _reference(self, number: int) -> Network | None:
        """The network as it was before generation 0; None where nothing pulls towards it."""
        if not self.pulls or self.reference is not None:
            return self.reference
        network, path = self.network, self.context.folder / REFERENCE
        began = as_it_began(network.model, path, begins=number == 0)
        self.reference = Network(began, network.codec, network.objective)
        return self.reference

    def _pulled(self, rows: Sequence[Encoded], reference: Network, number: int) -> list[Encoded]:
        """The rows with the probabilities that imitation gives their moves, and its pull."""
        half = self.settings.pull_half
        pull = np.array(0.5 ** (number / half) if half else 1.0, dtype=np.float32)
        found: list[Encoded] = []
        for first in range(0, len(rows), MOST):
            some = rows[first : first + MOST]
            for row, chances in zip(some, reference.asked(some), strict=True):
                imitated = np.exp(chances[row["legal"]]).astype(np.float32)
                found.append({**row, IMITATED: imitated, "pull": pull})
            self.context.tell("")
        return found


def maker(
    model: nn.Module, codec: Any, objective: Objective, settings: dict[str, Any], context: Context
) -> Maker:
    """Who makes the generations of a training, by the settings of the task."""
    return Maker(Network(model, codec, objective), Settings(**settings), context)


def quick_games(
    network: Network, settings: Settings, seed: int, tell: Callable[[], None] = lambda: None
) -> tuple[list[Encoded], list[float]]:
    """``games`` by the kernel; the same law, other draws.

    Each game goes on by itself until it needs the network, so a batch has a leaf of every game.
    """
    quick, outputs = Quick(network.model), None
    with playing.Playing(
        network.game,
        games=settings.games,
        at_once=settings.at_once,
        simulations=settings.simulations,
        considered=CONSIDERED,
        opening=settings.opening,
        seed=seed,
    ) as players:
        while len(features := players.step(outputs)):
            outputs = quick(features)
            tell()
        taken = players.taken()
    rows = [_stored(network, taken, i) for i in range(len(taken.values))]
    return rows, taken.results.astype(float).tolist()


def _stored(network: Network, taken: playing.Taken, i: int) -> Encoded:
    """A position of the kernel as the codec ``boards`` stores one."""
    moves = slice(taken.offsets[i], taken.offsets[i + 1])
    row: Encoded = network.codec.row(
        taken.planes[i],
        legal=taken.legal[moves],
        played=taken.legal[moves],
        shares=taken.shares[moves],
        value=taken.values[i],
        turn=taken.turns[i],
        clock=0,
    )
    return row


def games(
    network: Network, settings: Settings, seed: int, tell: Callable[[], None] = lambda: None
) -> tuple[list[Encoded], list[float]]:
    """Games of a network against itself: rows of the codec ``boards``, and the results.

    All games are played side by side, so that their positions are judged in batches.
    """
    rng = np.random.default_rng(seed)
    search = Search(network.game, network, "puct")
    seeds = rng.integers(1 << 31, size=settings.games).tolist()
    plies = rng.integers(settings.opening + 1, size=settings.games).tolist()
    played = [opened(network.game, n, (seed, 0)) for n, seed in zip(plies, seeds, strict=True)]
    kept: list[list[tuple[Stand, Sequence[Move], Floats]]] = [[] for _ in played]
    while going := [i for i, game in enumerate(played) if game.result() is None]:
        stands = [played[i].stand._replace(past=()) for i in going]  # kept, and not looked back
        found = choose(search, stands, rng, simulations=settings.simulations)
        for i, stand, (move, policy) in zip(going, stands, found, strict=True):
            legal = stand.state.legal_moves()
            kept[i].append((stand, legal, policy))
            played[i].play(legal[move])
        tell()
    results = [game.result() or 0.0 for game in played]
    rows = [
        _row(network, *one, result)
        for moves, result in zip(kept, results, strict=True)
        for one in moves
    ]
    return rows, results


def _row(
    network: Network, stand: Stand, legal: Sequence[Move], policy: Floats, result: float
) -> Encoded:
    """A position with the policy to be learned and the result for the player to move."""
    state = stand.state
    shares: dict[int, float] = {}
    for move, share in zip(legal, policy.tolist(), strict=True):
        number = network.codec.seen_as.number(state, move)
        shares[number] = shares.get(number, 0.0) + share
    position = Position(network.game, state, stand.touched)
    value = -result if state.turn else result
    row: Encoded = network.codec.stored(position, list(shares), shares, value)
    return row
