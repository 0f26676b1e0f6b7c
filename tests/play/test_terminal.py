"""A person at the board: drawn positions, checked input, undo, resignation, and the command."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from modelwright import api
from modelwright.cli import main
from modelwright.data import games
from modelwright.data.games.recorded_play import connect4_rows
from modelwright.play.players import Chance
from modelwright.play.terminal import Table
from modelwright.tasks.task import names

TINY = ["data.limit=12", "train.steps=4", "train.epochs=null", "train.batch=16", "train.threads=1",
        "train.compile=false", "model.width=8", "model.depth=1"]  # fmt: skip


class First:
    """Plays the first legal move."""

    name = "first"

    def choose(self, game: str, stands: list) -> list:  # type: ignore[type-arg]
        return [stand.state.legal_moves()[0] for stand in stands]


def played(game: str, *lines: str, mine: int = 0) -> str:
    said: list[str] = []
    Table(game, First(), mine, said.append).play(lines)
    return "\n".join(said)


def test_a_game_is_won_and_lost() -> None:
    won = played("connect4", "4", "4", "4", "4")
    assert won.endswith("You have won.")
    assert "first: 1" in won
    lost = played("connect4", "4", "5", "5", "5", "6", "7")
    assert lost.endswith("You have lost.")


def test_what_is_typed_is_checked() -> None:
    said = played("chess", "e5", "Ke2", "rubbish", "\x00", "", "moves", "e4", "quit")
    assert "e5: is not legal" in said
    assert "'rubbish' is no move; `moves` lists what is possible" in said
    assert "Nf3" in said
    assert "4  . . . . P . . ." in said
    assert said.count("first: ") == 1


def test_a_turn_is_taken_back_and_a_hint_given() -> None:
    said = played("othello", "undo", "d3", "undo", "hint", "resign")
    assert "There is nothing to take back." in said
    assert said.count("4  . . . O X . . .") >= 2
    assert "first would play d3" in said
    assert said.endswith("You have resigned.")


def test_undo_as_the_second_player_goes_back_to_the_own_turn() -> None:
    said = played("connect4", "undo", "7", "undo", "quit", mine=1)
    assert said.startswith("You play O.")
    assert "There is nothing to take back." in said


def test_the_end_of_input_ends_it() -> None:
    assert "You play white" in played("chess")


@pytest.mark.parametrize("game", games.names())
def test_every_board_is_drawn(game: str) -> None:
    state = games.begin(game)
    lines = games.encoding(game).drawn(state).splitlines()
    board = state.board()
    assert len(lines) == board.shape[0] + (game != "checkers")
    pieces = sum(sign not in ".0123456789 " for line in lines[: len(board)] for sign in line)
    assert pieces == (board != 0).sum()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "four"
    api.train("connect-four-selfplay", *TINY, out=out)
    return out


def test_the_command_plays_and_counts(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("4\nfoo\nresign\n"))
    assert main(["play", str(run)]) == 0
    said = capsys.readouterr().out
    assert "policy: " in said
    assert "'foo' is no column" in said
    assert main(["play", str(run), "--against", "random", "--games", "6"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("policy against random: ")
    assert "of 6: score" in out
    assert "6 of 6 games" in err
    line = ["play", str(run), "--search", "8", "--against", f"{run}@train:4", "--games", "4"]
    assert main(line) == 0
    assert capsys.readouterr().out.startswith("policy, search 8 against four@train: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--against", "grandmaster"], "'grandmaster' is nobody; known: random"),
        (["--against", "random", "--games", "0"], "positive numbers are meant"),
        (["--search", "-1"], "positive numbers are meant"),
        (["--uci"], "--uci: is for chess, and this model plays connect4"),
        (["--stage", "tune"], "no trained stage 'tune'"),
    ],
)
def test_what_cannot_be_played_is_one_line(
    run: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["play", str(run), *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_model_of_something_else_plays_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "digits"
    small = ["train.steps=2", "train.epochs=null", "train.threads=1", "data.limit=60"]
    api.train("mlp-digits", *small, out=out)
    assert main(["play", str(out)]) == 2
    assert "plays no game" in capsys.readouterr().err


def test_a_question_is_answered_with_a_move(run: Path) -> None:
    said = api.load(run)("4 4 4 4 4 4")
    assert said.split()[0].rstrip(",") in "123567"


def test_games_are_known_tasks() -> None:
    assert {"game_play", "self_play"} <= set(names())
    (row,) = (r for r, _ in zip(connect4_rows(), range(1), strict=False))
    assert row["game"] == "connect4"
    assert Chance(0).name == "random"
