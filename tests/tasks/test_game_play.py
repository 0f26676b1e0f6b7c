"""From records of games to positions: rows, reasons, measures, and a run to its answers."""

from __future__ import annotations

import math
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from modelwright import api
from modelwright.cli import main
from modelwright.data import games
from modelwright.data.dedup import content_key
from modelwright.data.sources import read_rows
from modelwright.data.waterfall import notes_of
from modelwright.errors import ModelwrightError
from modelwright.runs import Run
from modelwright.tasks.game_play import GamePlay, calibration
from modelwright.tasks.task import Constant
from modelwright.types import Example, Label, Number, Row, Turn
from tests.play.chess_runs import TINY, games_of_chance

MATE = "e4 e5 Bc4 Nc6 Qh5 Nf6 Qxf7#"
LONG = "e4 e5 Nf3 Nc6 Bb5 a6 Ba4 Nf6 O-O"


def row(moves: str = LONG, result: str = "1-0", **more: object) -> Row:
    return {"id": "g", "game": "chess", "moves": moves, "result": result, **more}


def found(made: Row, **options: object) -> list[Example]:
    examples = GamePlay(shortest=1, **options).examples(made)  # type: ignore[arg-type]
    assert not isinstance(examples, str), examples
    return list(examples)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (row(result="*"), "unfinished game"),
        (row("e4 e5 Ke3"), "illegal move"),
        (row("e4 ü"), "illegal move"),
        (row(variant="Chess960"), "a variant of the rules"),
        (row(position="nonsense"), "no such position"),
        (row(MATE, "0-1"), "result contradicts the board"),
        (row("e4"), "too few moves"),
        (row(game="othello"), "another game"),
        (row(problem="a game without a result"), "a game without a result"),
    ],
)
def test_what_cannot_be_learned_from_leaves_with_its_reason(made: Row, reason: str) -> None:
    assert GamePlay(shortest=2).examples(made) == reason


def test_every_position_has_its_move_and_the_result_of_who_moves() -> None:
    examples = found(row(MATE))
    assert [e.answer.label for e in examples[:2]] == ["e2e4", "e7e5"]
    assert [e.answer.numbers[0] for e in examples] == [1.0, -1.0] * 3 + [1.0]
    last = examples[-1].given[0].positions[0]
    assert str(last.state).startswith("r1bqkb1r/pppp1ppp/2n2n2/4p2Q/2B1P3/8/PPPP1PPP/RNB1K1NR w")
    assert last.touched == 1 << 62 | 1 << 45  # g8 and f6, where black's knight went


def test_players_ratings_and_winners_choose_the_moves() -> None:
    made = row(white="Anand, V", black="Wolff", white_elo=2285, black_elo=2000)
    assert len(found(made)) == 9
    assert len(found(made, player="anand")) == 5
    assert len(found(made, player="wolff")) == 4
    assert len(found(made, least_elo=2200)) == 5
    assert len(found(made, winners=True)) == 5
    assert len(found({**made, "result": "1/2-1/2"}, winners=True)) == 9
    assert len(found(made, skip=4)) == 5
    reason = "no move of a player who is learned from"
    assert GamePlay(player="carlsen").examples(made) == reason


def test_black_begins_othello() -> None:
    task = GamePlay(game="othello", player="tamenori", shortest=1)
    made = {"id": "g", "moves": "f5 d6 c3", "result": "1-0", "black": "Tamenori", "white": "Shaman"}
    examples = task.examples(made)
    assert not isinstance(examples, str)
    assert [e.answer.label for e in examples] == ["f5", "c3"]


def test_measures_tell_good_answers_from_bad_ones() -> None:
    task, examples = GamePlay(), found(row())
    right = {str(e.given): e.answer for e in examples}

    class Knows:
        def answer(self, given: list[tuple[Turn, ...]]) -> list[Turn]:
            return [right[str(turns)] for turns in given]

    best = {m.name: m.value for m in task.measures(examples, Knows())}  # type: ignore[arg-type]
    assert best["move match"] == best["move among three"] == 1
    assert best["squared error of the value"] == best["calibration error"] == 0
    always = Constant(Turn("assistant", (Label("a2a3"), Label("e2e4"), Number(0.0))))
    bad = {m.name: m.value for m in task.measures(examples, always)}
    assert bad["move match"] == 0
    assert bad["move among three"] == pytest.approx(1 / 9)
    assert bad["squared error of the value"] == 1


def test_calibration_is_the_distance_from_what_was_said() -> None:
    assert calibration([(0.5, 1.0)] * 3 + [(0.5, -1.0)]) == 0
    assert calibration([(1.0, -1.0)]) == 1
    assert calibration([(-1.0, -1.0), (1.0, 1.0), (0.2, 0.2)]) == pytest.approx(0)
    assert calibration([(0.5, 1.0), (-0.5, -0.5)]) == pytest.approx(0.125)


