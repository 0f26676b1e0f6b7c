"""Our side of UCI: whatever comes is answered, a search keeps to its limits and can be stopped."""

from __future__ import annotations

import io
import itertools
import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.cli import main
from modelwright.data.games import Move, begin
from modelwright.data.games.tree_search import Judged, Stand
from modelwright.errors import ModelwrightError
from modelwright.play.game import replayed
from modelwright.play.players import Chance, NetworkSearch
from modelwright.play.thinking import Limits, Thinker, share_of, squares
from modelwright.play.uci import Uci
from tests.play.chess_runs import run_of_chess
from tests.play.test_players import network

AFTER = "rnbqkbnr/pp1ppppp/2p5/8/4P3/8/PPPP1PPP/RNBQKBNR w KQkq -"
INFO = re.compile(
    r"info depth (\d+) nodes (\d+) nps \d+ time \d+ score cp (-?\d+) pv ((?:[a-h1-8]{4}[nbrq]? ?)+)"
)
FOREVER = 3600_000  # milliseconds


class Even:
    """A judge to whom all is equal; ``patience`` seconds a question."""

    def __init__(self, patience: float = 0.0) -> None:
        self.patience = patience
        self.asked = threading.Event()

    def judge(self, stands: Sequence[Stand], moves: Sequence[Sequence[Move]]) -> list[Judged]:
        self.asked.set()
        time.sleep(self.patience)
        return [Judged(np.full(len(legal), 1 / len(legal)), 0.0) for legal in moves]


def talked(*lines: str | bytes) -> list[str]:
    said: list[str] = []
    raw = [line if isinstance(line, bytes) else line.encode() for line in lines]
    Uci(Chance(0), said.append).serve(raw)
    return said


def searched(*lines: str, simulations: int = 100) -> list[str]:
    said: list[str] = []
    Uci(Chance(0), said.append, Even(), simulations).serve([line.encode() for line in lines])
    return said


def test_the_handshake() -> None:
    said = talked("uci", "isready", "quit", "uci")
    assert said[0].startswith("id name modelwright")
    assert said[-2:] == ["uciok", "readyok"]
    assert "option name Simulations type spin default 0 min 0 max 1000000" in said


@pytest.mark.parametrize(
    ("position", "fen"),
    [
        ("position startpos", ""),
        ("position startpos moves e2e4 c7c6", AFTER),
        ("position fen 8/P6k/8/8/8/8/8/K7 w - - 0 1", "8/P6k/8/8/8/8/8/K7 w - - 0 1"),
        ("position fen 8/P6k/8/8/8/8/8/K7 w - - 0 1 moves a7a8q", "Q7/7k/8/8/8/8/8/K7 b - - 0 1"),
    ],
)  # fmt: skip
def test_a_move_is_legal_where_it_was_asked(position: str, fen: str) -> None:
    (said,) = talked(position, "go wtime 1000 btime 1000")
    word, move = said.split()
    assert word == "bestmove"
    begin("chess", fen).parse(move)


def test_what_is_wrong_is_said_and_changes_nothing() -> None:
    said = talked("position startpos moves e2e4", "position startpos moves e2e5", "go")
    assert said[0].startswith("info string e2e5")
    begin("chess").play((12, 28, 0)).parse(said[1].split()[1])
    assert talked("position over there")[0].startswith("info string position: startpos or fen")
    assert talked("setoption name Hash value 16")[0].startswith("info string the only option")
    assert talked("position fen not a fen")[0].startswith("info string chess: ")


def test_a_search_without_end_is_ended_by_stop_and_a_game_that_is_over_has_no_move() -> None:
    waited = talked("go infinite", "isready")
    assert waited[0] == "readyok"  # and the move at the end of input
    assert waited[1].startswith("bestmove ")
    (said,) = talked("go infinite", "stop", "stop")
    assert said.startswith("bestmove ")
    mate = "position startpos moves f2f3 e7e5 g2g4 d8h4"
    assert talked(mate, "go") == ["bestmove 0000"]


