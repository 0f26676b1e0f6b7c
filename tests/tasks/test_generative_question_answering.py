"""Answers in free words: rows, what is read of a question, scores, trivial answers, the codec."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.codecs import load_codec, save_codec
from modelwright.data.codecs.questions import Codec, asked
from modelwright.data.sources import read_rows
from modelwright.errors import ModelwrightError
from modelwright.tasks.generative_question_answering import GenerativeQuestionAnswering
from modelwright.tasks.task import make_task
from modelwright.types import Example, Shortened, Turn, text_turn
from tests.json_rows import rows as json_rows

TASK = GenerativeQuestionAnswering()
PASSAGE = "The bridge was closed on Monday."


def only(**row: object) -> Example:
    (example,) = TASK.examples({"id": "r1", **row})
    assert isinstance(example, Example)
    return example


@pytest.mark.parametrize(
    ("answers", "right"),
    [
        ("Monday", ["Monday"]),
        (["Monday", "on Monday", "Monday "], ["Monday", "on Monday"]),
        ({"text": ["Monday", "on Monday"], "answer_start": [25, 22]}, ["Monday", "on Monday"]),
        ({"text": "Monday", "answer_start": 25}, ["Monday"]),
        ([{"text": "Monday", "answer_start": 25}, {"text": "on Monday"}], ["Monday", "on Monday"]),
        ([None, "Monday"], ["Monday"]),
        ([], []),
        ({"text": [], "answer_start": []}, []),
    ],
)
def test_answers_of_every_customary_form_are_right_and_the_first_is_learned(
    answers: object, right: list[str]
) -> None:
    example = only(context=PASSAGE, question="When?", answers=answers)
    assert [turn.role for turn in example.turns] == ["document", "user", "assistant"]
    assert example.accepted == tuple(right)
    assert example.answer.text == (right[0] if right else "")
    assert TASK.kind(example) == ("" if right else "no answer")


def test_without_a_passage_the_book_is_closed() -> None:
    example = only(query="Who\n wrote\tit?", answer="Mary Shelley")
    assert [turn.text for turn in example.turns] == ["Who wrote it?", "Mary Shelley"]
    assert "without a passage" in TASK.reads({"question": "a", "answers": "b"})
    assert "'passage'" in TASK.reads({"passage": "a", "question": "b", "answers": "c"})
    assert TASK.reads({"context": "a", "question": "b", "answers": "c"}) == ""
    assert only(context=None, question="a?", answers="b").given == only(
        question="a?", answers="b"
    ).given  # fmt: skip


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": None, "answers": "b"}, "no question"),
        ({"question": " \n", "answers": "b"}, "no question"),
        ({"context": PASSAGE, "question": "a", "answers": None}, "no answer"),
        ({"context": PASSAGE, "question": "a", "answers": [" ", None]}, "no answer"),
        ({"question": "a", "answers": []}, "no answer"),  # without a passage nothing says that
        ({"context": PASSAGE, "qas": None}, "no questions"),
        ({"context": PASSAGE, "qas": [{"question": "a"}]}, "no question with an answer"),
    ],
)
def test_bad_rows_leave_with_the_reason(row: dict[str, Any], reason: str) -> None:
    assert TASK.examples(row) == reason


@pytest.mark.parametrize(
    ("options", "row", "why"),
    [
        ({}, {"question": 3, "answers": "b"}, "question '3' is not a text"),
        ({}, {"question": "a", "answers": 7}, "answers '7' are none"),
        ({}, {"question": "a", "answers": [{"text": 7}]}, "answers .* are none"),
        ({}, {"question": "a", "context": 3, "answers": "b"}, "column 'context' holds '3'"),
        ({}, {"context": PASSAGE, "question": "a"}, "no column 'answers'"),
        ({}, {"context": PASSAGE, "qas": 3}, "holds '3', not a list of questions"),
        ({}, {"context": PASSAGE, "qas": [3]}, "'3' in 'qas' is no question"),
        ({"context": "body"}, {"text": "x", "question": "a", "answers": "b"}, "no column 'body'"),
    ],
)
def test_what_cannot_be_read_is_named(
    options: dict[str, str], row: dict[str, Any], why: str
) -> None:
    with pytest.raises(ModelwrightError, match=why) as raised:
        make_task("generative_question_answering", options).examples({"id": "r7", **row})
    assert str(raised.value).startswith("row r7: ") and "\n" not in str(raised.value)


READABLE = [
    {"context": PASSAGE, "question": "When?", "answers": {"text": ["Monday"]}},
    {"question": "When?", "answer": ["Monday", "on Monday"]},
    {"context": PASSAGE, "qas": [{"question": "When?", "answers": [{"text": "Monday"}]}]},
]


@given(json_rows(READABLE, ["context", "question", "answers", "answer", "text", "qas"]))
@settings(max_examples=600, deadline=None)
def test_any_row_of_json_is_read_or_refused_in_one_line(row: dict[str, Any]) -> None:
    try:
        found = TASK.examples({"id": "1", **row})
        TASK.reads(row)
    except ModelwrightError as error:
        assert "\n" not in str(error)
    else:
        assert found if isinstance(found, str) else all(isinstance(e, Example) for e in found)


class Said:
    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def answer(self, given: Sequence[Sequence[Turn]]) -> list[Turn]:
        return [text_turn("assistant", text) for text in self.texts[: len(given)]]


def test_answers_are_graded_against_all_that_are_right() -> None:
    examples = [
        only(context=PASSAGE, question="When?", answers=["on Monday", "the first day"]),
        only(context=PASSAGE, question="Why?", answers=[]),
        only(context="桥在星期一关闭。", question="什么时候？", answers=["星期一"]),
    ]
    f1, exact = TASK.measures(examples, Said("First day!", "", "在星期一"))
    assert (f1.name, exact.name) == ("answer F1", "exact match")
    assert f1.value == pytest.approx((1 + 1 + 2 * 3 / 7) / 3)
    assert exact.value == pytest.approx(2 / 3)
    f1, exact = TASK.measures(examples[:2], Said("Monday Tuesday", "something"))
    assert (f1.value, exact.value) == (pytest.approx(0.25), 0)


def test_trivial_answers_read_the_question_alone() -> None:
    train = [
        only(context="x", question="When was it built?", answers="1900"),
        only(context="x", question="Who built it?", answers="a smith"),
        only(context="who built it? who built it?", question="Where is it?", answers="1900"),
    ]
    said = TASK.baselines(train)
    asked = [only(context="where is it?", question="Who built it then?", answers="b").given]
    assert {name: policy.answer(asked)[0].text for name, policy in said.items()} == {
        "most common answer": "1900",
        "nearest training answer": "a smith",
    }


# What is read ----------------------------------------------------------------------------------

TRAIN = [only(context=PASSAGE, question="When was it?", answers=["Monday", "on Monday"])] * 3
CODEC = Codec.fit(TRAIN, vocabulary=300, longest=64)


def test_question_and_passage_are_one_source_however_they_are_asked() -> None:
    source = f"question: When was it? context: {PASSAGE}"
    assert CODEC.text.text(CODEC.encode(TRAIN[0])["source"].tolist()) == source
    typed = TASK.question(f"{PASSAGE}\n\nWhen was it?\n")
    served = [text_turn("user", f"{PASSAGE}\nWhen was it?")]
    assert CODEC.prompt(typed) == CODEC.prompt(served) == CODEC.prompt(TRAIN[0].given)
    assert CODEC.prompt(TASK.question("When?")) == CODEC.prompt([text_turn("user", "When?")])
    assert CODEC.given_text(asked("When?")) == "question: When?"
    with pytest.raises(ModelwrightError, match="a question is needed"):
        TASK.question(" \n")


@given(st.text(max_size=90), st.text(max_size=20), st.lists(st.text(max_size=5), max_size=3))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_what_is_read_comes_back_and_a_passage_loses_its_end(
    passage: str, question: str, answers: list[str]
) -> None:
    found = TASK.examples({"context": passage, "question": question, "answers": answers})
    if isinstance(found, str):
        return
    (example,) = found
    encoded = CODEC.encode(example)
    again = CODEC.example(encoded)
    assert again.accepted == example.accepted
    assert len(CODEC.prompt(again.given)) <= CODEC.longest  # it is asked as it was learned
    if not isinstance(encoded, Shortened) and max(passage + question + " ") < "\ud800":
        assert CODEC.given_text(again.turns) == CODEC.given_text(example.turns)


def test_a_long_passage_is_cut_and_its_question_is_not() -> None:
    long = only(context=PASSAGE * 9, question="When was it?", answers="Monday")
    encoded = CODEC.encode(long)
    assert isinstance(encoded, Shortened)
    passage, question = (turn.text for turn in CODEC.example(encoded).given)
    assert question == "When was it?" and (PASSAGE * 9).startswith(passage)
    again = load_codec(save_codec(CODEC))
    assert isinstance(again, Codec) and again.longest == 64


@pytest.mark.parametrize(("name", "rows", "several"), [("xquad", 720, 1), ("cmrc2018", 848, 2)])
def test_published_questions_are_read(
    name: str, rows: int, several: int, data: Callable[[str], Path]
) -> None:
    found = [list(TASK.examples(row)) for row in read_rows(name, path=data(name))]
    assert len(found) == rows
    examples = [e for some in found for e in some if isinstance(e, Example)]
    assert len(examples) == sum(map(len, found))
    assert max(len(e.accepted) for e in examples) >= several
