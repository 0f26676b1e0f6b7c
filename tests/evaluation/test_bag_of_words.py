"""The linear baseline for texts, against scikit-learn's and on what it cannot know."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from modelwright.data.sources import read_rows
from modelwright.errors import ModelwrightError
from modelwright.evaluation.bag_of_words import BagOfWords
from modelwright.tasks.grading import words


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
