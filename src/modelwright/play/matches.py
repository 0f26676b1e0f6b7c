"""Matches: many games with both colours from openings of chance, and what the score says.

The expected score of a player who is D Elo points stronger is s = 1 / (1 + 10^(-D / 400)), so a
score s over n games is D = 400 log10(s / (1 - s)). Its interval is Wilson's for a share s of n,
which is right where no game is drawn and a little wide where some are, and which holds for 0 and n
points as well (Wilson 1927). A game in which a player fails is lost for him; after the second such
game a match ends, and its score is of the games that had ended.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from modelwright.data.games import Move
from modelwright.data.games.tree_search import Stand
from modelwright.play.game import Game
from modelwright.play.players import Fault, Player

Z = 1.96  # of a normal distribution: 95 % lie within
OPENING = 4  # plies of chance at the start, where games begin alike
FAULTS = 2  # of the players in a match: then it ends
_AT_ONCE = 64  # games that are played side by side


@dataclass(frozen=True)
class Score:
    """Games won, drawn and lost; ``faults`` are what players failed by, each a game lost."""

    won: int
    drawn: int
    lost: int
    faults: tuple[str, ...] = ()

    @property
    def games(self) -> int:
        """All of them."""
        return self.won + self.drawn + self.lost

    @property
    def share(self) -> float:
        """Points a game: 1 a win, half a draw."""
        return (self.won + self.drawn / 2) / self.games

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of ``share``."""
        s, n = self.share, self.games
        centre = (s + Z * Z / (2 * n)) / (1 + Z * Z / n)
        half = Z / (1 + Z * Z / n) * math.sqrt(s * (1 - s) / n + Z * Z / (4 * n * n))
        # Of no or all points one end is exact, where the difference of two equals is not quite 0.
        low = max(0.0, centre - half) if self.share > 0 else 0.0
        return low, min(1.0, centre + half) if self.share < 1 else 1.0

    @property
    def elo(self) -> tuple[float, float, float]:
        """Elo points above the other, and the 95 % interval: infinite for all or no points."""
        low, high = self.interval
        return elo(self.share), elo(low), elo(high)

    def said(self) -> str:
        """The score in a line."""
        middle, low, high = self.elo
        return (
            f"{self.won} won, {self.drawn} drawn, {self.lost} lost of {self.games}:"
            f" score {self.share:.3f}, Elo {middle:+.0f} (95 %: {low:+.0f} to {high:+.0f})"
        )


def elo(share: float) -> float:
    """Elo points of an expected score."""
    if not 0 < share < 1:
        return math.inf if share >= 1 else -math.inf
    return 400 * math.log10(share / (1 - share))


def match(
    name: str,
    one: Player,
    other: Player,
    games: int,
    *,
    seed: int = 0,
    opening: int = OPENING,
    tell: Callable[[int], None] = lambda _: None,
) -> Score:
    """Games of one player against another, seen by ``one``.

    Every opening of chance is played twice, with colours changed; an odd last game is alone.

    Args:
        name: of the game.
        one: whose score it is.
        other: the opponent.
        games: how many.
        seed: of the openings.
        opening: plies of chance at the start.
        tell: called with the number of games ended, from time to time.
    """
    played = _Match(name, (one, other), seed, opening)
    points: list[float] = []
    for first in range(0, games, _AT_ONCE):
        points += played.side_by_side(range(first, min(first + _AT_ONCE, games)))
        tell(len(points))
        if played.broken:
            break
    won, drawn, lost = (points.count(result) for result in (1.0, 0.0, -1.0))
    return Score(won, drawn, lost, tuple(played.faults))


def table(name: str, scores: Sequence[tuple[str, Score]]) -> list[str]:
    """The scores of one player against several in columns, Elo points with their 95 % interval."""
    first = f"{name} against"
    width = max(len(first), *(len(other) for other, _ in scores))
    heads = f"{'games':>5}  {'won':>5}  {'drawn':>5}  {'lost':>5}  {'score':>5}  {'Elo':>5}  95 %"
    lines = [f"{first:<{width}}  {heads}"]
    for other, score in scores:
        counts = (score.games, score.won, score.drawn, score.lost)
        middle, low, high = score.elo
        numbers = "  ".join(f"{count:5d}" for count in counts)
        elos = f"{score.share:5.3f}  {middle:+5.0f}  {low:+.0f} to {high:+.0f}"
        lines.append(f"{other:<{width}}  {numbers}  {elos}")
    return lines


class _Match:
    """Two players, and what they have failed by."""

    def __init__(self, name: str, players: tuple[Player, Player], seed: int, opening: int) -> None:
        self.name, self.players, self.seed, self.opening = name, players, seed, opening
        self.faults: list[str] = []

    @property
    def broken(self) -> bool:
        """Whether it goes on no longer."""
        return len(self.faults) >= FAULTS

    def side_by_side(self, numbers: range) -> list[float]:
        """The results of some games for the first player, 1, 0 or -1; of those that ended."""
        played = [opened(self.name, self.opening, (self.seed, n // 2)) for n in numbers]
        colours = [n % 2 for n in numbers]  # the turn at which the first player moves
        found: dict[int, float] = {}
        while going := [i for i in range(len(played)) if i not in found]:
            for who, player in enumerate(self.players):
                mine = [i for i in going if (played[i].state.turn == colours[i]) == (who == 0)]
                moves = self._chosen(player, [played[i].stand for i in mine])
                for i, move in zip(mine, moves, strict=False):
                    if move is None:
                        found[i] = 1.0 if who else -1.0
                    else:
                        played[i].play(move)
                going = [i for i in going if i not in set(mine)]
            for i, colour in enumerate(colours):
                if i not in found and (result := played[i].result()) is not None:
                    found[i] = -result if colour else result
            if self.broken:
                break
        return [found[i] for i in sorted(found)]

    def _chosen(self, player: Player, stands: Sequence[Stand]) -> list[Move | None]:
        """A player's moves, None where he failed; fewer of them where that ends the match."""
        moves: list[Move | None] = []
        while len(moves) < len(stands) and not self.broken:
            try:
                moves += player.choose(self.name, stands[len(moves) :])
            except Fault as fault:
                self.faults.append(str(fault))
                moves += [*fault.moves, None]
        return moves


def opened(name: str, plies: int, seed: tuple[int, int]) -> Game:
    """A game after some moves of chance that does not end in them."""
    rng = np.random.default_rng(seed)
    game = Game(name)
    for _ in range(plies):
        moves = game.state.legal_moves()
        game.play(moves[int(rng.integers(len(moves)))])
        if game.result() is not None:
            return Game(name)
    return game
