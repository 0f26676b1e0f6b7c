"""What answers are sliced by: ratings in bins, years in decades, and rows that are drawn whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright import api
from modelwright.errors import ModelwrightError
from modelwright.pipeline import graded, paired, sliced
from modelwright.runs import Run
from tests.play.chess_runs import TINY, games_of_chance

numbers = st.none() | st.integers(-3000, 3000) | st.floats(0, 3000)
values = st.lists(numbers, min_size=1, max_size=90)


@given(values, st.sampled_from(["rating", "year"]))
def test_every_number_lies_in_one_bin_and_bins_come_in_their_order(
    given: list[float | None], column: str
) -> None:
    parts = sliced.parts_of(column, given)
    inside = np.stack([part for _, part in parts])
    if column == "rating" or len(set(given)) <= sliced.KINDS:  # none was left out
        assert (inside.sum(0) == 1).all()
    unknown = [part for name, part in parts if not name]
    for part in unknown:
        assert [given[i] is None for i in range(len(given))] == part.tolist()
    if len(set(given) - {None}) > sliced.FEW and column == "rating":
        means = [np.mean([given[i] for i in np.flatnonzero(p)]) for name, p in parts if name]
        assert means == sorted(means)
        assert len(means) <= sliced.BINS


def test_bins_are_of_equally_many_answers_and_few_numbers_stay_names() -> None:
    parts = sliced.parts_of("mover_elo", [*range(2000, 2100), None])
    assert [(name, int(part.sum())) for name, part in parts] == [
        ("2000 to 2019", 20),
        ("2020 to 2039", 20),
        ("2040 to 2059", 20),
        ("2060 to 2079", 20),
        ("2080 to 2099", 20),
        ("", 1),
    ]
    few = sliced.parts_of("stars", [5, 5, 1, 3, 5, 1])
    assert [(name, int(part.sum())) for name, part in few] == [("5", 3), ("1", 2), ("3", 1)]
    years = sliced.parts_of("year", [2003, 1999, 1990, None, 2000])
    assert [(n, int(p.sum())) for n, p in years] == [("1990s", 2), ("2000s", 2), ("", 1)]
    assert [n for n, _ in sliced.parts_of("year", ["late", 1999])] == ["1999", "late"]


def test_answers_of_a_row_are_drawn_together() -> None:
    """Of ten rows with 50 equal answers each, the mean is as unsure as that of ten answers."""
    grades = np.repeat([0.0, 1.0] * 5, 50)
    rows = np.repeat(np.arange(10), 50)
    alone, together = (low_high(grades, of) for of in (None, rows))
    assert together > 5 * alone
    assert together == pytest.approx(low_high(grades[::50], None))


def low_high(grades: np.ndarray, rows: np.ndarray | None) -> float:
    low, high = sliced.interval(grades, rows)
    return high - low


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("sliced")
    source = games_of_chance(folder / "chance.pgn", games=40)
    slices = "evaluate.slices=[year,mover_elo,other_elo,mover]"
    made = api.train("chess-moves", f"data.source={source}", *TINY, slices, out=folder / "run")
    assert isinstance(made, Run)
    api.evaluate(made)
    return made


def test_positions_are_sliced_by_the_ratings_of_their_players_and_the_year(run: Run) -> None:
    lines = graded.read(run, "train")
    assert len({line["row"] for line in lines}) == 8  # games
    for line in lines:
        columns = line["columns"]
        white = line["question"].split()[1] == "w"
        assert columns["mover"][0] == ("A" if white else "B")
        # White's ratings are even, as the games are written.
        assert columns["mover_elo"] % 2 == (not white)
        assert columns["other_elo"] % 2 == white
    result = run.read_json("evaluation.json")
    by = {(part["by"], part["unit"]): part["rows"] for part in result["slices"]}
    for column in ("year", "mover_elo", "other_elo", "mover"):
        first, third = by[column, "move match"], by[column, "move among three"]
        assert [row["which"] for row in first] == [row["which"] for row in third]
        assert sum(row["count"] for row in first) == len(lines)
        assert all(a["value"] <= b["value"] for a, b in zip(first, third, strict=True))
    assert all(row["which"].endswith("0s") for row in by["year", "move match"])
    assert len(by["mover_elo", "move match"]) <= sliced.BINS
    json.dumps(result)


def test_two_runs_on_games_are_compared_by_games(run: Run, tmp_path: Path) -> None:
    """A single game says how much better one was, and not how sure that is."""
    shutil.copytree(run.path, tmp_path / "other")
    other = Run.open(tmp_path / "other")
    lines = [{**line, "row": "one"} for line in graded.read(run, "train")]
    graded.write(other, "train", [{**x, "grade": float(i % 2)} for i, x in enumerate(lines)])
    (by_games,) = paired.compare(run, other)
    assert by_games["low"] < by_games["difference"] < by_games["high"]
    (by_one,) = paired.compare(other, run)
    assert by_one["low"] == by_one["high"]


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    source = games_of_chance(tmp_path / "chance.pgn")
    with pytest.raises(ModelwrightError, match="evaluate.slices: row .* has no column 'yaer'"):
        api.train(
            "chess-moves",
            f"data.source={source}",
            *TINY,
            "evaluate.slices=[yaer]",
            out=tmp_path / "run",
        )
