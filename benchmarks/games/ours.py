"""One generation of self-play, as ``play/self_play.py`` plays it in training."""

from __future__ import annotations

import json
import time

from benchmarks.games.network import network, options
from modelwright.data.codecs.boards import Codec
from modelwright.objectives.policy_value import Objective
from modelwright.play.players import Network
from modelwright.play.self_play import Settings, quick_games


def main() -> None:
    """Print positions and seconds."""
    chosen = options(__doc__)
    codec = Codec("connect4")
    judge = Network(network(codec), codec, Objective(codec))
    few = Settings(games=8, simulations=chosen.simulations, at_once=chosen.games)
    quick_games(judge, few, 0)  # kernels are loaded, memory is there
    began = time.perf_counter()
    settings = Settings(games=chosen.games, simulations=chosen.simulations, at_once=chosen.games)
    rows, results = quick_games(judge, settings, 1)
    seconds = time.perf_counter() - began
    print(json.dumps({"positions": len(rows), "games": len(results), "seconds": seconds}))


if __name__ == "__main__":
    main()