def simulations(said: Sequence[str]) -> list[int]:
    """Those of each move, by the last line of information before it."""
    last = [a for a, b in itertools.pairwise(said) if b.startswith("bestmove")]
    return [int(found[2]) for line in last if (found := INFO.fullmatch(line))]


def test_simulations_are_those_that_were_asked_for() -> None:
    option = "setoption name Simulations value 50"
    asked = {("go",): 100, (option, "go"): 50, ("go nodes 7",): 7, (option, "go nodes x"): 50}
    for lines, number in asked.items():
        assert simulations(searched(*lines)) == [number]
    for one in searched("go nodes 0", "setoption name Simulations value 0", "go"):
        assert one.startswith("bestmove")  # without a search, at once


def test_a_number_of_simulations_is_the_same_search_as_in_a_match() -> None:
    judge = network("chess")
    for number, moves in ((5, "e4 e5"), (40, "d4"), (100, "")):
        game = replayed("chess", moves.split())
        said: list[str] = []
        Uci(Chance(0), said.append, judge).serve(
            [f"position startpos moves {' '.join(map(squares, game.moves))}".encode(),
             f"go nodes {number}".encode()]
        )  # fmt: skip
        (chosen,) = NetworkSearch(judge, number).choose("chess", [game.stand])
        assert said[-1] == f"bestmove {squares(chosen)}"


@pytest.mark.parametrize(
    "limit",
    ["movetime 150", "wtime 3000 btime 3600000", "wtime 100 winc 150 btime 9", "depth 2",
     "wtime 200 movestogo 1", "movetime 0", "wtime -5 btime -5", "movetime 150 nodes 1000000"],
)  # fmt: skip
def test_a_limit_ends_a_search_and_what_was_found_is_said(limit: str) -> None:
    said = searched("position startpos", f"go {limit}")
    assert said[-1].startswith("bestmove ")
    assert sum(line.startswith("bestmove") for line in said) == 1
    found = INFO.fullmatch(said[-2])
    assert found, said
    line = found[4].split()
    assert said[-1] == f"bestmove {line[0]}"
    assert len(line) == int(found[1])
    replayed("chess", line)  # legal one after another
    if limit == "depth 2":
        assert len(line) == 2


def test_ready_is_answered_while_a_search_goes_on_and_stop_ends_it() -> None:
    said: list[str] = []
    ready = threading.Event()

    def say(line: str) -> None:
        said.append(line)
        if line == "readyok":
            ready.set()

    def lines() -> Iterator[bytes]:
        yield b"position startpos"
        yield f"go movetime {FOREVER}".encode()
        assert judge.asked.wait(60)
        yield b"isready"
        assert ready.wait(60)
        assert not any(line.startswith("bestmove") for line in said)
        yield b"stop"
        assert said[-1].startswith("bestmove ")
        yield b"go infinite"
        yield b"position startpos moves e2e4"  # ends it as well
        assert sum(line.startswith("bestmove") for line in said) == 2
        yield b"go ponder movetime 50"
        yield b"isready"
        assert sum(line.startswith("bestmove") for line in said) == 2
        yield b"ponderhit"

    judge = Even(0.01)
    Uci(Chance(0), say, judge, 100).serve(lines())
    assert sum(line.startswith("bestmove") for line in said) == 3
    begin("chess").play((12, 28, 0)).parse(said[-1].split()[1])


def test_quit_and_the_end_of_input_do_not_wait_for_a_search_without_end() -> None:
    for lines in (("go infinite",), (f"go movetime {FOREVER}", "quit", "isready")):
        said = searched(*lines)
        assert said[-1].startswith("bestmove ")


