"""Players: search finds what there is to find, and a network is asked in batches."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data import games
from modelwright.data.codecs.boards import Codec
from modelwright.data.games import Move
from modelwright.data.games.recorded_play import connect4_rows
from modelwright.data.games.tree_search import Judged, Node, Rollouts, Search, Stand
from modelwright.models.board import Config
from modelwright.objectives.policy_value import Objective
from modelwright.play.game import Game, replayed
from modelwright.play.gumbel import choose, improved, levels
from modelwright.play.players import Chance, Greed, Network, NetworkSearch, PlainSearch, Policy
from modelwright.tasks.game_play import GamePlay

THREE = "1 7 2 7 3 6"  # the player to move wins with 4
BLOCK = "1 7 2 7 1 7"  # the player to move must block column 7


def network(game: str = "connect4", seed: int = 0) -> Network:
    codec = Codec(game)
    torch.manual_seed(seed)
    fields = {**Config.specimen, **Config.data_fields(codec)}
    model = Config(**fields).build()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.1)
    return Network(model.eval(), codec, Objective(codec))


def stand(game: str, moves: str) -> Stand:
    return replayed(game, moves.split()).stand


class Counting:
    """A judge who knows nothing, and remembers how it was asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def judge(self, stands: Sequence[Stand], moves: Sequence[Sequence[Move]]) -> list[Judged]:
        self.asked.append(len(stands))
        return [Judged(np.full(len(m), 1 / len(m)), 0.0) for m in moves]


@pytest.mark.parametrize("moves", [THREE, BLOCK])
def test_search_with_games_of_chance_sees_one_move_ahead(moves: str) -> None:
    wanted = {THREE: (3,), BLOCK: (6,)}[moves]
    assert PlainSearch(300).choose("connect4", [stand("connect4", moves)]) == [wanted]


@pytest.mark.parametrize("rule", ["uct", "puct"])
def test_a_win_is_found_by_a_judge_who_knows_nothing(rule: Any) -> None:
    search = Search("connect4", Counting(), rule)
    (root,) = search.roots([stand("connect4", THREE)])
    search.grow([root], 200)
    assert root.moves[int(root.visits.argmax())] == (3,)
    assert root.means[3] == 1
    assert root.visits.sum() == 200


@settings(max_examples=20, deadline=None)
@given(at_once=st.integers(1, 9), simulations=st.integers(1, 60), seed=st.integers(0, 9))
def test_visits_add_up_at_every_node(at_once: int, simulations: int, seed: int) -> None:
    search = Search("othello", Rollouts(seed), "puct", at_once)
    roots = search.roots([Game("othello").stand] * 2)
    search.grow(roots, simulations)
    for root in roots:
        assert root.visits.sum() == simulations
        _check(root)


def _check(node: Node) -> None:
    for i, child in node.children.items():
        assert abs(node.values[i]) <= node.visits[i] + 1e-9
        if child.moves:
            assert child.visits.sum() <= node.visits[i]
            _check(child)
    assert set(node.children) == set(np.flatnonzero(node.visits).tolist())


def test_leaves_of_many_trees_are_judged_together() -> None:
    judge = Counting()
    search = Search("connect4", judge, "puct", at_once=4)
    roots = search.roots([Game("connect4").stand] * 8)
    search.grow(roots, 16)
    assert judge.asked[0] == 8
    assert len(judge.asked) == 5
    assert max(judge.asked) <= 32


@pytest.mark.parametrize("game", games.names())
def test_a_network_gives_every_legal_move_its_share(game: str) -> None:
    judge, made = network(game), Game(game)
    rng = np.random.default_rng(1)
    stands = []
    for _ in range(12):
        stands.append(made.stand)
        moves = made.state.legal_moves()
        made.play(moves[int(rng.integers(len(moves)))])
    legal = [s.state.legal_moves() for s in stands]
    together = judge.judge(stands, legal)
    for one, moves, judged in zip(stands, legal, together, strict=True):
        assert len(judged.priors) == len(moves)
        assert judged.priors.sum() == pytest.approx(1)
        assert -1 <= judged.value <= 1
        (alone,) = judge.judge([one], [moves])
        np.testing.assert_allclose(alone.priors, judged.priors, atol=1e-5)
    assert Policy(judge).choose(game, stands[:1])[0] in legal[0]


def test_search_improves_on_a_network_that_knows_nothing() -> None:
    judge = network()
    assert NetworkSearch(judge, 200).choose("connect4", [stand("connect4", THREE)]) == [(3,)]


def test_players_of_chance_repeat_with_their_seed() -> None:
    stands = [Game("chess").stand] * 9
    for kind in (Chance, Greed):
        assert kind(3).choose("chess", stands) == kind(3).choose("chess", stands)
        assert len(set(kind(3).choose("chess", stands))) > 1
    (taken,) = Greed(0).choose("chess", [stand("chess", "e4 d5")])
    assert taken == replayed("chess", ["e4", "d5"]).state.parse("exd5")


@given(moves=st.integers(1, 40), simulations=st.integers(1, 200))
def test_sequential_halving_gives_every_survivor_as_many_visits(
    moves: int, simulations: int
) -> None:
    found = levels(moves, simulations)
    assert len(found) == simulations
    assert found == sorted(found)
    counts = [found.count(level) for level in range(max(found) + 1)]
    assert all(a >= b for a, b in itertools.pairwise(counts))
    assert counts[0] == min(moves, simulations)


def test_few_visits_make_a_better_policy() -> None:
    search = Search("connect4", Counting(), "puct")
    at = stand("connect4", THREE)
    (found,) = choose(search, [at], np.random.default_rng(0), simulations=16)
    assert found.move == 3
    assert found.policy.sum() == pytest.approx(1)
    assert found.policy.argmax() == 3
    (root,) = search.roots([at])
    np.testing.assert_allclose(improved(root), root.priors)  # nothing has been tried


def test_games_to_begin_with_can_be_learned_from() -> None:
    first, again = (
        [row for row, _ in zip(connect4_rows(), range(2), strict=False)] for _ in range(2)
    )
    assert first == again
    assert first[0] != first[1]
    task = GamePlay(game="connect4", shortest=1)
    assert all(not isinstance(task.examples(row), str) for row in first)
