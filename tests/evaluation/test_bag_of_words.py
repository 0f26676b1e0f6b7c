"""The linear baseline for texts, against scikit-learn's and on what it cannot know."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from modelwright.data.sources import read_rows
from modelwright.errors import ModelwrightError
from modelwright.evaluation.bag_of_words import BagOfWords, OneAgainstRest
from modelwright.pipeline.predicted import Several
from modelwright.tasks.grading import words
from modelwright.tasks.multilabel_classification import MultilabelClassification
from modelwright.types import Example


def test_it_is_the_model_that_scikit_learn_fits(data: Callable[[str], Path]) -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text", reason="needs scikit-learn")
    from sklearn.linear_model import LogisticRegression

    rows = list(islice(read_rows("imdb", path=data("imdb")), 600))
    texts, labels = [r["text"] for r in rows], [r["label"] for r in rows]
    # Two classes are one logit w there, -w/2 and w/2 here, so that half the strength is theirs.
    ours = BagOfWords(strength=0.5).fit(texts[:400], labels[:400])
    vectors = text.TfidfVectorizer(
        sublinear_tf=True, tokenizer=words, token_pattern=None, lowercase=False, min_df=2
    )
    theirs = LogisticRegression(tol=1e-8, max_iter=2000)
    theirs.fit(vectors.fit_transform(texts[:400]), labels[:400])
    logit = ours._weight[:, 1] - ours._weight[:, 0]
    np.testing.assert_allclose(logit.numpy(), theirs.coef_[0], atol=1e-3)
    guesses = ours.predict(texts[400:])
    assert guesses == theirs.predict(vectors.transform(texts[400:])).tolist()
    assert np.mean(np.array(guesses) == np.array(labels[400:])) > 0.7


def test_words_count_and_their_order_does_not() -> None:
    texts = ["good good film", "good story", "bad film", "bad bad story"]
    probe = BagOfWords().fit(texts, ["yes", "yes", "no", "no"])
    assert probe.predict(["film good", "good film", "a bad one", "bad"]) == [
        "yes",
        "yes",
        "no",
        "no",
    ]


def test_unknown_words_leave_the_commonest_label() -> None:
    probe = BagOfWords().fit(["a b", "a b", "a c", "b c"], ["x", "x", "x", "y"])
    assert probe.predict(["", "never seen"]) == ["x", "x"]
    assert BagOfWords().fit(["a", "b", "c"], ["x", "x", "y"]).predict(["a"]) == ["x"]


def test_texts_and_labels_must_match() -> None:
    with pytest.raises(ModelwrightError, match="1 texts and 0 labels"):
        BagOfWords().fit(["a"], [])


def commands(path: Path, count: int) -> list[Example]:
    """Commands of SNIPS, each with the kinds of its slots as labels: one to several."""
    task, rows = MultilabelClassification(), list(read_rows("snips_nlu", path=path))
    found = []
    for row in rows[:: len(rows) // count]:
        kinds = sorted({kind for _, _, kind in row["spans"]})
        (example,) = task.examples({"text": row["text"], "label": kinds})
        assert isinstance(example, Example)
        found.append(example)
    return found


def test_one_against_the_rest_is_what_scikit_learn_fits(data: Callable[[str], Path]) -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text", reason="needs scikit-learn")
    from sklearn.linear_model import LogisticRegression

    examples = commands(data("snips_nlu"), 600)
    texts = [e.given[0].text for e in examples]
    labels = [e.answer.labels for e in examples]
    ours = OneAgainstRest().fit_several(texts[:400], labels[:400])
    vectors = text.TfidfVectorizer(
        sublinear_tf=True, tokenizer=words, token_pattern=None, lowercase=False, min_df=2
    )
    known, fresh = vectors.fit_transform(texts[:400]), vectors.transform(texts[400:])
    guesses = ours.predict_several(texts[400:])
    for label in ("artist", "playlist", "timeRange"):
        theirs = LogisticRegression(tol=1e-8, max_iter=2000)
        theirs.fit(known, [label in names for names in labels[:400]])
        column = ours._classes.index(label)
        np.testing.assert_allclose(ours._weight[:, column].numpy(), theirs.coef_[0], atol=1e-3)
        assert [label in names for names in guesses] == theirs.predict(fresh).tolist()


def test_the_linear_model_of_several_labels_beats_the_commonest_answer(
    data: Callable[[str], Path],
) -> None:
    task, examples = MultilabelClassification(), commands(data("snips_nlu"), 3000)
    train, test = examples[::2], examples[1::2]
    linear = task.measures(test, Several(train))
    (constant,) = task.baselines(train).values()
    common = task.measures(test, constant)
    assert linear[0].name == "F1 of labels" and linear[0].value > common[0].value + 0.3
    assert all(one.value > other.value for one, other in zip(linear, common, strict=True))


def test_of_several_labels_none_may_hold() -> None:
    texts = ["red", "red", "blue", "blue", "grey", "grey"] * 20
    labels = [("warm",), ("warm",), ("cold", "sea"), ("cold", "sea"), (), ()] * 20
    model = OneAgainstRest().fit_several(texts, labels)
    assert model.predict_several(["red", "blue", "grey"]) == [["warm"], ["cold", "sea"], []]
    assert OneAgainstRest().fit_several(["a", "b"], [(), ()]).predict_several(["a"]) == [[]]
    with pytest.raises(ModelwrightError, match="1 texts and 0 sets of labels"):
        OneAgainstRest().fit_several(["a"], [])
