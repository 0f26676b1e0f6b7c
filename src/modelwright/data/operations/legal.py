"""Replay every game by its rules; drop what no player could have played.

Rows of another modality pass. A game row's ``meta`` has ``game``, ``moves`` (a list of texts)
and, where it did not begin at the start, ``position``; ``result`` is compared with the board
where the rules decide it. Attributes: legal.plies, legal.finished (whether the rules ended the
game), and for a game that leaves legal.problem with the number of the move.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from modelwright.data import games
from modelwright.data.operations.operation import Step, WorkRow
from modelwright.errors import ModelwrightError

_WRITTEN = {"1-0": 1.0, "0-1": -1.0, "1/2-1/2": 0.0}


@dataclass(frozen=True)
class Operation:
    """Checks of games.

    Attributes:
        shortest: fewest plies.
        result: also drop a game whose recorded result contradicts its final position.
    """

    version: ClassVar[int] = 1

    shortest: Annotated[int, Field(ge=0)] = 1
    result: bool = True

    def assets(self) -> dict[str, str]:
        """Nothing beside the row is read."""
        return {}

    def begin(self) -> Step:
        """The check of one row."""
        return self._check

    def _check(self, row: WorkRow) -> str | None:
        if row.get("modality") != "game":
            return None
        meta = described(row)
        game, moves = meta.get("game"), meta.get("moves")
        attributes = row["attributes"]
        if game not in games.names():
            return "a game without known rules"
        if not isinstance(moves, list) or len(moves) < self.shortest:
            return "too few moves"
        try:
            state, plies = played(meta)
        except ModelwrightError as error:
            attributes["legal.problem"] = str(error)
            return "illegal move" if isinstance(error, games.IllegalMove) else "no such position"
        decided = state.result()
        attributes["legal.plies"], attributes["legal.finished"] = plies, decided is not None
        written = result_of(meta.get("result"))
        # A game may also end by word of the players, so only what the rules decide is compared;
        # a draw that the rules allow need not have been claimed.
        if self.result and decided and written is not None and written != decided:
            attributes["legal.problem"] = f"recorded {meta['result']}, on the board {decided:g}"
            return "result contradicts the board"
        return None


def described(row: WorkRow) -> Mapping[str, Any]:
    """The ``meta`` of a row, which is JSON once it is written."""
    meta = row.get("meta") or {}
    found = json.loads(meta) if isinstance(meta, str) else meta
    return found if isinstance(found, Mapping) else {}


def played(meta: Mapping[str, Any]) -> tuple[games.State, int]:
    """The last state of a game row, and how many moves led to it, passes included.

    Raises:
        IllegalMove: with the number of the move.
        ModelwrightError: the game or its first position is unknown.
    """
    state = games.begin(meta["game"], str(meta.get("position") or ""))
    plies = 0
    for before, move in games.replay(state, map(str, meta["moves"])):
        state, plies = before.play(move), plies + 1
    return state, plies


def result_of(written: Any) -> float | None:
    """A recorded result as 1, 0 or -1 for who began, None where it is not known."""
    return _WRITTEN.get(str(written).strip())
