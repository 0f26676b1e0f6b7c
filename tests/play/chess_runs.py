"""A small run of chess, for tests of what plays by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from modelwright import api
from modelwright.play.game import Game

RESULTS = {1.0: "1-0", -1.0: "0-1", 0.0: "1/2-1/2"}
TINY = ("data.columns={}", "data.split={by: row, validation: 0.2, test: 0.2}", "train.steps=4",
        "train.batch=16", "train.threads=1", "train.compile=false", "model.width=8",
        "model.depth=1")  # fmt: skip


def games_of_chance(path: Path, games: int = 12, plies: int = 20) -> Path:
    """Write a PGN of games of chance, each ended by agreement after some moves."""
    written = []
    for number in range(games):
        game, rng = Game("chess"), np.random.default_rng(number)
        while len(game.moves) < plies and game.result() is None:
            moves = game.state.legal_moves()
            game.play(moves[int(rng.integers(len(moves)))])
        result = RESULTS[game.result() or 0.0]
        tags = f'[Event "chance"]\n[White "A{number % 3}"]\n[Black "B{number % 4}"]\n'
        tags += f'[WhiteElo "{2000 + 2 * number}"]\n[BlackElo "{2201 - 2 * number}"]\n'
        tags += f'[Date "{1990 + number}.01.01"]\n[Result "{result}"]\n'
        written.append(f"{tags}\n{' '.join(game.written())} {result}\n\n")
    path.write_text("".join(written), encoding="utf-8")
    return path


def run_of_chess(folder: Path) -> Path:
    """Train for a moment on such games; the run's folder."""
    out = folder / "chess"
    source = games_of_chance(folder / "chance.pgn")
    api.train("chess-moves", f"data.source={source}", *TINY, out=out)
    return out
