"""How networks see games: planes and numbers of moves, both ways, for every game there is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data import games
from modelwright.data.augment.transforms.boards import BoardSymmetry
from modelwright.data.codecs.boards import Codec, padded, unpacked
from modelwright.data.games.greedy_choice import by_greed, gains
from modelwright.errors import ModelwrightError
from modelwright.types import Position, stack

every_game = pytest.mark.parametrize("game", games.names())
choices = st.lists(st.integers(0, 1000), max_size=60)


def walked(game: str, drawn: list[int]) -> list[Position]:
    """The positions of a game whose moves are chosen by numbers, the end left out."""
    state, touched, found = games.begin(game), 0, []
    seen = games.encoding(game)
    for number in [*drawn, 0]:
        moves = state.legal_moves()
        if not moves:
            break
        found.append(Position(game, state, touched))
        move = moves[number % len(moves)]
        touched, state = seen.touched(state, move), state.play(move)
    return found


@every_game
@settings(max_examples=15, deadline=None)
@given(drawn=choices)
def test_a_position_is_what_its_planes_say(game: str, drawn: list[int]) -> None:
    seen = games.encoding(game)
    for position in walked(game, drawn):
        state, planes = position.state, seen.seen(position.state, position.touched)
        assert len(planes) == seen.planes * seen.rows
        again, touched = seen.restored(planes, state.turn, seen.clock(state))
        assert np.array_equal(again.board(), state.board())
        assert again.legal_moves() == state.legal_moves()
        assert seen.seen(again, touched) == planes
        assert games.begin(game, str(state)).legal_moves() == state.legal_moves()


@every_game
@settings(max_examples=15, deadline=None)
@given(drawn=choices)
def test_moves_have_numbers_and_numbers_moves(game: str, drawn: list[int]) -> None:
    seen, codec = games.encoding(game), Codec(game)
    for position in walked(game, drawn)[-5:]:
        state = position.state
        legal = games.legal_numbers(game, state)
        assert len(set(legal)) == len(legal)
        assert all(0 <= number < codec.moves for number in legal)
        for number in legal:
            move = games.numbered(game, state, number)
            assert seen.number(state, move) == number
            # Chains of jumps between the same squares share a number, and so their text.
            if sum(seen.number(state, m) == number for m in state.legal_moves()) == 1:
                assert state.parse(seen.text(state.turn, number)) == move
        outside = next(n for n in range(codec.moves) if n not in legal)
        with pytest.raises(games.IllegalMove, match=f"move number {outside} is not legal"):
            games.numbered(game, state, outside)


def test_black_sees_chess_as_white_does() -> None:
    """The same position with colours changed and turned upside down is the same to a network."""
    white = games.begin("chess", "r3k2r/8/8/3pP3/8/8/8/R3K1R1 w Qkq d6 0 1")
    black = games.begin("chess", "r3k1r1/8/8/8/3Pp3/8/8/R3K2R b KQq d3 0 1")
    seen = games.encoding("chess")
    assert seen.seen(white, 1 << 11 | 1 << 27) == seen.seen(black, 1 << 51 | 1 << 35)
    assert set(games.legal_numbers("chess", white)) == set(games.legal_numbers("chess", black))
    texts = {seen.text(1, n) for n in games.legal_numbers("chess", black)}
    assert {"e4d3", "e8c8"} <= texts


@pytest.mark.parametrize("game", ["othello", "connect4"])
@settings(max_examples=20, deadline=None)
@given(drawn=choices, seed=st.integers(0, 99))
def test_moves_follow_their_boards(game: str, drawn: list[int], seed: int) -> None:
    """What is legal on the turned board is what the turned moves say."""
    codec = Codec(game)
    positions = walked(game, drawn)
    rows = []
    for position in positions:
        legal = games.legal_numbers(game, position.state)
        rows.append(codec.stored(position, legal, {legal[-1]: 1.0}, 1.0))
    columns = stack(rows, codec.ragged)
    changed = BoardSymmetry().columns(columns, np.random.default_rng(seed))
    for i, position in enumerate(positions):
        row = {name: np.asarray(column[i]) for name, column in changed.items()}
        state = codec.example(row).given[0].positions[0].state
        assert set(row["legal"].tolist()) == set(games.legal_numbers(game, state))
        after = state.play(games.numbered(game, state, int(row["played"][0])))
        old = position.state
        before = old.play(games.numbered(game, old, rows[i]["played"][0]))
        assert after.result() == before.result()
        assert abs(after.board()).sum() == abs(before.board()).sum()


def test_a_game_without_symmetries_says_so() -> None:
    codec = Codec("chess")
    (position,) = walked("chess", [])
    row = codec.stored(position, games.legal_numbers("chess", position.state), {}, 0.0)
    with pytest.raises(ModelwrightError, match="board_symmetry: chess has none"):
        BoardSymmetry().columns(stack([row], codec.ragged), np.random.default_rng(0))


def test_planes_are_unpacked_square_by_square() -> None:
    codec = Codec("connect4")
    state = games.begin("connect4").play((2,)).play((6,))
    row = codec.stored(Position("connect4", state), [2, 13], {}, 0.0)
    features = unpacked(row["planes"][None], 7)
    assert features.shape == (1, 6, 7, 3)
    assert features[0, 0, 2, 0] == features[0, 0, 6, 1] == 1
    assert features[0, :, :, :2].sum() == 2
    assert features[0, 1, 2, 2] == features[0, 1, 6, 2] == features[0, 0, 0, 2] == 1


def test_shares_are_put_beside_their_moves() -> None:
    codec = Codec("connect4")
    position = Position("connect4", games.begin("connect4"))
    legal = games.legal_numbers("connect4", position.state)
    rows = [
        codec.stored(position, legal, {3: 0.75, 0: 0.25}, 1.0),
        codec.stored(position, [5], {}, 0.0),
    ]
    numbers, policy = padded(stack(rows, codec.ragged))
    assert numbers.tolist() == [legal, [5, -1, -1, -1, -1, -1, -1]]
    assert policy.tolist() == [[0.25, 0, 0, 0.75, 0, 0, 0], [0] * 7]
    wrong = stack([codec.stored(position, [5], {4: 1.0}, 1.0)], codec.ragged)
    with pytest.raises(ModelwrightError, match="not among the legal ones"):
        padded(wrong)


def test_greed_takes_what_counts_most_and_a_win_before_all() -> None:
    state = games.begin("chess", "k7/8/8/3q1r2/4P3/8/8/K7 w - - 0 1")
    assert state.write(by_greed("chess", state)[0]) == "exd5"
    mate = games.begin("chess", "k7/2Q5/1K6/8/8/8/8/r7 w - - 0 1")
    best = by_greed("chess", mate)[0]
    assert mate.play(best).result() == 1.0
    corner = games.begin("othello", "-O" + "X" + "-" * 61 + "X")
    assert corner.write(by_greed("othello", corner)[0]) == "a1"
    assert {m: g for g, m in gains("checkers", games.begin("checkers"))}[(11, 15)] == 0.0
