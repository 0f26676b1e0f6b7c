"""The step ``legal``: sound games pass, every damaged one is named, other rows are left alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelwright.data.operations.legal import Operation
from modelwright.data.readers import checkers, pgn
from modelwright.data.readers.reader import Bad, new_row


def judged(row: dict[str, Any], **settings: Any) -> tuple[str | None, dict[str, Any]]:
    return Operation(**settings).begin()(row), row["attributes"]


def game(name: str, moves: str, **more: Any) -> dict[str, Any]:
    return new_row("1", "game", meta={"game": name, "moves": moves.split(), **more})


FOOLS_MATE = "f3 e5 g4 Qh4#"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (game("chess", FOOLS_MATE, result="0-1"), None),
        (game("chess", FOOLS_MATE, result="1-0"), "result contradicts the board"),
        (game("chess", "e4 e5", result="1-0"), None),  # resigned
        (game("chess", "e4 e4"), "illegal move"),
        (game("chess", "", result="1-0"), "too few moves"),
        (game("chess", "e4", position="nonsense"), "no such position"),
        (game("chess", "Kd2", position="4k3/8/8/8/8/8/8/4K3 w - - 0 1"), None),
        (game("go", "aa"), "a game without known rules"),
        (game("othello", "f5 d6 c3"), None),
        (game("othello", "f5 f5"), "illegal move"),
        (game("checkers", "11-15 23-18"), None),
        (game("checkers", "11-15 23-19 9-13"), None),
        (game("checkers", "11-15 22-18 9-13"), "illegal move"),
        (new_row("1", "text", text="no game"), None),
        (new_row("1", "game", meta={}), "a game without known rules"),
        (new_row("1", "game", meta={"game": "chess", "moves": "e4"}), "too few moves"),
    ],
)
def test_reasons(row: dict[str, Any], reason: str | None) -> None:
    assert judged(row)[0] == reason


def test_what_is_measured() -> None:
    _, attributes = judged(game("chess", FOOLS_MATE))
    assert attributes == {"legal.plies": 4, "legal.finished": True}
    _, attributes = judged(game("chess", "e4 e5 Ke3"))
    assert attributes == {"legal.problem": "move 3: Ke3: is not legal"}


def test_written_rows_are_read_as_well() -> None:
    row = game("chess", "e4 e4") | {"meta": json.dumps({"game": "chess", "moves": ["e4", "e4"]})}
    assert judged(row)[0] == "illegal move"


@pytest.mark.parametrize(
    ("reader", "name"),
    [(pgn.Reader(), "chess_pgn/Carlsen.pgn.gz"), (checkers.Reader(), "checkers_acf/ACF.txt.gz")],
)
def test_one_wrong_move_in_a_real_game_is_found(
    data: Callable[[str], Path], reader: Any, name: str
) -> None:
    """Each game twice: as it is, and with a move in the middle given twice."""
    path = data(name)
    rows = [row for part in reader.cut(path) for row in reader.rows(path, part)]
    rows = [row for row in rows if not isinstance(row, Bad) and len(row["meta"]["moves"]) > 20]
    for row in rows[::40]:
        assert judged(row)[0] is None
        moves = list(row["meta"]["moves"])
        middle = len(moves) // 2
        moves.insert(middle, moves[middle - 1])
        damaged = new_row("2", "game", meta=row["meta"] | {"moves": moves})
        reason, attributes = judged(damaged)
        assert reason == "illegal move"
        number = int(attributes["legal.problem"].split(":")[0].removeprefix("move "))
        assert number > middle  # a capture may be taken back on the same square
