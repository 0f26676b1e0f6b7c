"""Folds: each row held out once, no group on both sides, nothing learned from the future."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.dedup import content_key
from modelwright.data.folds import assign_folds, fold_rows
from modelwright.data.sources import read_rows
from modelwright.data.split import leakage_audit, split_rows
from modelwright.data.waterfall import Waterfall
from modelwright.errors import ModelwrightError

LAW = settings(max_examples=50, deadline=None, derandomize=True)


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rows with a group, a label and a time, each from a few values; some are copies."""
    count = draw(st.integers(12, 50))
    few = st.integers(0, draw(st.integers(4, 30)))
    return [
        {
            "id": str(i),
            "group": f"g{draw(few)}",
            "label": draw(st.sampled_from("abc")),
            "time": draw(few),
            "x": draw(st.one_of(st.just(float(i)), st.just(0.5))),
        }
        for i in range(count)
    ]


@given(tables(), st.integers(2, 6), st.integers(0, 99))
@LAW
def test_every_row_is_in_one_fold_and_labels_are_even(rows: Any, of: int, seed: int) -> None:
    folds = assign_folds(rows, of, "row", label="label", seed=seed)
    sizes = Counter(folds)
    assert set(sizes) == set(range(1, of + 1))
    assert max(sizes.values()) - min(sizes.values()) <= 1
    for label in "abc":
        of_label = Counter(f for f, r in zip(folds, rows, strict=True) if r["label"] == label)
        counts = [of_label[fold] for fold in range(1, of + 1)]
        assert max(counts) - min(counts) <= 1


@given(tables(), st.integers(2, 5), st.integers(0, 99), st.sampled_from(["row", "group"]))
@LAW
def test_every_row_is_held_out_exactly_once_and_nothing_crosses(
    rows: Any, of: int, seed: int, by: Any
) -> None:
    if len({r["group"] for r in rows}) < of:
        return
    held: Counter[str] = Counter()
    whole = {"train": 1.0, "validation": 0.0, "test": 0.0}
    for number in range(1, of + 1):
        splits, gone = fold_rows(rows, number, of, by, fractions=whole, split_by="id", seed=seed)
        kept = [row for part in splits.values() for row in part]
        Waterfall().add("split", rows, kept, gone)  # law 10
        held.update(row["id"] for row in splits["test"])
        assert not splits["validation"]
        sides = [{content_key(r, ("id", "group")) for r in splits[p]} for p in ("train", "test")]
        assert sides[0].isdisjoint(sides[1])
        if by == "group":
            groups = [{r["group"] for r in splits[part]} for part in ("train", "test")]
            assert groups[0].isdisjoint(groups[1])
            audited = {**splits, "train": splits["train"] or splits["test"][:0]}
            assert leakage_audit(audited, "group")["holds"]
    assert held == Counter(row["id"] for row in rows)


@given(tables(), st.integers(2, 5), st.booleans())
@LAW
def test_nothing_is_learned_from_the_future(rows: Any, of: int, told: bool) -> None:
    if not told:
        rows = [{k: v for k, v in row.items() if k != "time"} for row in rows]
    moment = {r["id"]: r.get("time", i) for i, r in enumerate(rows)}
    if len(set(moment.values())) < of + 1:
        with pytest.raises(ModelwrightError, match=f"{of} folds need {of + 1} different times"):
            assign_folds(rows, of, "time")
        return
    folds = assign_folds(rows, of, "time")
    assert set(folds) == set(range(of + 1))
    whole = {"train": 1.0, "validation": 0.0, "test": 0.0}
    seen: set[str] = set()
    for number in range(1, of + 1):
        splits, gone = fold_rows(rows, number, of, "time", fractions=whole, split_by="id")
        Waterfall().add("split", rows, [*splits["train"], *splits["test"]], gone)
        latest = max((moment[r["id"]] for r in splits["train"]), default=-1)
        assert latest < min(moment[r["id"]] for r in splits["test"])
        now = {r["id"] for r in splits["test"]}
        assert now.isdisjoint(seen)
        seen |= now
    assert seen == {r["id"] for r, f in zip(rows, folds, strict=True) if f}


def test_the_test_part_is_that_of_an_ordinary_run_and_in_no_fold() -> None:
    rows = list(read_rows("digits"))
    shares = {"train": 0.8, "validation": 0.1, "test": 0.1}
    ordinary, _ = split_rows(rows, shares, "id", seed=1)
    reserved = {row["id"] for row in ordinary["test"]}
    assert reserved
    held: set[str] = set()
    for number in (1, 2, 3):
        splits, gone = fold_rows(
            rows, number, 3, fractions=shares, split_by="id", label="label", seed=1
        )
        used = {row["id"] for part in splits.values() for row in part}
        assert used.isdisjoint(reserved)
        assert {d.id for d in gone if d.reason == "kept for the final test"} == reserved
        held |= {row["id"] for row in splits["test"]}
    assert held | reserved == {row["id"] for row in rows}


def test_large_groups_are_spread() -> None:
    sizes = [40, 30, 20, 5, 3, 2]
    rows = [{"id": f"{g}.{i}", "group": str(g)} for g, n in enumerate(sizes) for i in range(n)]
    filled = Counter(assign_folds(rows, 3, "group"))
    assert sorted(filled.values()) == [30, 30, 40]


@pytest.mark.parametrize(
    "times",
    [
        [3, 1, 2],
        ["3.5", "1", "2e0"],
        ["2026-03-01", "2026-01-01T10:00:00", "2026-02-01T00:00:00+02:00"],
        [date(2026, 3, 1), datetime(2026, 1, 1), datetime(2026, 2, 1, tzinfo=UTC)],
    ],
)
def test_numbers_and_dates_are_times(times: list[Any]) -> None:
    rows = [{"id": str(i), "time": t} for i, t in enumerate(times)]
    assert assign_folds(rows, 2, "time") == [2, 0, 1]


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ([1, None, 3], "row '1' has no 'time', which other rows have"),
        ([1, "soon", 3], "row '1' has a 'time' that is neither a number nor a date"),
        ([1, float("nan"), 3], "row '1' has a 'time' that is neither"),
        ([1, "2026-01-01", 3], "some rows have a number and some a date"),
    ],
)
def test_times_that_cannot_be_read(times: list[Any], said: str) -> None:
    rows = [{"id": str(i), "time": t} for i, t in enumerate(times)]
    with pytest.raises(ModelwrightError, match=said):
        assign_folds(rows, 2, "time")


def test_what_cannot_be_is_one_line() -> None:
    rows = [{"id": str(i), "group": "g"} for i in range(3)]
    with pytest.raises(ModelwrightError, match="4 folds need 4 rows, there are 3"):
        assign_folds(rows, 4)
    with pytest.raises(ModelwrightError, match="2 folds need 2 groups, there are 1"):
        assign_folds(rows, 2, "group")
    with pytest.raises(ModelwrightError, match="did you mean 'group'"):
        assign_folds(rows, 2, "groups")  # type: ignore[arg-type]
    with pytest.raises(ModelwrightError, match="number them from 1 to 2"):
        fold_rows(rows, 3, 2)
