"""Splits: shares, groups, given splits, and an audit that sees what is planted."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from modelwright.data.sources import read_rows
from modelwright.data.split import leakage_audit, split_rows
from modelwright.data.waterfall import Waterfall, row_bytes
from modelwright.errors import ModelwrightError

WORDS = [f"word{i}" for i in range(5000)]


def text(seed: int, length: int = 100) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def corpus(groups: int = 100, each: int = 3) -> list[dict]:
    return [
        {"id": f"{g}.{i}", "group": f"g{g}", "text": text(g * each + i, 40 + 2 * g)}
        for g in range(groups)
        for i in range(each)
    ]


def ids(rows) -> list[str]:
    return [row["id"] for row in rows]


def test_shares_are_met_in_bytes():
    rows = corpus()
    splits, dropped = split_rows(rows)
    assert not dropped
    total = sum(map(row_bytes, rows))
    for part in ("validation", "test"):
        assert 0.04 < sum(map(row_bytes, splits[part])) / total < 0.055
        assert len({row["group"] for row in splits[part]}) >= 4
    assert sorted(row["id"] for found in splits.values() for row in found) == sorted(ids(rows))


def test_the_seed_decides_and_the_order_of_rows_does_not():
    rows = corpus()
    sides = [split_rows(r, seed=s)[0]["test"] for r, s in ((rows, 1), (rows[::-1], 1), (rows, 2))]
    assert sorted(ids(sides[0])) == sorted(ids(sides[1])) != sorted(ids(sides[2]))


def test_giants_go_to_train():
    rows = [*corpus(60), {"id": "giant", "group": "giant", "text": text(9999, 3000)}]
    for seed in range(20):
        splits, _ = split_rows(rows, seed=seed)
        assert "giant" in ids(splits["train"])


def test_few_groups_still_fill_every_part():
    rows = [{"id": str(i), "group": str(i), "text": text(i)} for i in range(3)]
    splits, _ = split_rows(rows)
    assert [len(splits[part]) for part in ("train", "validation", "test")] == [1, 1, 1]
    with pytest.raises(ModelwrightError, match=r"3 parts need as many groups, the data has 2"):
        split_rows(rows[:2])
    splits, _ = split_rows(rows[:2], {"train": 0.9, "validation": 0.1})
    assert len(splits["train"]) == len(splits["validation"]) == 1 and splits["test"] == []


@pytest.mark.parametrize(
    ("fractions", "said"),
    [
        ({"train": 0.9, "validation": 0.2}, "add up to 1.1"),
        ({"validation": 0.5, "test": 0.5}, "something for train"),
        ({"train": 0.9, "valdation": 0.1}, "did you mean 'validation'?"),
        ({"train": 1.1, "test": -0.1}, "must be from 0 to 1"),
    ],
)
def test_bad_fractions(fractions, said):
    with pytest.raises(ModelwrightError, match="split fractions") as caught:
        split_rows(corpus(5), fractions)
    assert said in str(caught.value)


def test_bad_columns():
    with pytest.raises(ModelwrightError, match=r"no such column.*did you mean 'group'"):
        split_rows(corpus(5), by="gruop")
    with pytest.raises(ModelwrightError, match="no rows to split"):
        split_rows([])
    with pytest.raises(ModelwrightError, match=r"row '0\.0' has no such column"):
        split_rows(corpus(5), by="given")
    rows = [{**row, "split": "trian"} for row in corpus(5)]
    with pytest.raises(ModelwrightError, match=r"split 'trian'.*did you mean 'train'"):
        split_rows(rows, by="given")
    rows = [{**row, "split": "test"} for row in corpus(5)]
    with pytest.raises(ModelwrightError, match="no row is in split 'train'"):
        split_rows(rows, by="given")


def copies() -> list[dict]:
    """A corpus in which one row of a small group has a copy, but for a word, in every group."""
    rows = corpus(60)
    words = text(777, 200).split()
    for g in range(60):
        near = " ".join("changed" if i == g else w for i, w in enumerate(words))
        rows.append({"id": f"copy{g}", "group": f"g{g}", "text": near})
    return rows


def test_copies_of_train_rows_are_dropped_from_what_is_held_out():
    rows = copies()
    splits, dropped = split_rows(rows)
    waterfall = Waterfall()
    waterfall.add("split", rows, [r for part in splits.values() for r in part], dropped)
    assert {d.id for d in dropped} == {
        f"copy{r['group'][1:]}" for part in ("validation", "test") for r in splits[part]
    }
    assert {d.reason for d in dropped} == {"near-duplicate of a train row"}
    assert all(d.kept_id in ids(splits["train"]) and d.similarity >= 0.8 for d in dropped)
    assert leakage_audit(splits)["holds"]


def test_a_given_split_is_respected_and_train_pays_for_copies():
    rows = copies()
    rows = [{**r, "split": "test" if r["id"] == "copy0" else "train"} for r in rows]
    rows.append({"id": "exact", "group": "exact", "split": "train", "text": rows[-60]["text"]})
    splits, dropped = split_rows(rows, by="given")
    assert ids(splits["test"]) == ["copy0"]
    reasons = {d.id: d.reason for d in dropped}
    assert reasons["exact"] == "exact duplicate of a test row"
    assert reasons["copy7"] == "near-duplicate of a test row" and len(reasons) == 60
    assert 0 < len(splits["validation"]) < 0.1 * len(rows)
    assert {r["group"] for r in splits["validation"]}.isdisjoint(
        r["group"] for r in splits["train"]
    )


def test_given_validation_rows_are_kept_under_any_usual_name():
    names = ["train"] * 8 + ["dev", "test"]
    rows = [
        {"id": str(i), "group": str(i), "split": name, "text": text(i)}
        for i, name in enumerate(names)
    ]
    splits, _ = split_rows(rows, by="given")
    assert {part: ids(splits[part]) for part in ("validation", "test")} == {
        "validation": ["8"],
        "test": ["9"],
    }


def test_the_audit_sees_what_is_planted():
    splits, _ = split_rows(corpus())
    clean = leakage_audit(splits)
    assert clean["holds"] and clean["examples"] == {"pairs": [], "groups": []}
    assert clean["ngram_overlap"]["test"] == {"rows": 0, "ngrams": 0}
    assert clean["sizes"]["train"]["rows"] == len(splits["train"])
    victim = splits["train"][0]
    words = victim["text"].split()
    near = {"id": "near", "group": "new1", "text": " ".join([*words[:-1], "else"])}
    part = {"id": "part", "group": "new2", "text": " ".join(words[:13]) + " " + text(-1)}
    exact = {"id": "exact", "group": victim["group"], "text": victim["text"].upper()}
    exact["text"] = victim["text"] + "  \n"
    splits["test"] = [*splits["test"], near, part]
    splits["validation"] = [*splits["validation"], exact]
    audit = leakage_audit(splits)
    assert not audit["holds"]
    assert audit["exact_duplicates"] == {"train/validation": 1}
    assert audit["near_duplicates"] == {"train/test": 1, "validation/test": 1}
    assert audit["groups_torn"] == 1 and audit["examples"]["groups"] == [victim["group"]]
    assert {"ids": [victim["id"], "exact"], "similarity": 1.0} in audit["examples"]["pairs"]
    assert audit["ngram_overlap"]["test"]["rows"] == pytest.approx(2 / len(splits["test"]))
    json.dumps(audit)


def test_mnist_keeps_its_test_set(data):
    rows = [r for i, r in enumerate(read_rows("mnist", path=data("mnist"))) if i % 5 == 0]
    splits, dropped = split_rows(rows, {"train": 0.9, "validation": 0.1}, by="given")
    assert len(splits["test"]) == 2000
    assert len(splits["train"]) + len(splits["validation"]) + len(dropped) == 12_000
    assert 1100 < len(splits["validation"]) < 1300
    audit = leakage_audit(splits)
    assert audit["holds"] and audit["ngram_overlap"] == {}


def test_rows_of_arrays_do_not_leak():
    rows = [
        {"id": str(i), "group": str(i), "pixels": np.full(4, i % 50, np.uint8)} for i in range(100)
    ]
    splits, dropped = split_rows(rows, {"train": 0.5, "test": 0.5})
    assert {d.reason for d in dropped} == {"exact duplicate of a train row"}
    assert leakage_audit(splits)["holds"]
    planted = {**splits, "test": [*splits["test"], {**splits["train"][0], "id": "x", "group": "x"}]}
    audit = leakage_audit(planted)
    assert not audit["holds"] and audit["exact_duplicates"]["train/test"] >= 1
