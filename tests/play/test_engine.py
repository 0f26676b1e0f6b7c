"""Programs that are spoken to by UCI: one that misbehaves is named, ended, and costs a game."""

from __future__ import annotations

import os
import shlex
import sys
import threading
import time
from pathlib import Path

import pytest

from modelwright.cli import main
from modelwright.errors import MachineError, ModelwrightError
from modelwright.play import programs
from modelwright.play.engine import Engine, named, stockfish, told
from modelwright.play.game import Game, replayed
from modelwright.play.matches import match, table
from modelwright.play.players import Chance, Fault
from modelwright.play.programs import LONGEST, QUEUED, Program, lines_of
from tests.play.chess_runs import run_of_chess

# A program that plays any legal move, knowing the game by the moves that it is told.
PLAYS = (
    "import os, random, sys, time, pathlib\n"
    "from modelwright.data.games import begin\n"
    "rng, state, answers = random.Random(1), None, 0\n"
    "for line in sys.stdin:\n"
    "    words = line.split()\n"
    "    if words[0] == 'uci': print('uciok', flush=True)\n"
    "    if words[0] == 'position':\n"
    "        at = words.index('moves') if 'moves' in words else len(words)\n"
    "        state = begin('chess', ' '.join(words[2:at]) if words[1] == 'fen' else '')\n"
    "        for move in words[at + 1:]: state = state.play(state.parse(move))\n"
    "    if words[0] == 'go':\n"
    "        a, b, kind = rng.choice(state.legal_moves())\n"
    "        name = lambda s: 'abcdefgh'[s % 8] + str(s // 8 + 1)\n"
    "        line = 'bestmove ' + name(a) + name(b) + '  nbrq'[kind].strip()\n"
    "        answers += 1\n"
    "{fault}"
    "        print(line, flush=True)\n"
)
installed = pytest.mark.skipif(
    programs.located("stockfish") is None, reason="stockfish is not installed"
)


def faulty(folder: Path, fault: str, *, after: int, once: bool = False) -> list[str]:
    """A program that does something else instead of its ``after``-th answer, or only ``once``."""
    mark, path = folder / "failed", folder / "faulty.py"
    told = f"        mark = pathlib.Path({str(mark)!r})\n"
    told += f"        if answers == {after} and not ({once} and mark.exists()):\n"
    told += f"            mark.touch()\n            {fault}\n"
    path.write_text(PLAYS.replace("{fault}", told))
    return [sys.executable, str(path)]


def test_a_program_plays_a_match() -> None:
    engine = Engine([sys.executable, "-c", PLAYS.replace("{fault}", "")], name="ours")
    try:
        score = match("chess", engine, Chance(1), 2, opening=60)
        assert score.games == 2
        with pytest.raises(ModelwrightError, match="ours plays chess, not othello"):
            engine.choose("othello", [Game("othello").stand])
        process = engine.program.process if engine.program else None
        assert process is not None
    finally:
        engine.close()
    assert process.poll() is not None


ENDED = "ended without 'uciok'|has stopped"  # whichever is seen first


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import time; time.sleep(60)", "no 'uciok' within 1 s"),
        ("print('rubbish'); print('more')", ENDED),
        ("import sys; sys.stdout.buffer.write(bytes(range(256)) * 50)", ENDED),
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
    engine = Engine(faulty(tmp_path, f"line = {answer!r}", after=1))
    process = engine.program.process if engine.program else None
    with pytest.raises(MachineError, match=message):
        engine.choose("chess", [Game("chess").stand])
    assert process is not None
    assert process.poll() is not None


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(MachineError, match="cannot be started"):
        Engine(["/nonexistent/engine"])


@installed
def test_stockfish_beats_chance() -> None:
    engine = stockfish(1)
    try:
        assert match("chess", engine, Chance(0), 4).lost == 0
    finally:
        engine.close()


@installed
def test_stockfish_is_found_where_the_path_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    stockfish(1).close()
    engine = named("stockfish @2")
    assert (engine.name, engine.depth) == ("stockfish@2", 2)
    engine.close()


@installed
def test_a_program_sees_how_a_position_came_about() -> None:
    """White, a queen ahead, may not go back to where the position has been twice."""
    start = "6k1/5ppp/8/8/8/8/q4PPP/3Q2K1 w - - 0 1"
    game = Game("chess", start)
    for move in ["Kf1", "Qb2", "Kg1", "Qa2"]:
        game.play(game.state.parse(move))
    assert told(game.stand) == f"position fen {start} moves g1f1 a2b2 f1g1 b2a2"
    assert told(replayed("chess", ["e4", "c5"]).stand) == "position startpos moves e2e4 c7c5"
    assert told(Game("chess").stand) == "position startpos"
    engine = stockfish(1)
    try:
        (move,) = engine.choose("chess", [game.stand])
        game.state.play(move)
    finally:
        engine.close()


def test_without_stockfish_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(programs, "GAMES", ())
    with pytest.raises(MachineError, match="stockfish is not on the PATH"):
        stockfish(1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a command is meant"),
        ("@3", "a command is meant"),
        ("true@0", "a command is meant"),
        ("'true", "No closing quotation; a command is meant"),
        ("no-such-program --uci@3", "no-such-program: no such program on the PATH"),
    ],
)
def test_a_command_that_is_none_is_one_line(text: str, message: str) -> None:
    with pytest.raises(ModelwrightError, match=message) as caught:
        named(text)
    assert "\n" not in str(caught.value)


