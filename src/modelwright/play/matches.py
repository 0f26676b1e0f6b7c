"""Matches: many games with both colours from openings of chance, and what the score says.

The expected score of a player who is D Elo points stronger is s = 1 / (1 + 10^(-D / 400)), so a
score s over n games is D = 400 log10(s / (1 - s)). Its interval is Wilson's for a share s of n,
which is right where no game is drawn and a little wide where some are, and which holds for 0 and n
points as well (Wilson 1927).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from modelwright.play.game import Game
from modelwright.play.players import Player

Z = 1.96  # of a normal distribution: 95 % lie within
OPENING = 4  # plies of chance at the start, where games begin alike
_AT_ONCE = 64  # games that are played side by side


@dataclass(frozen=True)
class Score:
    """Games won, drawn and lost."""

    won: int
    drawn: int
    lost: int

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
    points: list[float] = []
    for first in range(0, games, _AT_ONCE):
        numbers = range(first, min(first + _AT_ONCE, games))
        points += _side_by_side(name, (one, other), numbers, seed, opening)
        tell(len(points))
    return Score(points.count(1.0), points.count(0.0), points.count(-1.0))


def _side_by_side(
    name: str, players: tuple[Player, Player], numbers: range, seed: int, opening: int
) -> list[float]:
    """The results of some games for the first player: 1, 0 or -1."""
    played = [opened(name, opening, (seed, number // 2)) for number in numbers]
    colours = [number % 2 for number in numbers]  # the turn at which the first player moves
    while going := [i for i, game in enumerate(played) if game.result() is None]:
        for who, player in enumerate(players):
            mine = [i for i in going if (played[i].state.turn == colours[i]) == (who == 0)]
            if mine:
                moves = player.choose(name, [played[i].stand for i in mine])
                for i, move in zip(mine, moves, strict=True):
                    played[i].play(move)
            going = [i for i in going if i not in set(mine)]
    results = [game.result() or 0.0 for game in played]
    return [-r if colour else r for r, colour in zip(results, colours, strict=True)]


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
