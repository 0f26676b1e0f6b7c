"""Play a board game better by playing against oneself, beginning with what records taught."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from modelwright.tasks.game_play import GamePlay


class SelfPlay(GamePlay):
    """Rows of games as ``game_play`` reads them, to watch and to measure by.

    The model learns from games that it plays itself in training: ``play/self_play.py``.

    Args:
        game: a game of ``data/games``.
        games: of a generation.
        simulations: visits of the search for each move.
        every: steps of training between two generations.
        window: generations that are learned from together.
        opening: plies of chance at the start of a game, at most.
        at_once: games side by side, of those that a kernel plays.
        pull_half: generations in which the objective's pull towards the policy that it began with
            halves; 0: it stays.
    """

    plays: ClassVar[str] = "self_play"

    def __init__(
        self,
        *,
        game: str = "chess",
        games: Annotated[int, Field(ge=1)] = 64,
        simulations: Annotated[int, Field(ge=2)] = 32,
        every: Annotated[int, Field(ge=1)] = 40,
        window: Annotated[int, Field(ge=1)] = 4,
        opening: Annotated[int, Field(ge=0)] = 4,
        at_once: Annotated[int, Field(ge=1)] = 128,
        pull_half: Annotated[float, Field(ge=0)] = 5.0,
    ) -> None:
        super().__init__(game=game)
        self.settings = {
            "games": games,
            "simulations": simulations,
            "steps": every,
            "window": window,
            "opening": opening,
            "at_once": at_once,
            "pull_half": pull_half,
        }