def resident(process: int) -> int:
    """Bytes that a process holds in memory."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(next(x.split()[1] for x in status.splitlines() if x.startswith("VmRSS"))) << 10


TALKER = (
    "import sys\n"
    "out = sys.stdout.buffer\n"
    "for _ in range(100 << 10):\n    out.write(b'x' * 1023 + {end})\n"
    "out.flush()\nprint()\nprint('uciok', flush=True)\nsys.stdin.readline()\n"
    "sys.stdin.readline()\n"
)


@pytest.mark.parametrize("end", [b"x", b"\n"])
def test_a_program_that_never_stops_talking_costs_no_memory(end: bytes) -> None:
    """100 MB without an end of line, and as many in lines that nobody reads."""
    before = resident(os.getpid())
    program = Program([sys.executable, "-c", TALKER.format(end=end)], "talker", 60.0)
    most = before
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.01):
            most = max(most, resident(os.getpid()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        time.sleep(0.3)  # nobody reads meanwhile: it waits in its pipe
        assert program.wait("uciok").split() == ["uciok"]
    finally:
        done.set()
        watcher.join()
        program.close()
    assert most - before < 3 * QUEUED * LONGEST  # 12 MiB, of 100


def test_lines_are_cut_and_the_next_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"short\n" + b"x" * 25 + b"\n" + b"y" * 10 + b"\n\nlast" + b"z" * 30)
    with path.open("rb") as stream:
        found = list(lines_of(stream, 10))
    assert found == [b"short\n", b"x" * 10, b"y" * 10, b"\n", b"last" + b"z" * 6]


def test_one_that_talks_without_end_is_late() -> None:
    command = [sys.executable, "-c", "while True: print('info', flush=True)"]
    with pytest.raises(MachineError, match="no 'uciok' within 1 s"):
        Engine(command, seconds=1.0)


def test_what_a_program_has_started_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "engine.sh"
    path.write_text("#!/bin/sh\nsleep 600 &\necho $!\necho uciok\nwait\n")
    program = Program(["/bin/sh", str(path)], "script", 20.0)
    child = int(program._lines.get(timeout=20) or 0)  # its first line
    program.wait("uciok")
    program.close()
    program.close()
    for _ in range(200):
        if not Path(f"/proc/{child}").exists() or "Z" in _state(child):
            return
        time.sleep(0.05)
    pytest.fail("the child lives on")


def _state(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("os._exit(1)", "ended without 'bestmove'"),
        ("line = 'bestmove a1h8'", "it plays by other rules"),
        ("time.sleep(600)", "no 'bestmove' within 5 s"),
    ],
)
def test_a_fault_costs_a_game_and_not_the_match(fault: str, message: str, tmp_path: Path) -> None:
    engine = Engine(faulty(tmp_path, fault, after=5, once=True), seconds=5.0, name="faulty")
    try:
        score = match("chess", Chance(1), engine, 4, opening=100)
    finally:
        engine.close()
    assert score.games == 4
    assert score.won >= 1
    (said,) = score.faults
    assert message in said


def test_after_the_second_fault_a_match_ends_with_what_was_played(tmp_path: Path) -> None:
    engine = Engine(faulty(tmp_path, "os._exit(1)", after=3), name="faulty")
    try:
        score = match("chess", engine, Chance(1), 6)
    finally:
        engine.close()
    assert score.lost == 2  # a game each; the other four had hardly begun
    assert score.games == 2
    assert len(score.faults) == 2


def test_a_fault_says_which_moves_were_chosen_before_it(tmp_path: Path) -> None:
    engine = Engine(faulty(tmp_path, "os._exit(1)", after=3, once=True), name="faulty")
    stands = [replayed("chess", moves.split()).stand for moves in ("", "e4", "e4 e5", "d4")]
    with pytest.raises(Fault) as caught:
        engine.choose("chess", stands)
    assert len(caught.value.moves) == 2
    assert len(engine.choose("chess", stands)) == 4  # started again
    engine.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of_chess(tmp_path_factory.mktemp("runs"))


def test_several_opponents_are_one_table(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = tmp_path / "ours.py"
    ours.write_text(PLAYS.replace("{fault}", ""))
    line = ["play", str(run), "--games", "2", "--against", "random"]
    line += ["--against", f"uci:{shlex.join([sys.executable, str(ours)])}@2"]
    line += ["--against", "policy"]
    assert main(line) == 0
    out, err = capsys.readouterr()
    head, *rows = out.splitlines()
    assert head.split()[:6] == ["policy", "against", "games", "won", "drawn", "lost"]
    assert head.endswith("Elo  95 %")
    name = Path(sys.executable).name
    assert [row.split()[0] for row in rows] == ["random", name, "policy"]
    assert f"{name} {ours}@2" in rows[1]
    assert len({row.index("2", row.index("  ")) for row in rows}) == 1  # in columns
    assert "random: 2 of 2 games" in err


def test_a_slip_in_the_last_opponent_costs_no_match(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["play", str(run), "--against", "random", "--against", "randon"]) == 2
    out, err = capsys.readouterr()
    assert "'randon' is nobody" in err
    assert "games" not in err
    assert not out


def test_a_match_that_broke_off_is_told_and_is_no_success(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = shlex.join(faulty(tmp_path, "os._exit(1)", after=3))
    line = ["play", str(run), "--games", "6", "--against", f"uci:{bad}", "--against", "random"]
    assert main(line) == 4
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert err.count("a game was lost by a fault") == 2
    assert "not all of 6 games were played, as a program failed twice" in err
    assert "after 2" in err.splitlines()[-1]


def test_columns_hold_the_longest_name() -> None:
    one = match("othello", Chance(1), Chance(2), 4)
    lines = table("a", [("b", one), ("a rather long name of a program --uci@12", one)])
    assert len({line.index(" 4 ") for line in lines[1:]}) == 1
