"""Answers to positions of games that need no model: what a model's moves are measured beside."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from modelwright.data import games
from modelwright.data.games.greedy_choice import by_greed
from modelwright.types import Example, Label, Number, Policy, Position, Turn

SHOWN = 3  # moves of an answer


class _Ranking(ABC):
    """A policy that ranks the legal moves of each position, and always says the same value."""

    def __init__(self, value: float) -> None:
        self.value = value

    def answer(self, given: Sequence[Sequence[Turn]]) -> list[Turn]:
        """The first three moves and the value, for each position."""
        return [self._one(position) for turns in given for t in turns for position in t.positions]

    def _one(self, position: Position) -> Turn:
        text, turn = games.encoding(position.game).text, position.state.turn
        labels = [Label(text(turn, number)) for number in self.ranked(position)[:SHOWN]]
        return Turn("assistant", (*labels, Number(self.value)))

    @abstractmethod
    def ranked(self, position: Position) -> list[int]:
        """The numbers of the legal moves, the best first."""


class Random(_Ranking):
    """Any legal move: drawn by the position, so that it is the same each time."""

    def ranked(self, position: Position) -> list[int]:
        """The legal moves in an order of chance."""
        legal = games.legal_numbers(position.game, position.state)
        rng = np.random.default_rng(zlib.crc32(str(position.state).encode()))
        return [legal[i] for i in rng.permutation(len(legal))]


class Greedy(_Ranking):
    """What wins most on the board at once."""

    def ranked(self, position: Position) -> list[int]:
        """The moves by what stands on the board after them."""
        number, state = games.encoding(position.game).number, position.state
        return [number(state, move) for move in by_greed(position.game, state)]


class Usual(_Ranking):
    """The legal move that was played most often in train, wherever it was."""

    def __init__(self, train: Sequence[Example], value: float) -> None:
        super().__init__(value)
        self.counts = Counter(name for example in train for name in example.answer.labels)

    def ranked(self, position: Position) -> list[int]:
        """The legal moves by how often they were played."""
        text, turn = games.encoding(position.game).text, position.state.turn
        legal = games.legal_numbers(position.game, position.state)
        return sorted(legal, key=lambda number: -self.counts[text(turn, number)])


def baselines(train: Sequence[Example], value: float) -> Mapping[str, Policy]:
    """Policies by name; ``value`` is what they say of every position."""
    return {
        "random legal move": Random(value),
        "greedy": Greedy(value),
        "most frequent move": Usual(train, value),
    }
