"""Copying, majority and linear baselines on real docstrings, digits and frames."""

from __future__ import annotations

import builtins
import inspect
import os.path
import shutil
import textwrap

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.errors import ModelwrightError
from modelwright.evaluation.baselines import LinearProbe, Majority, NearestAnswer, bag_of_frames


def docstrings():
    """Real questions and answers: what the functions of some modules do."""
    pairs = []
    for module in (os.path, shutil, textwrap, inspect, builtins):
        for name, thing in sorted(vars(module).items()):
            text = inspect.getdoc(thing) if callable(thing) else None
            if text and not name.startswith("_"):
                pairs.append((f"What does `{module.__name__}.{name}` do?", text))
    return pairs


def test_the_nearest_answer_is_the_one_of_the_same_name():
    pairs = docstrings()
    assert len(pairs) > 100
    model = NearestAnswer().fit(*zip(*pairs, strict=True))
    first: dict[str, str] = {}  # `inspect.Signature` and `inspect.signature` read the same
    for question, answer in pairs:
        first.setdefault(question.lower(), answer)
    for question, _ in pairs:
        assert model.answer(question) == first[question.lower()]
    assert model.answer("how do I copytree with shutil?") == inspect.getdoc(shutil.copytree)


def test_scores_are_those_of_scikit_learn():
    text = pytest.importorskip("sklearn.feature_extraction.text", reason="needs scikit-learn")
    pairs = docstrings()
    train = [q for q, _ in pairs[::2]] + [a for _, a in pairs[::2]] + ["", "a", "路径 是什么？"]
    asked = [q for q, _ in pairs[1::2]] + [a for _, a in pairs[1::4]] + ["b", "两个 路径"]
    theirs = text.TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), norm=None).fit(train)
    rows = theirs.transform(train).toarray()
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    expected = theirs.transform(asked).toarray() @ rows.T
    model = NearestAnswer().fit(train, train)
    ours = np.stack([model.scores(q) for q in asked])
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9)


def test_ties_go_to_the_earliest_question():
    model = NearestAnswer().fit(["copy a file", "copy a file", "zzz"], ["first", "second", "third"])
    assert model.answer("copy a file") == "first"
    assert model.answer("qqq") == "first"  # nothing in common with any
    assert model.answer("zzzz") == "third"


@given(st.lists(st.text(max_size=20), min_size=1, max_size=8), st.text(max_size=20))
@settings(max_examples=60, deadline=None)
def test_any_question_gets_one_of_the_answers_and_its_own_if_it_was_there(questions, asked):
    model = NearestAnswer().fit(questions, [str(i) for i in range(len(questions))])
    assert 0 <= int(model.answer(asked)) < len(questions)
    for question in questions:
        scores = model.scores(question)
        assert scores[questions.index(question)] >= scores.max() * (1 - 1e-12)


def test_majority_counts_and_settles_ties_by_name():
    assert Majority().fit(["no", "yes", "yes"]).answer() == "yes"
    assert Majority().fit(["b", "a", "b", "a"]).answer("anything") == "a"


def test_a_linear_probe_reads_digits():
    datasets = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn")
    digits = datasets.load_digits()
    held_out = np.arange(len(digits.data)) % 3 == 0
    train, test = digits.data[~held_out], digits.data[held_out]
    state = torch.get_rng_state()
    probe = LinearProbe().fit(train, digits.target[~held_out])
    predicted = probe.predict(test)
    assert (predicted == digits.target[held_out]).mean() >= 0.93
    again = LinearProbe().fit(train, digits.target[~held_out])
    assert torch.equal(probe._weight, again._weight)
    assert torch.equal(torch.get_rng_state(), state)  # no random number was drawn
    scaled = LinearProbe().fit(train * 1000 - 7, digits.target[~held_out])
    assert (scaled.predict(test * 1000 - 7) == predicted).mean() > 0.995


