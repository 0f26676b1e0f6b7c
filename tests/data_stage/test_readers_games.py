"""Games of chess, Othello and checkers: as many as the records say, and all legal."""

from __future__ import annotations

import pytest

from modelwright.data.operations import operation
from modelwright.data.readers.pgn import parse_moves
from tests.data_stage.reading import rows_of, texts_of


def legal(rows) -> None:
    step = operation("legal").begin()
    for row in rows:
        assert step(row) is None, (row["id"], row["attributes"])


def test_chess(data):
    rows, bad = rows_of(data("chess_pgn"))
    assert not bad and len(rows) == 2917 + 1730 + 681
    assert rows[0]["meta"]["tags"]["White"] == "Anand, Viswanathan"
    assert rows[0]["meta"]["moves"][:4] == ["e4", "d6", "d4", "Nf6"]
    assert rows[0]["meta"]["result"] == "0-1"
    legal(rows[::60])


def test_othello(data):
    rows, bad = rows_of(data("othello_wthor"), "wthor")
    assert not bad and len(rows) == 111_296
    first = rows[0]["meta"]
    assert (first["year"], first["black"], first["moves"][0]) == (1977, "Inoue Hiroshi", "f5")
    legal(rows[::4000])


def test_checkers(data):
    rows, bad = rows_of(data("checkers_acf") / "ACF.txt.gz", "checkers")
    assert not bad and len(rows) == 9377
    results = [r["meta"]["result"] for r in rows]
    assert [results.count(r) for r in ("1-0", "0-1", "1/2-1/2")] == [1597, 2373, 5407]
    legal(rows[::150])


def test_pdn(tmp_path):
    (tmp_path / "a.pdn").write_text(
        '[Event "x"]\n[Black "A"]\n\n1. 11-15 23-19 2. 8-11 22x17 {a (b)} 1-0\n\n'
        '[Event "y"]\n\n1. 9-14 22-18 2-0\n[Event "z"]\n1. 9-14 junk 1-0\n1. 9-13'
    )
    rows, bad = rows_of(tmp_path)
    assert [r["text"] for r in rows] == ["11-15 23-19 8-11 22x17", "9-14 22-18"]
    assert rows[0]["meta"]["tags"] == {"Event": "x", "Black": "A"}
    assert [b.reason for b in bad] == [
        "moves that are no numbers of squares",
        "a game without a result: cut short",
    ]


@pytest.mark.parametrize(
    ("text", "moves", "result"),
    [
        ("1. e4 e5 2. Nf3 1-0", ["e4", "e5", "Nf3"], "1-0"),
        ("1.e4 e5 2.Nf3! Nc6?? *", ["e4", "e5", "Nf3", "Nc6"], "*"),
        (
            "1. e4 {(by test)} e5 (1... c5 (1... e6) 2. d4) 2. f4 $1 0-1",
            ["e4", "e5", "f4"],
            "0-1",
        ),
        ("1. e4 ; rest } of line\n1... e5 1/2-1/2", ["e4", "e5"], "1/2-1/2"),
        ("1. e4 e5", ["e4", "e5"], None),
        ("1. e4 { never closed 1-0", ["e4"], None),
        ("1. e8=Q+ O-O-O# 1-0", ["e8=Q+", "O-O-O#"], "1-0"),
    ],
)
def test_movetext(text, moves, result):
    assert parse_moves(text) == (moves, result)


def test_a_cut_game_is_bad_and_the_others_are_read(tmp_path):
    (tmp_path / "a.pgn").write_text(
        '[Event "a"]\n\n1. e4 1-0\n\n[Event "b \\"q\\""]\n[FEN "8/8 w - -"]\n\n1. d4 *\n\n'
        '[Event "c"]\n\n1. e4'
    )
    rows, (bad,) = rows_of(tmp_path)
    assert [r["id"] for r in rows] == ["s/a.pgn:1", "s/a.pgn:5"]
    assert rows[1]["meta"]["tags"]["Event"] == 'b "q"'
    assert rows[1]["meta"]["position"] == "8/8 w - -"
    assert bad.where == "a.pgn: line 10" and "without a result" in bad.reason


def test_a_comment_that_is_never_closed_costs_its_own_game_alone(tmp_path):
    game = '[Event "{}"]\n[Result "1-0"]\n\n1. e4 {} e5 1-0\n\n'
    comments = ["{ good }", "{ open", "{ {{ twice", "( open", ""]
    (tmp_path / "a.pgn").write_text("".join(game.format(i, c) for i, c in enumerate(comments)))
    rows, bad = rows_of(tmp_path)
    assert [r["meta"]["tags"]["Event"] for r in rows] == ["0", "4"]
    assert {b.reason for b in bad} == {"a game without a result: cut short, or no PGN"}
    assert len(bad) == 3


def test_a_cut_base_of_othello_keeps_the_games_before(tmp_path, data):
    import tarfile

    with tarfile.open(data("othello_wthor") / "wthor.tar.gz") as archive:
        raw = archive.extractfile("wthor-database/WTH_1985.wtb").read()
    (tmp_path / "a.wtb").write_bytes(raw[:-30])
    rows, (bad,) = rows_of(tmp_path / "a.wtb")
    assert len(rows) == 953 and bad.where == "a.wtb: game 954" and "cut short" in bad.reason
    assert rows[0]["meta"]["black"].isdigit()  # no names beside it
    (tmp_path / "b.wtb").write_bytes(b"nonsense" * 20)
    assert rows_of(tmp_path / "b.wtb")[1][0].reason.startswith("not a WTHOR file")
    assert not texts_of(_empty(tmp_path, raw))


def _empty(folder, raw):
    (folder / "c.wtb").write_bytes(raw[:4] + bytes(4) + raw[8:16])
    return folder / "c.wtb"
