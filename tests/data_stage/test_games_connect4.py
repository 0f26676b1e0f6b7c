"""Connect Four against published counts and a plain second implementation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.games import IllegalMove, begin, perft
from modelwright.data.games.connect4 import State, connected
from modelwright.errors import ModelwrightError


@pytest.mark.parametrize(
    ("depth", "count"), [(1, 7), (2, 49), (3, 343), (4, 2401), (5, 16807), (6, 117649), (7, 823536)]
)
def test_as_many_games_as_published(depth: int, count: int) -> None:
    """At depth 7 a column is full for the first time, and nobody plays on after a win."""
    assert perft(begin("connect4"), depth) == count


def plainly(board: np.ndarray) -> bool:
    """Whether player 0 or 1 has four in a line, found by walking."""
    rows, columns = board.shape
    for row in range(rows):
        for column in range(columns):
            for down, across in ((0, 1), (1, 0), (1, 1), (1, -1)):
                cells = [
                    board[row + k * down, column + k * across]
                    for k in range(4)
                    if row + k * down < rows and 0 <= column + k * across < columns
                ]
                if len(cells) == 4 and abs(sum(map(int, cells))) == 4:
                    return True
    return False


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=42))
def test_a_game_ends_when_walking_finds_four(columns: list[int]) -> None:
    state = State.start()
    for column in columns:
        if (column,) not in state.legal_moves():
            continue
        state = state.play((column,))
        assert (state.result() in (1.0, -1.0)) == plainly(state.board())
        assert bool(state.legal_moves()) == (state.result() is None)
        assert State.of(str(state)) == state
    assert connected(state.other) == plainly(state.board())


def test_moves_are_columns_by_number_or_letter() -> None:
    state = State.start()
    assert state.parse("4") == state.parse(" d ") == (3,)
    assert state.write((3,)) == "4"
    for text in ("0", "8", "44", "", "x"):
        with pytest.raises(IllegalMove):
            state.parse(text)
    for _ in range(6):
        state = state.play((0,))
    with pytest.raises(IllegalMove, match="the column is full"):
        state.parse("1")


@pytest.mark.parametrize(
    "position", ["X" * 42, "-" * 41, "X" + "-" * 41, "-" * 40 + "OO", "?" * 42]
)
def test_positions_that_cannot_be_are_refused(position: str) -> None:
    with pytest.raises(ModelwrightError, match="connect4: "):
        begin("connect4", position)