def test_a_judge_that_fails_and_a_listener_that_has_gone_leave_a_move_and_no_thread() -> None:
    class Broken(Even):
        def judge(self, stands: Sequence[Stand], moves: Sequence[Sequence[Move]]) -> list[Judged]:
            raise ModelwrightError("out of order")

    said: list[str] = []
    Uci(Chance(0), said.append, Broken(), 10).serve([b"go"])
    first = begin("chess").legal_moves()[0]
    assert said == ["info string out of order", f"bestmove {squares(first)}"]

    def gone(line: str) -> None:
        raise BrokenPipeError(line)

    thinker = Thinker(Even(), replayed("chess", []).stand, Limits(20), gone, held=False)
    thinker.join()


def test_of_one_move_nothing_is_thought_where_time_is_short() -> None:
    only = "position fen 7k/8/8/8/8/8/1r6/K7 w - - 0 1"  # the rook must be taken
    assert simulations(searched(only, f"go movetime {FOREVER}")) == [1]


def test_another_program_that_speaks_uci_plays_by_it() -> None:
    engines = pytest.importorskip("chess.engine", reason="python-chess is not installed")
    chess = pytest.importorskip("chess")
    script = (
        "import sys\nfrom modelwright.play.players import Chance\n"
        "from modelwright.play.uci import Uci\nfrom tests.play.test_uci import Even\n"
        "talk = Uci(Chance(0), lambda line: print(line, flush=True), Even(), 50)\n"
        "talk.serve(iter(sys.stdin.buffer.readline, b''))\n"
    )
    with engines.SimpleEngine.popen_uci([sys.executable, "-c", script], timeout=60) as engine:
        board = chess.Board()
        for limit in (
            engines.Limit(time=0.2),
            engines.Limit(white_clock=5, black_clock=5, white_inc=0.1, black_inc=0.1),
            engines.Limit(nodes=30),
            engines.Limit(depth=2),
        ):
            found = engine.play(board, limit, info=engines.INFO_ALL)
            assert found.move in board.legal_moves
            assert found.info["pv"][0] == found.move
            board.push(found.move)
        with engine.analysis(board, engines.Limit(time=3600)) as analysis:
            assert analysis.get()["nodes"] > 0
            engine.ping()
        assert analysis.wait().move in board.legal_moves


@given(left=st.floats(0, 1e5), gained=st.floats(0, 1e3), moves=st.integers(0, 60))
def test_a_move_never_takes_the_time_that_is_left(left: float, gained: float, moves: int) -> None:
    found = share_of(left, gained, moves)
    assert 0 <= found <= 0.8 * left
    assert share_of(left, gained, moves) <= share_of(left + 1, gained, moves) + 1e-9


def test_the_command_thinks_and_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = b"uci\nposition startpos moves e2e4\ngo movetime 100\ngo\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert main(["play", str(run_of_chess(tmp_path)), "--uci", "--search", "9"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "uciok" in said
    moves = [line.split()[1] for line in said if line.startswith("bestmove")]
    assert len(moves) == 2
    for move in moves:
        begin("chess", "").play((12, 28, 0)).parse(move)
    assert simulations(said)[-1] == 9


words = st.sampled_from(
    ["uci", "go", "position", "startpos", "fen", "moves", "e2e4", "infinite", "stop", "nodes", "-1",
     "setoption", "name", "value", "Simulations", "ucinewgame", "joho", "é", "\x00", "9" * 30,
     "movetime", "wtime", "btime", "winc", "depth", "ponder", "ponderhit", "5"]
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(words, max_size=6).map(" ".join) | st.binary(max_size=30), max_size=12))
def test_nothing_that_comes_in_ends_it(lines: list[str | bytes]) -> None:
    raw = [line if isinstance(line, bytes) else line.encode() for line in lines]
    said: list[str] = []
    Uci(Chance(0), said.append, Even(), 2).serve([*raw, b"stop", b"isready"])
    assert said[-1] == "readyok" or any(line.split()[:1] == [b"quit"] for line in raw)
    known = {"id", "option", "uciok", "readyok", "info", "bestmove"}
    assert {line.split()[0] for line in said} <= known


def test_squares_name_promotions() -> None:
    assert squares((52, 60, 2)) == "e7e8n"
    assert squares((4, 6, 0)) == "e1g1"
