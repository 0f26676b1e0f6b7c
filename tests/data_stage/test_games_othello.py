"""Othello: against published counts, a plain second implementation, and the WTHOR base."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.augment.transforms.boards import COUNT, squares
from modelwright.data.games import IllegalMove, begin, perft, replay
from modelwright.data.games.othello import PASS, State
from modelwright.data.readers.reader import Bad
from modelwright.data.readers.wthor import Reader
from modelwright.errors import ModelwrightError


@pytest.mark.parametrize(
    ("depth", "count"), [(1, 4), (2, 12), (3, 56), (4, 244), (5, 1396), (6, 8200)]
)
def test_as_many_games_as_published(depth: int, count: int) -> None:
    assert perft(begin("othello"), depth) == count


def plainly(board: list[list[int]], turn: int) -> dict[int, set[int]]:
    """Square -> what it would turn, found by walking; 1 and -1 are the players."""
    me = 1 if turn == 0 else -1
    found = {}
    for at in range(64):
        row, column = divmod(at, 8)
        if board[row][column]:
            continue
        turned: set[int] = set()
        for dy, dx in [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]:
            line, y, x = set(), row + dy, column + dx
            while 0 <= y < 8 and 0 <= x < 8 and board[y][x] == -me:
                line.add(8 * y + x)
                y, x = y + dy, x + dx
            if 0 <= y < 8 and 0 <= x < 8 and board[y][x] == me:
                turned |= line
        if turned:
            found[at] = turned
    return found


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False))
def test_bits_are_what_walking_finds(random: object) -> None:
    state = State.start()
    for _ in range(70):
        expected = plainly(state.board().tolist(), state.turn)
        moves = state.legal_moves()
        assert [m[0] for m in moves if m] == sorted(expected)
        for (square,) in (m for m in moves if m):
            assert {i for i in range(64) if state.flips(square) >> i & 1} == expected[square]
            assert state.parse(state.write((square,))) == (square,)
        if not moves:
            lead = int(state.board().sum())
            assert state.result() == (lead > 0) - (lead < 0)
            break
        assert state.result() is None
        state = state.play(random.choice(moves))  # type: ignore[attr-defined]
    else:
        pytest.fail("a game of Othello is over after 70 moves")


@settings(max_examples=16, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(0, COUNT - 1))
def test_a_turned_position_has_the_turned_moves(random: object, number: int) -> None:
    state, to = State.start(), squares(8, number)
    for _ in range(random.randrange(40)):  # type: ignore[attr-defined]
        moves = state.legal_moves()
        if not moves:
            break
        state = state.play(random.choice(moves))  # type: ignore[attr-defined]

    def moved(bits: int) -> int:
        return sum(1 << int(to[i]) for i in range(64) if bits >> i & 1)

    turned = State(moved(state.own), moved(state.other), state.turn)
    assert turned.placings() == moved(state.placings())


def test_a_year_of_real_games_is_legal(data: Callable[[str], Path], tmp_path: Path) -> None:
    """And where the rules end the game, black's discs are those of the base."""
    reader = Reader()
    path = data("othello_wthor/wthor.tar.gz")
    counted = finished = passes = 0
    for part in reader.cut(path):
        for number, row in enumerate(reader.rows(path, part)):
            assert not isinstance(row, Bad), row
            if number % 197:
                continue
            meta = row["meta"]
            pairs = list(replay(begin("othello"), meta["moves"]))
            passes += sum(move == PASS for _, move in pairs)
            state, move = pairs[-1]
            assert isinstance(state, State)
            last = state.play(move)
            counted += 1
            if last.result() is not None:
                finished += 1
                assert last.lead() // 2 + 32 == meta["discs"]
    assert counted > 500
    assert finished > 0.95 * counted
    assert passes > 200


def test_a_pass_is_forced_or_refused() -> None:
    with pytest.raises(IllegalMove, match="a pass where there is a move"):
        begin("othello").parse("pass")
    state = begin("othello", "XO" + "-" * 61 + "OO")  # white has nothing to enclose
    assert state.legal_moves() == [PASS]
    assert state.play(state.parse("pass")).legal_moves() == [(2,)]


@pytest.mark.parametrize(
    ("moves", "said"),
    [
        (["a1"], "move 1: a1: turns no disc"),
        (["d3", "d3"], "move 2: d3: the square is taken"),
        (["z9"], "move 1: 'z9' is no square"),
        (["43", "33", "99"], "move 3: '99' is no square"),
    ],
)
def test_an_illegal_move_is_named(moves: list[str], said: str) -> None:
    with pytest.raises(IllegalMove) as caught:
        list(replay(begin("othello"), moves))
    assert str(caught.value) == said


def test_empty_squares_are_the_winners() -> None:
    state = begin("othello", "XX" + "-" * 62 + "O")
    assert state.legal_moves() == []
    assert (state.result(), state.lead()) == (1.0, 64)
    with pytest.raises(ModelwrightError, match="is no position"):
        begin("othello", "XO")
