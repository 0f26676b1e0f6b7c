"""Examples that the model in training plays itself, generation by generation.

Before step g * ``steps`` of the training the model, as it is then, plays the games of generation g
against itself, and they are written down before anything is learned of them. The examples of a
step are drawn from the last ``window`` generations. Games depend on (seed, g) and the parameters,
rows on (seed, step): a training that was stopped and goes on finds the generations it had, or plays
the same games again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modelwright.data.games import Move
from modelwright.data.games.tree_search import Floats, Search, Stand
from modelwright.data.shards import open_shard, write_shard
from modelwright.play.gumbel import choose
from modelwright.play.matches import opened
from modelwright.play.players import Network
from modelwright.runtime import derived_seed
from modelwright.types import Array, Columns, Encoded, Position, join, rows_in, take


@dataclass(frozen=True)
class Settings:
    """How a model plays itself.

    Attributes:
        games: of a generation.
        simulations: visits of the search for each move.
        steps: of training between two generations.
        window: generations that are learned from together.
        opening: plies of chance at the start of a game, at most; they are not learned.
    """

    games: int = 64
    simulations: int = 32
    steps: int = 40
    window: int = 4
    opening: int = 4


class Played:
    """The examples of a step, played as the training comes to it: ``training/examples.py``.

    Args:
        network: the model in training.
        settings: how it plays.
        batch: rows of a step.
        parts: micro-batches of a step.
        seed: of games and of what is drawn from them.
        folder: where the generations are kept.
        playing: a context in which the model answers instead of learning.
        tell: called with a line for people when a generation has been played, and with nothing
            whenever some moves have been made.
    """

    def __init__(
        self,
        network: Network,
        settings: Settings,
        *,
        batch: int,
        parts: int,
        seed: int,
        folder: Path,
        playing: Callable[[], AbstractContextManager[None]],
        tell: Callable[[str], None],
    ) -> None:
        self.network, self.settings, self.per_step, self.parts = network, settings, batch, parts
        self.seed, self.folder, self.playing, self.tell = seed, folder, playing, tell
        self.total = batch * settings.steps  # an epoch is what is learned of a generation
        self._joined: tuple[int, Columns] | None = None

    def __call__(self, step: int) -> list[Columns]:
        """The micro-batches of a step; the first of a generation plays it before."""
        columns = self._recent(step // self.settings.steps)
        return [take(columns, rows) for rows in self._drawn(step, rows_in(columns))]

    def rows(self, step: int) -> list[Array]:
        """The rows among those of the generations that are learned from at a step."""
        return self._drawn(step, rows_in(self._recent(step // self.settings.steps)))

    def _drawn(self, step: int, rows: int) -> list[Array]:
        rng = np.random.default_rng(derived_seed(self.seed, "rows", step))
        return list(np.array_split(rng.integers(rows, size=self.per_step), self.parts))

    def _recent(self, generation: int) -> Columns:
        """The columns of the last generations up to one."""
        first = max(0, generation - self.settings.window + 1)
        wanted = range(first, generation + 1)
        if self._joined is None or self._joined[0] != generation:
            self._joined = (generation, join([self._generation(g) for g in wanted]))
        return self._joined[1]

    def _generation(self, number: int) -> Columns:
        """The games of a generation: as they were written, or played now."""
        folder = self.folder / f"generation-{number:04d}"
        if not folder.is_dir():
            with self.playing():
                rng = np.random.default_rng(derived_seed(self.seed, "games", number))
                rows, results = games(self.network, self.settings, rng, lambda: self.tell(""))
            write_shard(folder, rows, self.network.codec.ragged)
            drawn = results.count(0.0)
            first = results.count(1.0)
            self.tell(
                f"generation {number}: {len(results)} games, {len(rows):,} positions; who began won"
                f" {first}, drawn {drawn}"
            )
        return open_shard(folder)


def games(
    network: Network,
    settings: Settings,
    rng: np.random.Generator,
    tell: Callable[[], None] = lambda: None,
) -> tuple[list[Encoded], list[float]]:
    """Games of a network against itself: rows of the codec ``boards``, and the results.

    All games are played side by side, so that their positions are judged in batches.
    """
    search = Search(network.game, network, "puct")
    seeds = rng.integers(1 << 31, size=settings.games).tolist()
    plies = rng.integers(settings.opening + 1, size=settings.games).tolist()
    played = [opened(network.game, n, (seed, 0)) for n, seed in zip(plies, seeds, strict=True)]
    kept: list[list[tuple[Stand, Sequence[Move], Floats]]] = [[] for _ in played]
    while going := [i for i, game in enumerate(played) if game.result() is None]:
        stands = [played[i].stand for i in going]
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
