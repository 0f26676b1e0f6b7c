"""Measures of what is found, worked out by hand, and scores of words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from modelwright.errors import ModelwrightError
from modelwright.tasks.ranking import bm25, measured, ranks, tf_idf
from modelwright.tasks.task import Constant, make_task
from modelwright.types import Example, text_turn
from tests.json_rows import rows


def test_ranks_and_measures_by_hand() -> None:
    scores = np.array([[0.9, 0.5, 0.1, 0.7], [0.2, 0.2, 0.1, 0.0]])
    found = ranks(scores, [[1], [1, 3]])
    assert [r.tolist() for r in found] == [[3], [2, 4]]  # equals do not help: 1 stands behind 0
    values = measured(found)
    assert values["MRR"].tolist() == [1 / 3, 1 / 2]
    assert values["recall@1"].tolist() == [0, 0]
    assert values["recall@5"].tolist() == [1, 1]
    gain = 1 / np.log2(3) + 1 / np.log2(5)
    ideal = 1 + 1 / np.log2(3)
    np.testing.assert_allclose(values["nDCG@10"], [1 / np.log2(4), gain / ideal])
    deep = measured(ranks(-np.arange(20.0)[None], [[15]]))
    assert deep["nDCG@10"].tolist() == [0]


def test_bm25_is_its_formula() -> None:
    passages = ["the red house", "the boat", "red red boat on the river"]
    found = bm25(["red boat"], passages)[0]
    mean = (3 + 2 + 6) / 3

    def part(count: int, texts: int, size: int) -> float:
        idf = np.log(1 + (3 - texts + 0.5) / (texts + 0.5))
        return float(idf * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * size / mean)))

    np.testing.assert_allclose(found, [part(1, 2, 3), part(1, 2, 2), part(2, 2, 6) + part(1, 2, 6)])
    assert bm25(["nothing"], passages).tolist() == [[0, 0, 0]]


def test_tf_idf_orders_as_cosines_do() -> None:
    passages = ["the red house", "the boat", "red red boat on the river"]
    found = tf_idf(["the boat", "红 house"], passages)
    assert found.argmax(1).tolist() == [1, 0]
    own = tf_idf(passages, passages)
    assert own.argmax(1).tolist() == [0, 1, 2]


def test_texts_that_belong_to_one_query_all_count() -> None:
    task = make_task("retrieval", {})
    rows = [
        {"id": "1", "query": "boat", "passage": "a boat"},
        {"id": "2", "query": "boat", "passage": "a boat at sea"},
        {"id": "3", "query": "house", "passage": "a house", "negatives": "a houseboat"},
    ]
    examples = [e for row in rows for e in task.examples(row)]
    scores = {m.name: m for m in task.measures(examples, task.baselines(())["BM25"])}  # type: ignore[arg-type]
    assert scores["nDCG@10"].value == 1
    assert scores["MRR"].note.endswith("2 queries, 4 texts")
    with pytest.raises(ModelwrightError, match="neither vectors nor scores"):
        task.measures(examples, Constant(text_turn("assistant", "x")))  # type: ignore[arg-type]


def test_columns_are_guessed_and_said_or_asked_for() -> None:
    task = make_task("text_embedding", {})
    assert task.reads({"id": "1", "en": "a", "zh": "b"}) == (
        "reading first from column 'en' and second from column 'zh' (guessed)"
    )
    row = {"id": "1", "left": "a", "right": "b", "negatives": ["c"]}
    said = task.reads(row)
    assert "'left'" in said
    assert "texts that do not belong from 'negatives'" in said
    with pytest.raises(
        ModelwrightError, match=r"row 1: which columns hold the first and the secon"
    ):
        task.examples({"id": "1", "a": "x", "b": "y", "c": "z"})
    named = make_task("text_embedding", {"first": "a", "second": "c"})
    assert named.reads({"id": "1", "a": "x", "b": "y", "c": "z"}) == ""
    assert named.examples({"id": "1", "a": " ", "c": "z"}) == "an empty text"
    with pytest.raises(ModelwrightError, match=r"row 1: no column 'c'"):
        named.examples({"id": "1", "a": "x"})
    with pytest.raises(ModelwrightError, match=r"column 'c' holds '3', not a text"):
        named.examples({"id": "1", "a": "x", "c": 3})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "a", "passage": "b", "negatives": 3}, "'negatives' holds '3', neither a text"),
        ({"query": "a", "passage": "b", "negatives": [3]}, "'negatives' holds .*, neither a text"),
        ({"qas": [{"question": "a"}]}, "has questions in 'qas' and no column 'context'"),
        ({"qas": 3, "context": "b"}, "'3' in column 'qas' is no question"),
        ({"qas": [{"question": 3}], "context": "b"}, "in column 'qas' is no question"),
        ({"qas": [{"question": "a"}], "context": 3}, "column 'context' holds '3', not a text"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(row: dict[str, object], message: str) -> None:
    with pytest.raises(ModelwrightError, match=f"^row r1: .*{message}"):
        make_task("retrieval", {}).examples({"id": "r1", **row})


def test_what_is_null_leaves_with_a_reason() -> None:
    task = make_task("retrieval", {})
    assert task.examples({"context": "b", "qas": None}) == "no questions"
    for row in ({"context": None, "qas": [{"question": "a"}]}, {"context": "b", "qas": [None, {}]}):
        assert task.examples(row) == "an empty text"
    found = task.examples({"query": "a", "passage": "b", "negatives": [None, " ", "c"]})
    assert [[t.text for t in e.turns] for e in found if isinstance(e, Example)] == [["a", "c", "b"]]


READABLE: list[dict[str, Any]] = [
    {"query": "a", "passage": "b", "negatives": ["c", "d"]},
    {"question": "a", "context": "b", "negatives": "c"},
    {"context": "b", "qas": [{"question": "a"}, {"question": "c"}]},
]
KEYS = ["query", "passage", "question", "context", "negatives", "qas", "answers"]


@given(rows(READABLE, KEYS))
@settings(max_examples=300, deadline=None)
def test_any_row_of_json_is_read_or_refused_in_one_line(row: dict[str, Any]) -> None:
    task = make_task("retrieval", {})
    try:
        found = task.examples({"id": "1", **row})
        task.reads(row)
    except ModelwrightError as error:
        assert "\n" not in str(error)
    else:
        assert found if isinstance(found, str) else all(isinstance(e, Example) for e in found)
