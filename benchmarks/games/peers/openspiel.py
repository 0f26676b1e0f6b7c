"""Self-play as the AlphaZero of OpenSpiel does it, its network being one of PyTorch.

``MCTSBot`` with PUCT, noise at the root and a memory of what was judged, and moves drawn by visits
for the first plies, as in ``open_spiel/python/algorithms/alpha_zero``: its settings, its order.
"""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pyspiel
import torch
from open_spiel.python.algorithms import mcts
from open_spiel.python.utils import lru_cache

from benchmarks.games.network import network, options
from modelwright.data.codecs.boards import Codec

PUCT, EPSILON, ALPHA, DROP = 2.0, 0.25, 1.0, 10
MOVES = 7


class Evaluator(mcts.Evaluator):  # type: ignore[misc]  # it has no types
    """The network as a judge of one position at a time."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model, self.cache = model, lru_cache.LRUCache(2**16)

    def _judged(self, state: Any) -> tuple[float, np.ndarray]:
        planes = np.asarray(state.observation_tensor(), np.float32)
        return self.cache.make(planes.tobytes(), lambda: self._asked(planes, state))

    def _asked(self, planes: np.ndarray, state: Any) -> tuple[float, np.ndarray]:
        with torch.inference_mode():
            features = torch.from_numpy(planes).view(1, 3, 6, 7).permute(0, 2, 3, 1)
            outputs = self.model(features)[0].numpy()
        logits = np.full(MOVES, -np.inf)
        legal = state.legal_actions()
        logits[legal] = outputs[:MOVES][legal]
        chances = np.exp(logits - logits[legal].max())
        return float(outputs[-1]), chances / chances.sum()

    def evaluate(self, state: Any) -> np.ndarray:
        """The value for both players."""
        value, _ = self._judged(state)
        return np.array([value, -value])

    def prior(self, state: Any) -> list[tuple[int, float]]:
        """The probability of each legal move."""
        _, chances = self._judged(state)
        return [(action, chances[action]) for action in state.legal_actions()]


def played(game: Any, bots: list[Any]) -> int:
    """One game; how many positions it had."""
    state, count = game.new_initial_state(), 0
    while not state.is_terminal():
        root = bots[state.current_player()].mcts_search(state)
        policy = np.zeros(game.num_distinct_actions())
        for child in root.children:
            policy[child.action] = child.explore_count
        policy /= policy.sum()
        drawn = np.random.choice(len(policy), p=policy)
        state.apply_action(int(drawn) if count < DROP else root.best_child().action)
        count += 1
    return count


def main() -> None:
    """Print positions and seconds."""
    chosen = options(__doc__)
    np.random.seed(1)
    game = pyspiel.load_game("connect_four")

    def bots() -> list[Any]:
        evaluator = Evaluator(network(Codec("connect4")).to(memory_format=torch.channels_last))
        return [
            mcts.MCTSBot(
                game,
                PUCT,
                chosen.simulations,
                evaluator,
                solve=False,
                dirichlet_noise=(EPSILON, ALPHA),
                child_selection_fn=mcts.SearchNode.puct_value,
                dont_return_chance_node=True,
            )
            for _ in range(2)
        ]

    played(game, bots())  # what is made on first use is there; the memory is empty again
    fresh = bots()
    began = time.perf_counter()
    count = sum(played(game, fresh) for _ in range(chosen.games))
    seconds = time.perf_counter() - began
    print(json.dumps({"positions": count, "games": chosen.games, "seconds": seconds}))


if __name__ == "__main__":
    main()
