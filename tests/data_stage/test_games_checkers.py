"""Checkers: published counts, the rules of jumping, and 9,377 games of the ACF."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.games import IllegalMove, begin, perft, replay
from modelwright.data.games.checkers import DRAWN_AFTER, State
from modelwright.data.readers.checkers import Reader
from modelwright.data.readers.reader import Bad
from modelwright.errors import ModelwrightError


@pytest.mark.parametrize(
    ("depth", "count"), [(1, 7), (2, 49), (3, 302), (4, 1469), (5, 7361), (6, 36768)]
)
def test_as_many_games_as_published(depth: int, count: int) -> None:
    assert perft(begin("checkers"), depth) == count


def written(position: str) -> set[str]:
    state = begin("checkers", position)
    return {state.write(move) for move in state.legal_moves()}


@pytest.mark.parametrize(
    ("position", "moves"),
    [
        ("B:W18:B1,15", {"15x22"}),  # a jump must be taken
        ("B:W18,26:B15", {"15x22x31"}),  # and to its end
        ("B:W26,27:B22", {"22x31"}),  # a man that is crowned stops, though a king could go on
        ("B:W26,27:BK22", {"22x31x24"}),
        ("B:W18,19:B15", {"15x22", "15x24"}),  # any jump may be chosen, not the longest alone
        ("B:W18:BK27", {"27-23", "27-24", "27-31", "27-32"}),
        ("W:W18:B14,15", {"18x9", "18x11"}),
        ("B:W6,7,14,15:BK10", {"10x1", "10x3", "10x17", "10x19"}),
    ],
)
def test_jumps(position: str, moves: set[str]) -> None:
    assert written(position) == moves


def test_a_king_may_come_back_to_where_it_began() -> None:
    """Around a square of four men: its own square is empty while it jumps."""
    state = begin("checkers", "B:W6,7,14,15:BK2")
    loops = [m for m in state.legal_moves() if m[0] == m[-1]]
    assert {state.write(m) for m in loops} == {"2x9x18x11x2", "2x11x18x9x2"}
    after = state.play(loops[0])
    assert (after.white, after.result()) == (0, 1.0)


def test_what_was_jumped_is_gone_and_a_man_on_the_last_row_is_a_king() -> None:
    state = begin("checkers", "B:W18,26:B15")
    after = state.play(state.parse("15x31"))  # squares between may be left out
    assert after.white == 0
    assert after.board()[7].tolist().count(2) == 1
    assert after.result() == 1.0  # white cannot move


@pytest.mark.parametrize(
    ("moves", "said"),
    [
        (["11-16", "22-18", "8-11", "18-15", "12-17"], "must be taken"),
        (["11-20"], "move 1: 11-20: not a legal move"),
        (["11"], "move 1: '11' is no move"),
        (["22-18"], "move 1: 22-18: not a legal move"),
    ],
)
def test_an_illegal_move_is_named(moves: list[str], said: str) -> None:
    with pytest.raises(IllegalMove) as caught:
        list(replay(begin("checkers"), moves))
    assert said in str(caught.value)


def test_two_ways_between_the_same_squares_must_be_told_apart() -> None:
    state = begin("checkers", "B:W6,7,14,15:BK2")
    with pytest.raises(IllegalMove, match="could be any of 2"):
        state.parse("2x2")


def test_no_progress_is_a_draw() -> None:
    state = begin("checkers", "B:WK32:BK1")
    for number in range(DRAWN_AFTER):
        assert state.result() is None, number
        state = state.play(state.legal_moves()[0])
    assert state.result() == 0.0


def test_real_games_are_legal(data: Callable[[str], Path]) -> None:
    """And who won was ahead on the board at the end, mostly: players resign when they are lost."""
    path, reader = data("checkers_acf/ACF.txt.gz"), Reader()
    found = [row for part in reader.cut(path) for row in reader.rows(path, part)]
    games = [row["meta"] for row in found if not isinstance(row, Bad)]
    assert len(games) == 9377
    plies = chains = ahead = behind = 0
    for meta in games[::6]:
        pairs = list(replay(begin("checkers"), meta["moves"]))
        plies += len(pairs)
        chains += sum(len(move) > 2 for _, move in pairs)
        state, move = pairs[-1]
        lead = int(state.play(move).board().sum()) * {"1-0": 1, "0-1": -1}.get(meta["result"], 0)
        ahead += lead > 0
        behind += lead < 0
    assert plies > 60_000
    assert chains > 1000
    assert ahead > 5 * behind


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False))
def test_along_a_random_game(random: object) -> None:
    """Moves read back, all are jumps or none is, and pieces only ever leave by being jumped."""
    state = State.start()
    for _ in range(120):
        moves = state.legal_moves()
        if not moves:
            assert state.result() in (1.0, -1.0)
            break
        assert len({state._is_jump(m) for m in moves}) == 1
        assert all(state.parse(state.write(m)) == m for m in moves)
        move = random.choice(moves)  # type: ignore[attr-defined]
        before, after = state.board(), state.play(move).board()
        lost = np.count_nonzero(before) - np.count_nonzero(after)
        assert lost == (len(move) - 1 if state._is_jump(move) else 0)
        state = state.play(move)


@pytest.mark.parametrize("position", ["", "B:W33:B1", "W:W1:B1", "start", "B:B1:B2"])
def test_positions_that_are_none(position: str) -> None:
    with pytest.raises(ModelwrightError, match="checkers: "):
        State.of(position)