def test_baselines_answer_with_legal_moves() -> None:
    task, examples = GamePlay(), found(row())
    for name, policy in task.baselines(examples).items():
        answers = policy.answer([e.given for e in examples])
        assert answers == policy.answer([e.given for e in examples]), name
        for example, answer in zip(examples, answers, strict=True):
            state = example.given[0].positions[0].state
            legal = {games.encoding("chess").text(state.turn, n) for n in
                     games.legal_numbers("chess", state)}  # fmt: skip
            assert set(answer.labels) <= legal
            assert len(set(answer.labels)) == 3
            assert math.isclose(answer.numbers[0], 1 / 9, abs_tol=1e-9)


@pytest.mark.parametrize(
    "text", ["e4 e5 Nf3", "1. e4 e5 2. Nf3", "e2e4 e7e5 g1f3", " 1.e4 {best} e5 2.Nf3 "]
)
def test_questions_are_moves_or_positions(text: str) -> None:
    ((turn,), task) = GamePlay().question(text), GamePlay()
    (position,) = turn.positions
    assert position.state.fen().startswith("rnbqkbnr/pppp1ppp/8/4p3/4P3/5N2/PPPP1PPP/RNBQKB1R b")
    assert position.touched == 1 << 6 | 1 << 21
    (again,) = task.question(str(position.state))[0].positions
    assert again.state == position.state
    with pytest.raises(games.IllegalMove, match="move 2: "):
        task.question("e4 e4")
    with pytest.raises(ModelwrightError, match="the game is over"):
        task.question(MATE)


PGN = """[Event "A"]
[White "Müller"]
[Black "O'Brien"]
[Date "1999.01.02"]
[WhiteElo "2400"]
[Result "1-0"]

1. e4 e5 2. Bc4 Nc6 3. Qh5 Nf6?? 4. Qxf7# 1-0

[Event "B"]
[Date "2001.??.??"]
[Variant "Atomic"]
[Result "0-1"]

1. e4 e5 2. Nf3 0-1

[Event "C"]
[Date "2002"]
[Result "*"]

1. d4 d5 *

[Event "D"]

1. e4 e5 2. N"""


def reasons(rows: Iterable[Row]) -> Counter[str]:
    """Why rows are dropped; an empty reason: they are not."""
    found = (GamePlay(shortest=2).examples(row) for row in rows)
    return Counter(of if isinstance(of, str) else "" for of in found)


def test_files_of_games_become_rows(tmp_path: Path) -> None:
    file = tmp_path / "games.pgn"
    file.write_text(PGN, encoding="utf-8")
    rows = {row["id"]: row for row in read_rows(str(file))}
    assert list(rows) != sorted(rows, key=str)  # the first ones are of all years
    first = rows["1"]
    assert (first["white"], first["year"], first["white_elo"]) == ("Müller", 1999, 2400)
    assert first["moves"] == MATE
    assert {frozenset(row) - {"problem"} for row in rows.values()} == {frozenset(first)}
    assert reasons(rows.values()) == {
        "": 1,
        "a variant of the rules": 1,
        "unfinished game": 1,
        "a game without a result: cut short, or no PGN": 1,
    }
    assert "note" not in first


def test_a_header_that_is_not_utf_8_is_read_as_the_standard_has_it(tmp_path: Path) -> None:
    file, other = tmp_path / "games.pgn", tmp_path / "russian.pgn"
    file.write_bytes(PGN.encode("latin-1"))
    rows = {row["id"]: row for row in read_rows(str(file))}
    assert rows["1"]["white"] == "Müller"
    assert notes_of(rows.values()) == {"not all of it is UTF-8, the rest was read as latin-1": 1}
    plain = tmp_path / "plain.pgn"
    plain.write_text(PGN, encoding="utf-8")
    (same,) = (row for row in read_rows(str(plain)) if row["id"] == "1")
    assert content_key(same) == content_key(rows["1"])  # what was guessed is no part of it
    other.write_bytes(PGN.replace("Müller", "Карпов").encode("cp1251"))
    (row,) = (row for row in read_rows(str(other), encoding="cp1251") if row["id"] == "1")
    assert row["white"] == "Карпов"
    assert "note" not in row
    with pytest.raises(ModelwrightError, match="'cp9999' is not known"):
        list(read_rows(str(other), encoding="cp9999"))
    (tmp_path / "a.txt").write_text("no games")
    for source in (str(tmp_path / "a.txt"), "connect4-played"):
        with pytest.raises(ModelwrightError, match=r"data\.encoding: is for files of games, and"):
            list(read_rows(source, encoding="cp1251"))


