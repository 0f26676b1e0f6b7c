"""Matches, their scores and their Elo points; the ends of games that need the past."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelwright.play.game import Game, replayed
from modelwright.play.matches import Score, elo, match, opened
from modelwright.play.players import Chance, Greed, PlainSearch

counts = st.integers(0, 300)


@given(won=counts, drawn=counts, lost=counts)
@example(won=0, drawn=0, lost=254)
def test_a_score_lies_in_its_interval_and_turns_round(won: int, drawn: int, lost: int) -> None:
    if not won + drawn + lost:
        return
    score, turned = Score(won, drawn, lost), Score(lost, drawn, won)
    low, high = score.interval
    assert 0 <= low <= score.share + 1e-12
    assert score.share - 1e-12 <= high <= 1
    assert score.elo[0] == pytest.approx(-turned.elo[0])
    assert score.elo[1] == pytest.approx(-turned.elo[2])


def test_elo_is_the_usual_formula() -> None:
    assert elo(0.5) == 0
    assert elo(10 / 11) == pytest.approx(400)
    assert elo(1.0) == math.inf
    assert Score(100, 0, 0).interval[0] == pytest.approx(0.963, abs=1e-3)  # Wilson 1927
    low, high = Score(50, 0, 50).interval
    assert (low, high) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert "score 1.000, Elo +inf (95 %: -43 to +inf)" in Score(3, 0, 0).said()


def test_the_stronger_player_wins_the_match() -> None:
    score = match("connect4", PlainSearch(40, 1), Chance(2), 24)
    assert score.games == 24
    assert score.won >= 21
    turned = match("connect4", Chance(2), PlainSearch(40, 1), 24)
    assert turned.lost >= 21


def test_openings_are_played_with_both_colours() -> None:
    """Two players who are one and the same: what one wins with a colour, the other wins too."""

    class First:
        name = "first"

        def choose(self, game: str, stands: list) -> list:  # type: ignore[type-arg]
            return [stand.state.legal_moves()[0] for stand in stands]

    score = match("othello", First(), First(), 20)
    assert score.won == score.lost
    assert opened("chess", 4, (0, 3)).moves == opened("chess", 4, (0, 3)).moves
    assert opened("chess", 4, (0, 3)).moves != opened("chess", 4, (0, 4)).moves


def test_a_match_is_the_same_again() -> None:
    one, again = (match("othello", Greed(1), Chance(2), 10, seed=5) for _ in range(2))
    assert one == again


def test_the_third_repetition_is_a_draw() -> None:
    game = replayed("chess", ["Nf3", "Nf6", "Ng1", "Ng8"] * 2)
    assert game.result() == 0.0
    game.undo()
    assert game.result() is None
    game.play(game.state.parse("Nd5"))
    assert game.result() is None
    assert game.written()[-1] == "Nd5"


def test_moves_can_be_taken_back_to_the_start() -> None:
    game = Game("othello")
    rng = np.random.default_rng(0)
    for _ in range(20):
        moves = game.state.legal_moves()
        game.play(moves[int(rng.integers(len(moves)))])
    game.undo(50)
    assert game.state == Game("othello").state
    assert game.stand.touched == 0
    assert not game.moves
