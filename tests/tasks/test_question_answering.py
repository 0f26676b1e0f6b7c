"""Questions about passages: rows, scores, windows, and the baseline without learning."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data import overlap
from modelwright.data.codecs.passages import Codec
from modelwright.data.sources import read_rows
from modelwright.errors import ModelwrightError
from modelwright.objectives.positions import Objective
from modelwright.tasks.question_answering import QuestionAnswering, SlidingWindow
from modelwright.tasks.squad_scores import best_f1, exact, normalised
from modelwright.types import Example, Turn, stack, text_turn
from tests.json_rows import rows as json_rows

PASSAGE = "The bridge was closed on Monday. A crack was found in a cable by two engineers."


def only(**row: object) -> Example:
    (example,) = QuestionAnswering().examples({"id": "r1", "context": PASSAGE, **row})
    assert isinstance(example, Example)
    return example


@pytest.mark.parametrize(
    "answers",
    [
        {"text": ["Monday"], "answer_start": [25]},
        {"text": ["Monday"], "answer_start": [3]},  # a wrong place: the nearest is taken
        {"text": ["Monday"], "answer_start": [None]},
        {"text": ["Monday"], "answer_start": None},
        {"text": "Monday", "answer_start": []},
        {"text": "Monday"},
        [{"text": "Monday", "answer_start": 25}],
        ["Monday"],
        "Monday",
    ],
)
def test_answers_of_every_customary_form_are_the_same_span(answers: object) -> None:
    (span,) = only(question="When?", answers=answers).answer.spans
    assert (span.begin, span.end, span.text) == (25, 31, "Monday")


def test_a_passage_with_several_questions_gives_as_many_examples() -> None:
    row = {
        "id": "a",
        "context": PASSAGE,
        "qas": [
            {"question": "When?", "answers": [{"text": "Monday", "answer_start": 25}]},
            {"question": "Why?", "answers": [{"text": "a storm", "answer_start": 0}]},  # not there
            {"question": "Who drove?", "answers": []},
        ],
    }
    found = list(QuestionAnswering().examples(row))
    assert [len(e.answer.spans) for e in found if isinstance(e, Example)] == [1, 0]
    row["qas"] = row["qas"][1:2]  # type: ignore[index]
    assert QuestionAnswering().examples(row) == "no question with an answer in the passage"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"context": 3, "question": "a?", "answers": []}, "column 'context' holds '3', not a text"),
        ({"context": PASSAGE, "question": "a?"}, "no column 'answers'"),
        ({"context": PASSAGE, "question": 1, "answers": []}, "question '1' is not a text"),
        ({"context": PASSAGE, "question": "a?", "answers": 7}, "answers '7' are none"),
        ({"context": PASSAGE, "question": "a?", "answers": [{"text": 7}]}, "answers .* are none"),
        ({"context": PASSAGE, "question": "a?", "answers": [["a"]]}, "answers .* are none"),
        ({"context": PASSAGE, "qas": 3}, "column 'qas' holds '3', not a list of questions"),
        ({"context": PASSAGE, "qas": [3]}, "'3' in 'qas' is no question"),
        ({"text": PASSAGE, "question": "a?", "answers": []}, "no column 'context'"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(row: dict[str, object], message: str) -> None:
    with pytest.raises(ModelwrightError, match=f"^row r1: .*{message}"):
        QuestionAnswering().examples({"id": "r1", **row})


def test_a_typed_question_stands_on_the_last_line() -> None:
    turns = QuestionAnswering().question("One.\nTwo.\nWhich?\n")
    assert [(t.role, t.text) for t in turns] == [("document", "One.\nTwo."), ("user", "Which?")]
    with pytest.raises(ModelwrightError, match="a passage and a question are needed"):
        QuestionAnswering().question("Which?")


@pytest.mark.parametrize(
    ("reference", "answer", "value"),
    [
        ("the Eiffel Tower", "Eiffel Tower.", 1.0),
        ("in 1889", "1889", 2 / 3),
        ("Paris", "London", 0.0),
        (
            "光荣和ω-force",
            "光荣",
            2 * 2 / (5 + 2),
        ),  # 光 荣 和 ω force: five, the run of two is shared
        ("三十五年", "五十三年", 2 * 1 / 8),  # no longer run than one character
    ],
)
def test_f1_is_that_of_squad_and_of_cmrc(reference: str, answer: str, value: float) -> None:
    assert best_f1([reference], answer) == pytest.approx(value)
    assert best_f1(["nothing like it", reference], answer) == pytest.approx(value)
    assert exact([reference], answer) == float(value == 1)


def test_no_answer_is_right_where_none_is_meant() -> None:
    assert best_f1([], "") == exact([], "") == 1
    assert best_f1([], "x") == best_f1(["x"], "") == 0
    assert normalised("The  A-b, c!") == ["b", "c"] or normalised("The  A-b, c!") == ["a", "b", "c"]


TRAIN = [only(question="When was it closed?", answers=["Monday"])]
CODEC = Codec.fit(TRAIN, vocabulary=300, longest=40, stride=8, question=20)


@given(st.integers(1, 200), st.integers(1, 20))
@settings(max_examples=60)
def test_windows_cover_a_passage_and_share_the_stride(length: int, asked: int) -> None:
    windows = CODEC.windows(length, asked)
    assert sorted({i for a, b in windows for i in range(a, b)}) == list(range(length))
    assert all(len(range(a, b)) + asked + 2 <= CODEC.longest for a, b in windows)
    for (_, end), (begin, _) in pairwise(windows):
        assert end - begin == CODEC.stride


def read_back(codec: Codec, examples: list[Example]) -> list[Turn]:
    """What is decoded of logits that say exactly what is to be learned."""
    columns = stack([codec.encode(e) for e in examples], codec.ragged)
    batch = Objective(codec).collate(columns, torch.Generator())
    logits = batch.targets["wanted"] * 30
    outputs = codec.read(logits, batch.targets, batch.inputs["starts"])
    return codec.spelled(codec.decode(outputs), columns)


def test_what_is_learned_in_any_window_is_what_is_said(data: Callable[[str], Path]) -> None:
    german = (r for r in read_rows("xquad", path=data("xquad")) if r["id"].startswith("de:"))
    rows = islice(german, 0, 720, 9)
    task = QuestionAnswering()
    examples = [e for row in rows for e in task.examples(row) if isinstance(e, Example)]
    codec = Codec.fit(examples, vocabulary=1000, longest=120, stride=40, question=40)
    grades = [
        task.grade(e, said) for e, said in zip(examples, read_back(codec, examples), strict=True)
    ]
    assert np.mean(grades) > 0.97  # a token may hold more than the answer


def test_without_an_answer_none_is_said_where_train_has_such_questions() -> None:
    silent = only(question="Who drove?", answers=[])
    codec = Codec.fit([*TRAIN, silent], vocabulary=300, longest=40, stride=8, question=20)
    found = read_back(codec, [silent, TRAIN[0]])
    assert [[span.text for span in turn.spans] for turn in found] == [[], ["Monday"]]
    (forced,) = read_back(CODEC, [silent])
    assert forced.spans, "train has an answer to every question, so there is always one"


def test_tokens_near_the_words_of_the_question_are_told_apart() -> None:
    found = CODEC.encode(TRAIN[0])
    text = [PASSAGE[a:b].strip() for a, b in found["bounds"].tolist()]
    kinds = dict(zip(text, found["kinds"].tolist(), strict=True))
    matches = {word: (kind - 1) // overlap.LEVELS for word, kind in kinds.items()}
    assert matches["closed"] == 2  # in the question, and once in the passage
    assert found["kinds"].min() >= 1
    assert found["kinds"].max() < overlap.KINDS


def test_the_sliding_window_answers_better_than_chance(data: Callable[[str], Path]) -> None:
    task = QuestionAnswering()
    rows = islice(read_rows("xquad", path=data("xquad") / "xquad.en.json.gz"), 60)
    examples = [e for row in rows for e in task.examples(row) if isinstance(e, Example)]
    found = task.measures(examples, SlidingWindow())[0].value
    assert 0.05 < found < 0.5
    (turn,) = SlidingWindow().answer([(text_turn("document", "?!"), text_turn("user", "why"))])
    assert turn.said  # even of marks alone


def test_what_is_null_leaves_with_a_reason() -> None:
    task = QuestionAnswering()
    assert task.examples({"context": PASSAGE, "qas": None}) == "no questions"
    assert task.examples({"context": None, "qas": []}) == "no passage"
    nothing = "no question with an answer in the passage"
    answer = {"text": ["Monday"], "answer_start": [25]}
    for asked, answers in ((None, answer), ("When?", None), ("When?", [None])):
        row = {"context": PASSAGE, "question": asked, "answers": answers}
        assert task.examples(row) == nothing
        assert task.examples({"context": PASSAGE, "qas": [None, row]}) == nothing


def test_columns_are_guessed_by_customary_names_and_said() -> None:
    row = {"id": "1", "passage": PASSAGE, "query": "When?", "answer": "Monday"}
    task = QuestionAnswering()
    assert task.reads(row) == (
        "reading context from column 'passage' and question from column 'query' and answers from"
        " column 'answer' (guessed)"
    )
    (example,) = task.examples(row)
    assert isinstance(example, Example)
    assert [span.text for span in example.answer.spans] == ["Monday"]
    assert not task.reads({"context": PASSAGE, "question": "When?", "answers": []})
    squad = {"paragraph": PASSAGE, "qas": [{"question": "When?", "answers": ["Monday"]}]}
    assert task.reads(squad) == "reading context from column 'paragraph' (guessed)"
    named = QuestionAnswering(context="passage", question="query", answers="answer")
    assert not named.reads(row)
    with pytest.raises(ModelwrightError, match="no column 'passage'"):
        named.examples({"context": PASSAGE, "query": "When?", "answer": "Monday"})


READABLE: list[dict[str, Any]] = [
    {"context": PASSAGE, "question": "a?", "answers": {"text": ["Monday"], "answer_start": [25]}},
    {"context": PASSAGE, "question": "a?", "answers": [{"text": "Monday", "answer_start": 25}]},
    {"passage": PASSAGE, "query": "a?", "answer": ["Monday"]},
    {"context": PASSAGE, "qas": [{"question": "a?", "answers": ["Monday"]}, {"question": "b?"}]},
]
KEYS = ["context", "question", "answers", "answer", "text", "answer_start", "qas"]


@given(json_rows(READABLE, KEYS))
@settings(max_examples=300, deadline=None)
def test_any_row_of_json_is_read_or_refused_in_one_line(row: dict[str, Any]) -> None:
    task = QuestionAnswering()
    try:
        found = task.examples({"id": "1", **row})
        task.reads(row)
    except ModelwrightError as error:
        assert "\n" not in str(error)
    else:
        assert found if isinstance(found, str) else all(isinstance(e, Example) for e in found)
