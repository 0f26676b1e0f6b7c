"""Chess programs: ours answers whatever comes, and one that misbehaves is named and ended."""

from __future__ import annotations

import sys
from pathlib import Path
from shutil import which

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.games import begin
from modelwright.errors import MachineError, ModelwrightError
from modelwright.play.engine import Engine, stockfish
from modelwright.play.game import Game
from modelwright.play.matches import match
from modelwright.play.players import Chance
from modelwright.play.uci import Uci, squares

AFTER = "rnbqkbnr/pp1ppppp/2p5/8/4P3/8/PPPP1PPP/RNBQKBNR w KQkq -"
OURS = (
    "import sys\n"
    "from modelwright.play.players import Chance\n"
    "from modelwright.play.uci import Uci\n"
    "uci = Uci(lambda n: Chance(1), lambda line: print(line, flush=True))\n"
    "uci.serve(iter(sys.stdin.buffer.readline, b''))\n"
)


def talked(*lines: str | bytes) -> list[str]:
    said: list[str] = []
    raw = [line if isinstance(line, bytes) else line.encode() for line in lines]
    Uci(lambda _: Chance(0), said.append).serve(raw)
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
    assert talked("go infinite") == []
    (said,) = talked("go infinite", "stop", "stop")
    assert said.startswith("bestmove ")
    mate = "position startpos moves f2f3 e7e5 g2g4 d8h4"
    assert talked(mate, "go") == ["bestmove 0000"]


def test_simulations_are_those_that_were_asked_for() -> None:
    asked: list[int] = []

    def player(simulations: int) -> Chance:
        asked.append(simulations)
        return Chance(0)

    lines = [b"go", b"setoption name Simulations value 50", b"go", b"go nodes 7", b"go nodes x"]
    Uci(player, lambda _: None, 3).serve(lines)
    assert asked == [3, 50, 7, 50]


words = st.sampled_from(
    ["uci", "go", "position", "startpos", "fen", "moves", "e2e4", "infinite", "stop", "nodes", "-1",
     "setoption", "name", "value", "Simulations", "ucinewgame", "joho", "é", "\x00", "9" * 30]
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(words, max_size=6).map(" ".join) | st.binary(max_size=30), max_size=12))
def test_nothing_that_comes_in_ends_it(lines: list[str | bytes]) -> None:
    said = talked(*lines, "isready")
    assert said[-1] == "readyok" or any(
        (line if isinstance(line, bytes) else line.encode()).split()[:1] == [b"quit"]
        for line in lines
    )
    known = {"id", "option", "uciok", "readyok", "info", "bestmove"}
    assert {line.split()[0] for line in said} <= known


def test_squares_name_promotions() -> None:
    assert squares((52, 60, 2)) == "e7e8n"
    assert squares((4, 6, 0)) == "e1g1"


def test_a_program_plays_a_match() -> None:
    engine = Engine([sys.executable, "-c", OURS], name="ours")
    try:
        score = match("chess", engine, Chance(1), 2, opening=60)
        assert score.games == 2
        with pytest.raises(ModelwrightError, match="ours plays chess, not othello"):
            engine.choose("othello", [Game("othello").stand])
    finally:
        engine.close()
    assert engine.process.poll() is not None


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import time; time.sleep(60)", "no 'uciok' within 1 s"),
        ("print('rubbish'); print('more')", "ended without 'uciok'"),
        ("import sys; sys.stdout.buffer.write(bytes(range(256)) * 50)", "ended without 'uciok'"),
    ],
)
def test_a_program_that_does_not_answer_is_ended(program: str, message: str) -> None:
    with pytest.raises(MachineError, match=message):
        Engine([sys.executable, "-c", program], seconds=1.0)


@pytest.mark.parametrize(
    ("answer", "message"),
    [("bestmove e2e5", "plays by other rules"), ("bestmove", "plays by other rules")],
)
def test_a_program_of_other_rules_is_named(answer: str, message: str, tmp_path: Path) -> None:
    script = tmp_path / "engine.py"
    script.write_text(
        "import sys\nfor line in sys.stdin:\n"
        "    print('uciok' if line.strip() == 'uci' else 'info', flush=True)\n"
        f"    if line.startswith('go'):\n        print({answer!r}, flush=True)\n"
    )
    engine = Engine([sys.executable, str(script)], seconds=20.0)
    with pytest.raises(MachineError, match=message):
        engine.choose("chess", [Game("chess").stand])
    assert engine.process.poll() is not None


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(MachineError, match="cannot be started"):
        Engine(["/nonexistent/engine"])


@pytest.mark.skipif(which("stockfish") is None, reason="stockfish is not installed")
def test_stockfish_beats_chance() -> None:
    engine = stockfish(1)
    try:
        assert match("chess", engine, Chance(0), 4).lost == 0
    finally:
        engine.close()


def test_without_stockfish_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MachineError, match="stockfish is not on the PATH"):
        stockfish(1)