def test_a_linear_probe_finds_the_optimum_that_scikit_learn_finds():
    datasets = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn")
    from sklearn.linear_model import LogisticRegression

    iris = datasets.load_iris()
    x = (iris.data - iris.data.mean(0)) / iris.data.std(0)
    # Theirs is Σ loss + ||W||²/(2C), ours mean loss + l2/2 ||W||²: C = 1 / (l2 N).
    theirs = LogisticRegression(C=1 / (1e-2 * len(x)), tol=1e-10, max_iter=5000).fit(x, iris.target)
    names = np.array(iris.target_names)[iris.target]
    probe = LinearProbe(l2=1e-2).fit(iris.data, names)
    np.testing.assert_allclose(probe._weight.numpy(), theirs.coef_, atol=1e-4)
    assert set(probe.predict(iris.data)) == set(iris.target_names)  # labels come back as given


def test_a_linear_probe_of_many_like_features_needs_few_looks(monkeypatch):
    # Neighbours of a picture say nearly the same: without regard to that it takes more.
    drawn = np.random.default_rng(1)
    features = drawn.normal(size=(600, 200)).cumsum(1)
    labels = (features @ drawn.normal(size=(200, 3))).argmax(1)
    looks = []
    entropy = torch.nn.functional.cross_entropy

    def counted(*given):
        looks.append(1)
        return entropy(*given)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", counted)
    probe = LinearProbe().fit(features, labels)
    turned = len(looks)
    monkeypatch.setattr("modelwright.evaluation.baselines.WIDEST", 100)
    plain = LinearProbe().fit(features, labels)
    assert turned < len(looks) - turned
    np.testing.assert_allclose(probe._weight.numpy(), plain._weight.numpy(), atol=1e-3)


def test_a_linear_probe_on_one_class_and_a_constant_feature():
    features = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
    assert LinearProbe().fit(features, ["a", "a", "a"]).predict(features).tolist() == ["a"] * 3
    probe = LinearProbe().fit(features, ["low", "low", "high"])
    assert probe.predict(np.array([[0.0, 5.0], [9.0, 5.0]])).tolist() == ["low", "high"]


@given(st.integers(1, 20), st.integers(1, 5), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_a_bag_has_no_order(time, width, seed):
    frames = np.random.default_rng(seed).normal(3, 2, size=(time, width))
    bag = bag_of_frames(frames)
    assert bag.shape == (2 * width,)
    np.testing.assert_allclose(bag_of_frames(frames[::-1]), bag, atol=1e-12)
    np.testing.assert_allclose(bag[:width], frames.sum(0) / time, atol=1e-12)
    variance = (frames**2).sum(0) / time - bag[:width] ** 2
    np.testing.assert_allclose(bag[width:] ** 2, variance, atol=1e-9)


def test_what_cannot_be_is_refused_in_one_line():
    features = np.zeros((2, 3))
    for broken, words in [
        (lambda: NearestAnswer().fit(["q"], []), "1 questions and 0 answers"),
        (lambda: NearestAnswer().fit([], []), "at least one question"),
        (lambda: NearestAnswer().answer("q"), "call fit first"),
        (lambda: Majority().fit([]), "at least one"),
        (lambda: Majority().answer(), "call fit first"),
        (lambda: LinearProbe().fit(features, ["a"]), "2 rows of features and 1 labels"),
        (lambda: LinearProbe().fit(features[0], ["a"]), r"shape \(3,\)"),
        (lambda: LinearProbe().fit(features + np.nan, ["a", "b"]), "finite numbers"),
        (lambda: LinearProbe().fit(features, ["a", "b"]).predict(features[:, :2]), "2 features"),
        (lambda: bag_of_frames(np.zeros((0, 4))), r"shape \(0, 4\)"),
        (lambda: bag_of_frames(np.zeros(4)), r"shape \(4,\)"),
    ]:
        with pytest.raises(ModelwrightError, match=words) as raised:
            broken()
        assert "\n" not in str(raised.value)
