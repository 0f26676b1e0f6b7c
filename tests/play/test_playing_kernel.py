"""The kernel plays by the rules of ``data/games`` and searches as ``play/gumbel.py`` does."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from modelwright.data import games
from modelwright.data.codecs.boards import Codec
from modelwright.data.games import Move
from modelwright.data.games.tree_search import Judged, Search, Stand
from modelwright.kernels import playing
from modelwright.models.board import Config
from modelwright.play.game import Game
from modelwright.play.gumbel import choose
from modelwright.play.quick import Quick
from modelwright.play.self_play import Settings, quick_games
from tests.play.test_players import network

pytestmark = pytest.mark.skipif(
    not playing.native("connect4"), reason="there is no C++ compiler here"
)
KINDS = pytest.mark.parametrize("game", playing.GAMES)
_ALL = (1 << 64) - 1


def mixed(x: int) -> int:
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _ALL
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _ALL
    return x ^ x >> 31


def uniform(*parts: int) -> float:
    """As the kernel draws: of seed, game, ply and number."""
    h = parts[0]
    for part in parts[1:]:
        h = mixed(h + 0x9E3779B97F4A7C15 * (part + 1) & _ALL)
    return ((h >> 11) + 0.5) * 2.0**-53


class Noise:
    """The kernel's noise of one position, where a generator is expected."""

    def __init__(self, seed: int, game: int, ply: int) -> None:
        self.at = (seed, game, ply)

    def gumbel(self, size: int) -> NDArray[np.float64]:
        return np.array([-math.log(-math.log(uniform(*self.at, i))) for i in range(size)])


class Weighed:
    """A judge whose logits and value are sums of small whole numbers: exact in float32."""

    def __init__(self, game: str) -> None:
        seen = games.encoding(game)
        self.seen, self.shape = seen, (seen.rows, seen.columns, seen.planes)
        rng = np.random.default_rng(5)
        self.moves = seen.rows * seen.columns * seen.kinds + seen.others
        self.weights = rng.integers(-3, 4, (math.prod(self.shape), self.moves + 1)) / 8.0

    def outputs(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        found = features.reshape(len(features), -1).astype(np.float64) @ self.weights
        found[:, -1] = np.clip(found[:, -1] / 8, -1, 1)
        return found.astype(np.float32)

    def judge(self, stands: list[Stand], moves: list[list[Move]]) -> list[Judged]:
        found = []
        for stand, legal in zip(stands, moves, strict=True):
            planes = np.frombuffer(self.seen.seen(stand.state, stand.touched), np.uint8)
            bits = np.unpackbits(
                planes.reshape(self.shape[2], self.shape[0], 1), -1, self.shape[1], "little"
            )
            (out,) = self.outputs(bits.transpose(1, 2, 0)[None].astype(np.float32)).astype(float)
            chosen = np.exp(out[[self.seen.number(stand.state, m) for m in legal]])
            found.append(Judged(chosen / chosen.sum(), float(out[-1])))
        return found


def played(game: str, judge: Weighed, *, seed: int, **more: int) -> playing.Taken:
    given = {"games": 5, "at_once": 3, "simulations": 12, "considered": 8, "opening": 3, **more}
    with playing.Playing(game, seed=seed, **given) as players:
        outputs = None
        while len(features := players.step(outputs)):
            outputs = judge.outputs(features)
        return players.taken()


@KINDS
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, (1 << 63) - 1))
def test_every_position_follows_from_the_one_before_by_the_rules(game: str, seed: int) -> None:
    taken, seen = played(game, Weighed(game), seed=seed), games.encoding(game)
    number, last = -1, None
    for i in range(len(taken.values)):
        legal = taken.legal[taken.offsets[i] : taken.offsets[i + 1]].tolist()
        shares = taken.shares[taken.offsets[i] : taken.offsets[i + 1]]
        state, touched = seen.restored(taken.planes[i].tobytes(), int(taken.turns[i]), 0)
        assert seen.seen(state, touched) == taken.planes[i].tobytes()
        assert games.legal_numbers(game, state) == legal
        assert shares.sum() == pytest.approx(1, abs=1e-5)
        follows = last is not None and state in [last.play(m) for m in last.legal_moves()]
        number += not follows
        result = taken.results[number]
        assert taken.values[i] == (-result if state.turn else result)
        last = state
    assert number + 1 == 5


@KINDS
def test_the_search_is_the_one_in_python(game: str) -> None:
    """Every game is played again by ``choose`` with the kernel's noise: the same policies."""
    judge, seed = Weighed(game), 11
    taken, seen = played(game, judge, seed=seed, opening=0), games.encoding(game)
    search, rows = Search(game, judge, "puct"), iter(range(len(taken.values)))  # type: ignore[arg-type]
    for number in range(5):
        made = Game(game)
        for ply in itertools.count():
            if made.result() is not None:
                break
            i = next(rows)
            stand = made.stand
            assert seen.seen(stand.state, stand.touched) == taken.planes[i].tobytes()
            noise = Noise(seed, number, ply)
            ((move, policy),) = choose(search, [stand], noise, simulations=12, considered=8)  # type: ignore[arg-type]
            shares = taken.shares[taken.offsets[i] : taken.offsets[i + 1]]
            np.testing.assert_allclose(shares, policy, rtol=1e-4, atol=1e-6)
            made.play(stand.state.legal_moves()[move])
        assert made.result() == taken.results[number]
    assert next(rows, None) is None


@KINDS
def test_games_do_not_depend_on_how_many_are_played_side_by_side(game: str) -> None:
    judge = Weighed(game)
    one, other = (played(game, judge, seed=3, at_once=n) for n in (1, 4))
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left, right)
    different = played(game, judge, seed=4)
    assert different.planes.tobytes() != one.planes.tobytes()


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_what_is_folded_answers_as_the_model_does(norm: str) -> None:
    codec = Codec("connect4")
    torch.manual_seed(0)
    model = Config(**{**Config.specimen, **Config.data_fields(codec), "norm": norm}).build()
    features = np.random.default_rng(0).integers(0, 2, (50, 6, 7, 3)).astype(np.float32)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.1)
        model(torch.from_numpy(features))  # running statistics of batch norms
        plain = model.eval()(torch.from_numpy(features)).numpy()
    quick = Quick(model)
    assert quick.folded == (norm == "batch")
    near = 0.05 if quick.kind == torch.bfloat16 else 1e-4
    np.testing.assert_allclose(quick(features), plain, rtol=near, atol=near * np.abs(plain).max())


def test_rows_of_the_kernel_are_rows_of_the_codec() -> None:
    judge = network()
    rows, results = quick_games(judge, Settings(games=4, simulations=6), 1)
    assert len(results) == 4
    for row in rows:
        again = judge.codec.encode(judge.codec.example(row))
        assert again.keys() == row.keys()
        for name in ("planes", "legal", "played", "value", "turn", "game"):
            np.testing.assert_array_equal(again[name], row[name])
            assert again[name].dtype == row[name].dtype
