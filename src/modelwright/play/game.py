"""A game on its way: the state, what was moved last, and the ends that need the past."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from modelwright.data.games import Move, State, begin, encoding
from modelwright.data.games.tree_search import Stand

REPEATS = 3  # times that a position may come: then the game is a draw
LONGEST = 400  # plies after which a game is given up as a draw


class Game:
    """The states of one game in their order."""

    def __init__(self, game: str, position: str = "") -> None:
        self.name = game
        self.states: list[State] = [begin(game, position)]
        self.moves: list[Move] = []
        self._counts = Counter([_same(self.state)])

    @property
    def state(self) -> State:
        """Where it stands."""
        return self.states[-1]

    @property
    def stand(self) -> Stand:
        """The state with the squares of the last move, and the moves before it."""
        touched = encoding(self.name).touched
        last = touched(self.states[-2], self.moves[-1]) if self.moves else 0
        return Stand(self.state, last, tuple(zip(self.states, self.moves, strict=False)))

    def play(self, move: Move) -> None:
        """Go on by a legal move."""
        self.states.append(self.state.play(move))
        self.moves.append(move)
        self._counts[_same(self.state)] += 1

    def undo(self, plies: int = 1) -> None:
        """Take back moves, as far as there are any."""
        for _ in range(min(plies, len(self.moves))):
            self._counts[_same(self.states.pop())] -= 1
            self.moves.pop()

    def result(self) -> float | None:
        """1, 0 or -1 for who began, None while it goes on; the third repetition is a draw."""
        if (result := self.state.result()) is not None:
            return result
        drawn = self._counts[_same(self.state)] >= REPEATS or len(self.moves) >= LONGEST
        return 0.0 if drawn else None

    def written(self) -> list[str]:
        """The moves in the game's notation."""
        return [s.write(m) for s, m in zip(self.states, self.moves, strict=False)]


def _same(state: State) -> object:
    """What is the same in positions that repeat: by the rules' own key, else the board."""
    return getattr(state, "key", None) or (state.board().tobytes(), state.turn)


def replayed(game: str, moves: Sequence[str], position: str = "") -> Game:
    """A game after moves in its notation.

    Raises:
        IllegalMove: one is not legal.
    """
    made = Game(game, position)
    for text in moves:
        made.play(made.state.parse(text))
    return made
