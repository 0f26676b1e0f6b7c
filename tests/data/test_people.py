"""People who are held out: none of their games is in train, and their moves alone are measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright import api, recipe
from modelwright.data.people import people_of, person
from modelwright.data.sources import read_rows
from modelwright.data.split import leakage_audit, split_rows
from modelwright.errors import ModelwrightError
from modelwright.pipeline import graded
from modelwright.runs import Run
from modelwright.tasks.game_play import GamePlay
from modelwright.types import Row
from tests.play.chess_runs import TINY, games_of_chance

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}


def games_of(pairs: list[tuple[str, str]]) -> list[Row]:
    return [
        {"id": str(i), "group": str(i), "white": a, "black": b, "moves": f"e4 e{i}" * 9}
        for i, (a, b) in enumerate(pairs)
    ]


def pairs_of(people: int, games: int, seed: int) -> list[tuple[str, str]]:
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(people, size=2) for _ in range(games))
    return [(f"P{a}", f"p{b}" if b % 2 else f" P{b} ") for a, b in drawn]


@given(st.integers(6, 60), st.integers(30, 120), st.integers(0, 5), st.integers(0, 3))
def test_nobody_who_is_measured_has_a_move_in_train(
    people: int, games: int, draw: int, seed: int
) -> None:
    try:
        splits, gone = split_rows(games_of(pairs_of(people, games, draw)), SHARES, "players",
                                  seed=seed)  # fmt: skip
    except ModelwrightError as error:
        assert "players" in str(error)  # too few of them
        return
    assert sum(map(len, splits.values())) + len(gone) == games
    learned = {one for row in splits["train"] for one in people_of(row)}
    for part in ("test", "validation"):
        assert splits[part]
        for row in splits[part]:
            assert row["strangers"]
            assert not set(row["strangers"]) & learned
            assert set(row["strangers"]) <= people_of(row)
    assert not any("strangers" in row for row in splits["train"])
    assert leakage_audit(splits, "players")["holds"]


def test_those_who_are_named_are_the_test() -> None:
    pairs = [("Carlsen, M", "X"), ("Y", "CARLSEN,  M"), ("X", "Y"), ("Z", "Q"), ("R", "S")]
    shares = {"train": 1.0, "validation": 0.0, "test": 0.0}
    splits, _ = split_rows(games_of(pairs), shares, "players", players=["carlsen"])
    assert [row["id"] for row in splits["test"]] == ["0", "1"]
    assert {tuple(row["strangers"]) for row in splits["test"]} == {("carlsen, m",)}
    assert [row["id"] for row in splits["train"]] == ["2", "3", "4"]
    audit = leakage_audit({**splits, "train": [*splits["train"], splits["test"][0]]}, "players")
    assert not audit["holds"]
    assert audit["examples"]["groups"] == ["carlsen, m"]
    for players, message in (
        (["karpov"], "nobody is called 'karpov'"),
        (["?"], "nobody is called '?'"),
        (["x", "y", "z", "r", "carlsen"], "every game is of somebody who is held out"),
    ):
        with pytest.raises(ModelwrightError, match=message):
            split_rows(games_of(pairs), shares, "players", players=players)
    with pytest.raises(ModelwrightError, match="row 'a' has no column 'white'"):
        split_rows([{"id": "a", "group": "a"}], SHARES, "players")


def test_nobody_is_called_by_a_question_mark() -> None:
    assert [person(name) for name in ("?", "NN", None, " Ann  B ")] == ["", "", "", "ann b"]


def test_a_recipe_says_who_with_by_players() -> None:
    made: dict[str, Any] = {"name": "a", "train": {"task": "game_play"}}
    for split, wrong in (({"by": "players", "players": ["A"]}, False), ({"players": ["A"]}, True)):
        try:
            recipe.parse({**made, "data": {"source": "x.pgn", "split": split}})
        except ModelwrightError as error:
            assert wrong
            assert "players are held out by `by: players`" in str(error)
        else:
            assert not wrong


def test_masters_are_held_out_of_real_games(data: Callable[[str], Path]) -> None:
    rows = [row for row in read_rows("chess_pgn", path=data("chess_pgn")) if "problem" not in row]
    splits, _ = split_rows(rows, {"train": 0.85, "validation": 0.05, "test": 0.1}, "players")
    assert 0.08 < len(splits["test"]) / len(rows) < 0.12
    learned = {one for row in splits["train"] for one in people_of(row)}
    assert not any(set(row["strangers"]) & learned for row in splits["test"])
    row = next(row for row in splits["test"] if len(row["strangers"]) == 1)
    examples = GamePlay(shortest=1).examples(row)
    assert not isinstance(examples, str)
    turns = {e.given[0].positions[0].state.turn for e in examples}
    assert turns == {int(person(row["black"]) in row["strangers"])}


def test_a_run_holds_players_out_and_names_them(tmp_path: Path) -> None:
    source = games_of_chance(tmp_path / "chance.pgn", games=24)
    split = "data.split={by: players, players: [a1], validation: 0.1, test: 0.1}"
    options = [option for option in TINY if not option.startswith("data.split")]
    options += [f"data.source={source}", "evaluate.slices=[mover]"]
    run = api.train("chess-moves", *options, split, out=tmp_path / "run")
    assert isinstance(run, Run)
    told = run.read_json("data/split.json")
    assert "a1" in told["held_out"]
    assert told["leakage"]["holds"]
    api.evaluate(run)
    movers = {person(line["columns"]["mover"]) for line in graded.read(run, "train")}
    assert movers
    assert movers <= set(told["held_out"])
