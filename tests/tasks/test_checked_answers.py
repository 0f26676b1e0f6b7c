"""Answers that a machine checks: numbers, texts, patterns, and programs against their tests."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.data.sources import read_rows
from modelwright.errors import ModelwrightError
from modelwright.tasks.answer_checks import number, program, same_number
from modelwright.tasks.task import make_task
from modelwright.types import Example, text_turn


def graded(row: dict[str, Any], answer: str, **options: Any) -> float:
    task = make_task("checked_answers", options)
    found = task.examples({"id": "r", "question": "?", **row})
    assert not isinstance(found, str), found
    (example,) = found
    return task.grade(example, text_turn("assistant", answer))


@given(st.integers(-(10**9), 10**9), st.text(max_size=20))
def test_a_number_is_found_whatever_stands_before(value: int, before: str) -> None:
    if "####" not in before + "#":
        assert number(f"{before}\n#### {value:,}") == value
        assert number(f"{before}\n#### ${value}.00") == value


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("48/2 = 24\n#### 1,072", 1),
        ("#### 1072.0", 1),
        ("####1072", 1),
        ("1072", 0),
        ("#### 1073 #### 1072", 0),
        ("#### ten", 0),
        ("", 0),
    ],
)
def test_the_first_number_counts(answer: str, right: int) -> None:
    assert same_number("It is so.\n#### 1072", answer) == right
    assert graded({"answer": "#### 1072"}, answer) == right


def test_texts_and_patterns() -> None:
    assert graded({"answer": "a b"}, " a\nb ", check="exact") == 1
    assert graded({"answer": "a b"}, "a c", check="exact") == 0
    options = {"check": "pattern", "pattern": r"<answer>(.*?)</answer>"}
    row = {"answer": "<answer>7</answer>"}
    assert graded(row, "so <answer>7</answer>", **options) == 1
    assert graded(row, "so 7", **options) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="programs are contained on Linux")
@pytest.mark.parametrize(
    "row",
    [
        {"answer": ["assert add(1, 2) == 3", "assert add(-1, 1) == 0"]},
        {"answer": "def check(f):\n    assert f(1, 2) == 3", "entry_point": "add"},
    ],
)
def test_programs_pass_their_tests_or_do_not(row: dict[str, Any]) -> None:
    right, wrong = (f"def add(a, b):\n    return a {sign} b" for sign in "+-")
    assert graded(row, right, check="program") == 1
    assert graded(row, f"Here:\n```python\n{right}\n```\nDone.", check="program") == 1
    assert graded(row, wrong, check="program") == 0
    assert graded(row, "while True: pass", check="program", seconds=0.3) == 0


def test_what_stands_in_the_first_fence_is_the_program() -> None:
    assert program("a\n```py\nx = 1\n```\n```\ny = 2\n```") == "x = 1\n"
    assert program("x = 1") == "x = 1"
    assert program("```python\nx = 1") == "x = 1"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": " ", "answer": "#### 1"}, "no question"),
        ({"question": "1?", "answer": ""}, "no answer"),
        ({"question": "1?", "answer": "one"}, "its own answer does not pass the check number"),
    ],
)
def test_a_row_that_cannot_be_checked_is_left_out(row: dict[str, Any], reason: str) -> None:
    assert make_task("checked_answers", {}).examples({"id": "r", **row}) == reason


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"check": "pattern"}, "belongs to check: pattern"),
        ({"check": "pattern", "pattern": "("}, "is no regular expression"),
        ({"check": "number", "pattern": "a"}, "belongs to check: pattern"),
        ({"seconds": 0}, "seconds"),
    ],
)
def test_settings_that_cannot_be_are_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ModelwrightError, match=why):
        make_task("checked_answers", options)


def test_gsm8k_and_the_sums_made_here_are_read(data: Any) -> None:
    task = make_task("checked_answers", {})
    for source in (str(data("gsm8k") / "train.jsonl.gz"), "arithmetic"):
        rows = list(read_rows(source))[:300]
        examples = [next(iter(task.examples(row))) for row in rows]
        assert all(isinstance(example, Example) for example in examples)
    sums = list(read_rows("arithmetic"))
    assert len(sums) == 10_000
    assert all(int(r["answer"][5:]) == sum(map(int, r["question"].split("+"))) for r in sums)
    assert {r["id"] for r in sums if r["group"] == "3+40"} == {"3+40", "40+3"}


@pytest.mark.skipif(sys.platform != "linux", reason="programs are contained on Linux")
def test_published_problems_are_solved_by_their_own_solutions(data: Any) -> None:
    task = make_task("checked_answers", {"check": "program"})
    for name, file, question, tests, solved in (
        ("humaneval", "HumanEval.jsonl.gz", "prompt", "test", "canonical_solution"),
        ("mbpp", "mbpp.jsonl.gz", "text", "test_list", "code"),
    ):
        for row in list(read_rows(str(data(name) / file)))[:3]:
            made = {**row, "question": row[question], "answer": row[tests]}
            found = task.examples(made)
            assert not isinstance(found, str)
            (example,) = found
            before = row["prompt"] if name == "humaneval" else ""
            right = text_turn("assistant", f"{before}{row[solved]}")
            assert task.grade(example, right) == 1, row["id"]
            assert task.grade(example, text_turn("assistant", f"{before}    return")) == 0