@pytest.mark.parametrize("content", ["", "\n\n", "\0\0\0", "% only a remark of a program\n"])
def test_a_file_with_no_game_in_it_is_not_passed_over(content: str, tmp_path: Path) -> None:
    folder = tmp_path / "games"
    folder.mkdir()
    (folder / "x.pgn").write_text(content)
    with pytest.raises(ModelwrightError, match="no game of it can be read: .+; give another file"):
        list(read_rows(str(folder)))
    (folder / "y.pgn").write_text(PGN)
    assert sum("problem" in row for row in read_rows(str(folder))) == 2  # x, and the last of y


def test_years_and_variants_are_read_as_servers_write_them(tmp_path: Path) -> None:
    file = tmp_path / "games.pgn"
    start = "4k3/8/8/8/8/8/4P3/4K3 w - - 0 1"
    file.write_text(
        '[White "A"]\n[Black "B"]\n[Date "????.??.??"]\n[UTCDate "2019.04.05"]\n'
        f'[Variant "From Position"]\n[FEN "{start}"]\n\ne4 Kd7 1-0\n\n'
        '[White "A"]\n[Variant "From Position"]\n\n1. e4 e5 1-0\n\n'
        '[White "A"]\n[UTCDate "2020.01.01"]\n[Date "2018.01.01"]\n\n1. e4 e5 1-0\n'
    )
    rows = {row["id"]: row for row in read_rows(str(file))}
    assert [rows[i]["year"] for i in ("1", "10", "15")] == [2019, None, 2018]
    assert rows["1"]["group"] == "game=A|B|2019.04.05"
    assert reasons(rows.values()) == {"": 2, "no such position": 1}


def test_a_result_that_contradicts_its_tag_leaves_with_a_reason(tmp_path: Path) -> None:
    file = tmp_path / "games.pgn"
    game = '[White "A"]\n[Result "{}"]\n\n1. e4 e5 {}\n\n'
    pairs = [("1-0", "0-1"), ("?", "1-0"), ("1-0", "1-0"), ("1-0", "*"), ("1/2", "1/2-1/2")]
    file.write_text("".join(game.format(*pair) for pair in pairs))
    found = [row.get("problem") for row in read_rows(str(file))]
    assert found.count("the tag Result and the end of the moves differ") == 2
    assert found.count(None) == 3


def test_what_was_guessed_and_refused_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = games_of_chance(tmp_path / "chance.pgn")
    text = source.read_text().replace("A1", "Ä1").replace('"B3"', '"B3"]\n[Comment "{"', 1)
    source.write_bytes((text + '[Result "1-0"]\n\n1. e4 { never closed 1-0\n').encode("latin-1"))
    api.train("chess-moves", f"data.source={source}", *TINY, out=tmp_path / "run")
    said = capsys.readouterr().err
    assert "4 rows kept: not all of it is UTF-8, the rest was read as latin-1" in said
    assert "1 rows dropped, a game without a result: cut short, or no PGN" in said


@pytest.fixture(scope="module")
def year(data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the 199 games of 1983 of the base WTHOR."""
    folder = tmp_path_factory.mktemp("wthor")
    with tarfile.open(data("othello_wthor") / "wthor.tar.gz") as packed:
        (member,) = (m for m in packed if m.name.endswith("1983.wtb"))
        content = packed.extractfile(member)
        assert content is not None
        (folder / "WTH_1983.wtb").write_bytes(content.read())
    return folder


def test_wthor_is_read(year: Path) -> None:
    rows = list(read_rows(str(year)))
    assert len(rows) == 199
    assert {(r["game"], r["year"]) for r in rows} == {("othello", 1983)}
    good = [e for r in rows if not isinstance(e := GamePlay(game="othello").examples(r), str)]
    assert len(good) > 190
    assert len(list(good[0])) > 40


def test_lines_of_checkers_are_read(data: Callable[[str], Path]) -> None:
    rows = [
        r
        for r, _ in zip(
            read_rows("checkers_acf", path=data("checkers_acf")), range(40), strict=False
        )
    ]
    good = [e for r in rows if not isinstance(e := GamePlay(game="checkers").examples(r), str)]
    assert len(good) == 40


def test_a_run_from_records_to_answers(
    year: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    run = api.train(
        "othello-moves",
        f"data.source={year}",
        "data.limit=40",
        "data.split={by: row, validation: 0.1, test: 0.1}",
        "train.steps=30",
        "train.batch=64",
        "train.threads=1",
        "train.compile=false",
        "model.width=16",
        "model.depth=1",
        out=out,
    )
    assert isinstance(run, Run)
    result = api.evaluate(run)
    measures = {m["name"]: {r["who"]: r["value"] for r in m["rows"]} for m in result["measures"]}
    match = measures["test move match"]
    assert match["ours"] > match["random legal move"]
    assert set(match) == {"ours", "random legal move", "greedy", "most frequent move"}
    assert measures["test move among three"]["ours"] > match["ours"]
    capsys.readouterr()
    assert main(["ask", str(out), "f5"]) == 0
    said = capsys.readouterr().out
    assert said.split()[0] in ("d6", "f4", "f6")
