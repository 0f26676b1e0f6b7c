"""Games that are played here, since nobody has recorded any: both sides by plain search."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from modelwright.data.games import Move, begin, encoding
from modelwright.data.games.tree_search import Rollouts, Search, Stand
from modelwright.errors import ModelwrightError
from modelwright.types import Row

GAMES = 2000
ROLLOUTS = 60  # a move: enough to see a threat, too few to play well
OPENING = 4  # plies of chance, so that games differ


def connect4_rows(path: Path | None = None) -> Iterator[Row]:
    """2,000 games of Connect Four, each in its turn, so that fewer cost less.

    Raises:
        ModelwrightError: a path is given; nothing is read.
    """
    if path is not None:
        raise ModelwrightError("data set 'connect4-played' is played here: leave out 'path'")
    for number in range(GAMES):
        yield {"id": f"connect4:{number}", **_game("connect4", number)}


def _game(game: str, number: int) -> Row:
    rng, judge = np.random.default_rng(number), Rollouts(number)
    seen, search = encoding(game), Search(game, judge, "uct")
    state, touched = begin(game), 0
    written: list[str] = []
    while moves := state.legal_moves():
        if len(written) < OPENING:
            move: Move = moves[int(rng.integers(len(moves)))]
        else:
            (root,) = search.roots([Stand(state, touched)])
            search.grow([root], ROLLOUTS)
            move = moves[int(root.visits.argmax())]
        written.append(state.write(move))
        touched, state = seen.touched(state, move), state.play(move)
    result = {1.0: "1-0", -1.0: "0-1", 0.0: "1/2-1/2"}[state.result() or 0.0]
    return {"game": game, "moves": " ".join(written), "result": result}
