"""Chess: move generation against the published counts, notation against 5,328 real games."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data import games
from modelwright.data.games import IllegalMove, begin, perft, replay
from modelwright.data.games.chess import State
from modelwright.data.readers.pgn import Reader
from modelwright.data.readers.reader import Bad
from modelwright.errors import ModelwrightError

KIWIPETE = "r3k2r/p1ppqpb1/bn2pnp1/3PN3/1p2P3/2N2Q1p/PPPBBPPP/R3K2R w KQkq - 0 1"


@pytest.mark.parametrize(
    ("position", "depth", "games_there"),
    [  # the customary six positions and what every published generator counts in them
        ("", 3, 8902),
        (KIWIPETE, 2, 2039),
        (KIWIPETE, 3, 97862),
        ("8/2p5/3p4/KP5r/1R3p1k/8/4P1P1/8 w - - 0 1", 4, 43238),
        ("r3k2r/Pppp1ppp/1b3nbN/nP6/BBP1P3/q4N2/Pp1P2PP/R2Q1RK1 w kq - 0 1", 3, 9467),
        ("rnbq1k1r/pp1Pbppp/2p5/8/2B5/8/PPP1NnPP/RNBQK2R w KQ - 1 8", 3, 62379),
        ("r4rk1/1pp1qppp/p1np1n2/2b1p1B1/2B1P1b1/P1NP1N2/1PP1QPPP/R4RK1 w - - 0 10", 3, 89890),
    ],
)
def test_as_many_games_as_published(position: str, depth: int, games_there: int) -> None:
    assert perft(begin("chess", position), depth) == games_there


def test_no_move_that_opens_the_king_by_taking_in_passing() -> None:
    """Both pawns leave the rank between rook and king at once."""
    state = begin("chess", "8/8/8/8/k2Pp2R/8/8/3K4 b - d3 0 1")
    assert "exd3" not in [state.write(m) for m in state.legal_moves()]
    with pytest.raises(IllegalMove, match="exd3: is not legal"):
        state.parse("exd3")


def test_all_real_games_are_legal_and_written_as_they_were(data: Callable[[str], Path]) -> None:
    """Every eighth game; some are also written again, and must be what the file says.

    Records often have + where it is mate, so the sign is left out of the comparison.
    """
    counted = plies = rewritten = checks = 0
    for name in ("Anand", "Carlsen", "Anderssen"):
        path = data(f"chess_pgn/{name}.pgn.gz")
        reader = Reader()
        rows = [row for part in reader.cut(path) for row in reader.rows(path, part)]
        found = [row["meta"] for row in rows if not isinstance(row, Bad)]
        counted += len(found)
        for number, meta in enumerate(found[::8]):
            state = begin("chess", meta.get("position", ""))
            pairs = list(replay(state, meta["moves"]))
            plies += len(pairs)
            if number % 3 == 0:
                written = [s.write(m) for s, m in pairs]
                assert [w.rstrip("+#") for w in written] == [
                    m.rstrip("+#!?") for m in meta["moves"]
                ]
                signs = [
                    (w[-1] in "+#", m[-1] in "+#")
                    for w, m in zip(written, meta["moves"], strict=True)
                ]
                checks += sum(ours for ours, _ in signs)
                assert all(ours == theirs for ours, theirs in signs)
                rewritten += len(written)
    assert counted > 5000
    assert plies > 45_000
    assert rewritten > 13_000
    assert checks > 500


@pytest.mark.parametrize(
    ("moves", "where"),
    [
        (["e4", "e5", "Ke3"], "move 3: Ke3: is not legal"),
        (["e4", "e5", "O-O"], "move 3: O-O: castling is not legal"),
        (["Nc3", "a6", "Nb5", "a5", "Nc3", "a4", "Nd5", "h6", "Nf3", "h5", "Ne5x"], "move 11"),
        (["d5"], "move 1: d5: is not legal"),
        (["gibberish"], "move 1: 'gibberish' is no move"),
        (["f4", "e5", "g4", "Qh4#", "a3"], "move 5: a3: is not legal"),
    ],
)
def test_an_illegal_move_is_named_with_its_number(moves: list[str], where: str) -> None:
    with pytest.raises(IllegalMove) as caught:
        list(replay(begin("chess"), moves))
    assert str(caught.value).startswith(where)


def test_ambiguous_is_not_legal() -> None:
    state = begin("chess", "4k3/8/8/8/8/8/4K3/R6R w - - 0 1")
    with pytest.raises(IllegalMove, match="could be several"):
        state.parse("Rd1")
    assert state.write(state.parse("Rad1")) == "Rad1"


@pytest.mark.parametrize(
    ("position", "result"),
    [
        ("rnb1kbnr/pppp1ppp/8/4p3/6Pq/5P2/PPPPP2P/RNBQKBNR w KQkq - 1 3", -1.0),  # mate
        ("7k/5Q2/6K1/8/8/8/8/8 b - - 0 1", 0.0),  # stalemate
        ("8/8/4k3/8/8/3NK3/8/8 w - - 0 1", 0.0),  # a knight cannot mate
        ("8/8/4k3/8/8/3RK3/8/8 w - - 149 90", None),
        ("8/8/4k3/8/8/3RK3/8/8 w - - 150 90", 0.0),
        ("", None),
    ],
)
def test_results(position: str, result: float | None) -> None:
    assert begin("chess", position).result() == result


@pytest.mark.parametrize(
    "position",
    ["", "8/8/8/8/8/8/8/8 w - - 0 1", "4k3/8/8/8/8/8/8/4K2P w - - 0 1", KIWIPETE.replace("w", "x")],
)
def test_positions_that_cannot_be_played_are_refused(position: str) -> None:
    with pytest.raises(ModelwrightError, match="chess: "):
        State.of(position)
    with pytest.raises(ModelwrightError, match="could be taken"):
        State.of("4k3/4R3/8/8/8/8/8/4K3 w - - 0 1")


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(["", KIWIPETE]))
def test_every_legal_move_can_be_written_and_read(random: object, position: str) -> None:
    """Along a random game: SAN and squares name the move alone, and FEN the position."""
    state = begin("chess", position)
    for _ in range(60):
        moves = state.legal_moves()
        assert len(set(moves)) == len(moves)
        assert (state.result() is None) or not moves or state.quiet >= 150 or state._dead()
        if not moves:
            break
        for move in moves[:: max(1, len(moves) // 4)]:
            assert state.parse(state.write(move)) == move
        assert State.of(state.fen()) == state
        board = state.board()
        assert board.shape == (8, 8)
        assert np.count_nonzero(np.abs(board) == 6) == 2
        state = state.play(random.choice(moves))  # type: ignore[attr-defined]


def test_games_are_found_by_name() -> None:
    assert games.names() == ["checkers", "chess", "connect4", "othello"]
    with pytest.raises(ModelwrightError, match="did you mean 'chess'"):
        begin("ches")
