"""Play a board game as its records do: the move that was made, and how the game ended."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from modelwright.data import games
from modelwright.data.people import person
from modelwright.data.readers.pgn import parse_moves
from modelwright.errors import ModelwrightError
from modelwright.tasks import game_policies
from modelwright.tasks.task import Measured, Task
from modelwright.tasks.vector_classification import missing_column
from modelwright.types import Example, Label, Number, Policy, Position, Row, Turn

_RESULTS = {"1-0": 1.0, "0-1": -1.0, "1/2-1/2": 0.0}
_PLACED = "from position"  # a variant of Lichess: the rules of chess from a position of its own
_SIDES = ("mover", "other")  # of a position
_THIRD = "move among three"
BINS = 10  # of the calibration of values


class GamePlay(Task):
    """Rows with a game's ``moves`` and ``result``, one example a position.

    Args:
        game: a game of ``data/games``: chess, othello, checkers or connect4.
        skip: plies at the start that are not learned, as they are known by heart.
        player: learn the moves of this player alone, as the columns ``white`` and ``black`` name
            them; part of a name is enough.
        least_elo: learn the moves of players of at least this rating alone; those whose rating is
            not known are left out.
        winners: learn the moves of the side that won, and of both in a draw.
        shortest: plies of the shortest game that is kept.
    """

    codec = "boards"
    objective = "policy_value"
    model = "board"
    measure = "move match"
    specimen: ClassVar[Row] = {
        "id": "a",
        "game": "chess",
        "moves": "e4 e5 Nf3 Nc6 Bb5 a6 Bxc6 dxc6 O-O Bg4",
        "result": "1-0",
    }

    def __init__(
        self,
        *,
        game: str = "chess",
        skip: int = 0,
        player: str = "",
        least_elo: int = 0,
        winners: bool = False,
        shortest: int = 8,
    ) -> None:
        games.encoding(game)
        self.game, self.skip, self.player = game, skip, player.casefold()
        self.least_elo, self.winners, self.shortest = least_elo, winners, shortest

    def examples(self, row: Row) -> Iterator[Example] | str:
        """The positions of a game, or why it has none."""
        for name in ("moves", "result"):
            if name not in row:
                raise missing_column(row, name, "is read", name)
        if reason := self._unfit(row):
            return reason
        result = _RESULTS[str(row["result"]).strip()]
        try:
            start = games.begin(self.game, str(row.get("position") or ""))
        except ModelwrightError:
            return "no such position"
        try:
            played = list(games.replay(start, str(row["moves"]).split()))
        except games.IllegalMove:
            return "illegal move"
        if len(played) < self.shortest:
            return "too few moves"
        last, move = played[-1]
        decided = last.play(move).result()
        if decided and decided != result:
            return "result contradicts the board"
        wanted = [self._wanted(row, turn, result) for turn in (0, 1)]
        if not any(wanted) or len(played) <= self.skip:
            return "no move of a player who is learned from"
        return self._positions(played, wanted, result)

    def _unfit(self, row: Row) -> str:
        """Why a row is not learned from, as far as that is seen without playing; or nothing."""
        if row.get("problem"):
            return str(row["problem"])
        if str(row.get("game") or self.game) != self.game:
            return "another game"
        variant = str(row.get("variant") or "standard").casefold()
        if variant not in ("standard", "normal", _PLACED):
            return "a variant of the rules"
        if variant == _PLACED and not row.get("position"):
            return "no such position"
        if str(row["result"]).strip() not in _RESULTS:
            return "unfinished game"
        return ""

    def _wanted(self, row: Row, turn: int, result: float) -> bool:
        """Whether the moves of a side are learned, or measured."""
        colour = games.encoding(self.game).colours[turn]
        strangers = row.get("strangers")  # of a split by players
        if strangers and person(row.get(colour)) not in strangers:
            return False
        if self.player not in str(row.get(colour) or "").casefold():
            return False
        if self.least_elo and (row.get(f"{colour}_elo") or 0) < self.least_elo:
            return False
        return not (self.winners and result * (1 - 2 * turn) < 0)

    def _positions(
        self,
        played: Sequence[tuple[games.State, games.Move]],
        wanted: Sequence[bool],
        result: float,
    ) -> Iterator[Example]:
        seen, touched = games.encoding(self.game), 0
        for ply, (state, move) in enumerate(played):
            turn = state.turn
            if ply >= self.skip and wanted[turn] and move:  # a forced pass is no choice
                label = Label(seen.text(turn, seen.number(state, move)))
                value = Number(-result if turn else result)
                answer = Turn("assistant", (label, value), learn=True)
                yield Example((Turn("user", (Position(self.game, state, touched),)), answer))
            touched = seen.touched(state, move)

    def grade(self, example: Example, answer: Turn) -> float:
        """1 for the move that was played, else 0."""
        return float(answer.labels[:1] == best_labels(example)[:1])

    def marks(self, example: Example, answer: Turn) -> dict[str, float]:
        """Whether the move that was played is among the first three."""
        return {_THIRD: float(best_labels(example)[0] in answer.labels[:3])}

    def column(self, row: Row, name: str, example: Example) -> Any:
        """Also ``mover``, ``mover_elo``, ``other`` and ``other_elo``: the players and ratings."""
        who, _, what = name.partition("_")
        if who not in _SIDES or what not in ("", "elo"):
            return super().column(row, name, example)
        (position,) = example.given[0].positions
        turn = position.state.turn ^ _SIDES.index(who)
        colour = games.encoding(self.game).colours[turn]
        return row.get(f"{colour}_elo" if what else colour)

    def measures(self, examples: Sequence[Example], policy: Policy) -> list[Measured]:
        """How often the move played is the first and among the first three; how good values are."""
        answers = policy.answer([example.given for example in examples])
        meant = [best_labels(example)[0] for example in examples]
        first = [a.labels[:1] == (m,) for a, m in zip(answers, meant, strict=True)]
        third = [m in a.labels[:3] for a, m in zip(answers, meant, strict=True)]
        pairs = [
            (a.numbers[0], e.answer.numbers[0])
            for a, e in zip(answers, examples, strict=True)
            if a.numbers and math.isfinite(e.answer.numbers[0])
        ]
        found = [
            Measured(self.measure, statistics.fmean(first), note="the move played comes first"),
            Measured(_THIRD, statistics.fmean(third)),
        ]
        if pairs:
            off = statistics.fmean((said - is_) ** 2 for said, is_ in pairs)
            found.append(Measured("squared error of the value", off, "lower"))
            about = "of expected scores 0 to 1 in ten bins, |said - scored|, weighted by positions"
            found.append(Measured("calibration error", calibration(pairs), "lower", about))
        return found

    def baselines(self, train: Sequence[Example]) -> Mapping[str, Policy]:
        """Random, greedy and the most frequent legal move; values are the mean of train."""
        values = [n[0] for e in train if (n := e.answer.numbers) and math.isfinite(n[0])]
        mean = statistics.fmean(values) if values else 0.0
        return game_policies.baselines(train, mean)

    def question(self, text: str) -> Sequence[Turn]:
        """The position after moves such as "e4 e5", or one in the notation of the game."""
        text = text.strip()
        try:
            return (Turn("user", (Position(self.game, games.begin(self.game, text)),)),)
        except ModelwrightError:
            pass
        moves, _ = parse_moves(f"{text} *") if self.game == "chess" else (text.split(), None)
        state, touched = games.begin(self.game), 0
        for before, move in games.replay(state, moves):
            touched = games.encoding(self.game).touched(before, move)
            state = before.play(move)
        if not state.legal_moves():
            raise ModelwrightError(f"{text[:60]!r}: the game is over there; give fewer moves")
        return (Turn("user", (Position(self.game, state, touched),)),)


def best_labels(example: Example) -> tuple[str, ...]:
    """The moves to be learned, that of the largest share first."""
    labels, shares = example.answer.labels, example.answer.numbers[1:]
    if not shares:
        return labels
    order = sorted(range(len(labels)), key=lambda i: -shares[i])
    return tuple(labels[i] for i in order)


def calibration(pairs: Sequence[tuple[float, float]]) -> float:
    """The expected calibration error of values said and results, both -1 to 1.

    Σ_b n_b / n |mean said - mean result| / 2 over bins b of equal width of what was said.
    """
    bins: list[list[tuple[float, float]]] = [[] for _ in range(BINS)]
    for said, result in pairs:
        bins[min(BINS - 1, max(0, int((said + 1) / 2 * BINS)))].append((said, result))
    off = (
        len(some) * abs(statistics.fmean(s for s, _ in some) - statistics.fmean(r for _, r in some))
        for some in bins
        if some
    )
    return sum(off) / 2 / len(pairs)
