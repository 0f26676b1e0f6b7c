"""Rows to labelled texts: which columns are read, and what is said when they are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from modelwright.data.sources import read_rows
from modelwright.errors import CorruptError, ModelwrightError
from modelwright.tasks.multilabel_classification import MultilabelClassification
from modelwright.tasks.sentiment import Sentiment
from modelwright.tasks.text_classification import TextClassification
from modelwright.types import Example


def only(task: TextClassification, row: dict[str, object]) -> Example:
    (example,) = task.examples(row)
    assert isinstance(example, Example)
    return example


def test_the_named_columns_are_read() -> None:
    example = only(TextClassification(text="review", label="stars"), {"review": "fine", "stars": 4})
    assert example.given[0].text == "fine"
    assert example.answer.label == "4"


@pytest.mark.parametrize("empty", [None, ""])
def test_rows_without_text_or_label_are_dropped_with_the_reason(empty: object) -> None:
    task = TextClassification()
    assert task.examples({"text": "a", "label": empty}) == "no label"
    for blank in (empty, " \n\t\u3000"):
        assert task.examples({"text": blank, "label": "a"}) == "no text"
        assert task.examples({"premise": "a", "hypothesis": blank, "label": "a"}) == "no text"
    assert only(task, {"text": "a", "label": 0}).answer.label == "0"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"texts": "a", "label": "b"},
            r"no column 'text' \(did you mean 'texts'\?\).*options.text",
        ),
        ({"text": "a", "lable": "b"}, r"no column 'label' .*'lable'.*train\.options\.label"),
        ({"text": 3, "label": "b"}, r"column 'text' holds '3', not a text"),
    ],
)
def test_what_is_missing_is_named(row: dict[str, object], message: str) -> None:
    with pytest.raises(ModelwrightError, match=f"^row r1: {message}"):
        TextClassification().examples({"id": "r1", **row})


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("premise", "hypothesis"),
        ("sentence1", "sentence2"),
        ("question1", "question2"),
        ("text1", "text2"),
    ],
)
def test_two_texts_that_belong_together_are_guessed_as_a_pair_and_said(
    first: str, second: str
) -> None:
    row: dict[str, object] = {second: "b", first: "a", "label": 1}
    task = Sentiment()
    example = only(task, row)
    assert [turn.text for turn in example.given] == ["a", "b"]
    said = f"reading two texts, from columns '{first}' and '{second}', and their class from column"
    assert task.reads(row) == f"{said} 'label' (guessed)"
    assert TextClassification.understands(row)
    rated = {first: "a", second: "b", "rating": "5"}
    assert only(task, rated).answer.label == "5"
    assert task.reads(rated) == f"{said} 'rating' (guessed)"
    with pytest.raises(ModelwrightError, match="no column 'label'"):
        only(task, {first: "a", second: "b", "gold": "5"})


def test_a_pair_is_guessed_only_where_nothing_says_otherwise() -> None:
    row: dict[str, object] = {"premise": "a", "hypothesis": "b", "label": "x"}
    alone = TextClassification(text="premise")
    assert len(only(alone, row).given) == 1
    assert not alone.reads(row)
    with_text: dict[str, object] = {"text": "c", **row}
    assert [t.text for t in only(TextClassification(), with_text).given] == ["c"]
    assert not TextClassification().reads(with_text)
    assert not TextClassification.understands(with_text)
    assert not MultilabelClassification.understands(row)
    with pytest.raises(ModelwrightError, match="no column 'text'"):
        only(MultilabelClassification(), row)


def test_chinese_reviews_in_a_table(data: Callable[[str], Path]) -> None:
    source = data("chnsenticorp") / "ChnSentiCorp_htl_all.csv.gz"
    task = TextClassification(text="review")
    found = [task.examples(row) for row in read_rows(str(source))]
    dropped = Counter(f for f in found if isinstance(f, str))
    labels = Counter(next(f).answer.label for f in found if not isinstance(f, str))
    assert set(labels) == {"0", "1"}
    assert labels["1"] > 5000
    assert set(dropped) <= {"no text"}
    assert sum(labels.values()) + sum(dropped.values()) == len(found) == 7766


def test_imdb_is_read_as_reviews_and_labels(data: Callable[[str], Path]) -> None:
    rows = list(read_rows("imdb", path=data("imdb")))
    train = [r for r in rows if r["split"] == "train"]
    assert Counter(r["label"] for r in train) == {"negative": 12_500, "positive": 12_500}


def test_reviews_that_are_not_what_they_should_be(tmp_path: Path) -> None:
    with pytest.raises(ModelwrightError, match=r"train\.jsonl is missing"):
        list(read_rows("imdb", path=tmp_path))
    path = tmp_path / "train.jsonl"
    path.write_text('{"text": "a<br /><br />b", "label": 1}\n{"text": "c", "label": 7}\n')
    rows = read_rows("imdb", path=tmp_path)
    assert next(rows) == {
        "id": "train:1",
        "group": "train:1",
        "text": "a\n\nb",
        "label": "positive",
        "split": "train",
    }
    with pytest.raises(ModelwrightError, match=r"train\.jsonl: review 2: .* 0 or 1"):
        next(rows)
    path.rename(tmp_path / "train.jsonl.xz")
    with pytest.raises(CorruptError, match="damaged"):
        list(read_rows("imdb", path=tmp_path))
