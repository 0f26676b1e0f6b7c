"""F1 of every class, held against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest

from modelwright.errors import ModelwrightError
from modelwright.evaluation.per_class import per_class

metrics = pytest.importorskip("sklearn.metrics")


def test_f1_of_every_class_and_their_mean_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    meant = rng.choice(["a", "b", "c"], 500, p=[0.7, 0.2, 0.1])
    said = np.where(rng.random(500) < 0.8, meant, rng.choice(["a", "b", "d"], 500))
    *classes, macro = per_class(meant.tolist(), said.tolist())
    theirs = metrics.f1_score(meant, said, average=None, labels=["a", "b", "c", "d"])
    assert [c.name for c in classes] == ["a", "b", "c", "d"]
    assert [c.f1 for c in classes] == pytest.approx(theirs.tolist())
    assert macro.f1 == pytest.approx(float(theirs.mean()))
    assert [c.meant for c in classes] == [*(int((meant == n).sum()) for n in "abc"), 0]
    assert all(c.low <= c.f1 <= c.high for c in (*classes[:3], macro))
    width = {c.name: c.high - c.low for c in classes}
    assert width["c"] > width["a"], "of few examples one is less sure"


def test_answers_that_do_not_match_are_refused() -> None:
    with pytest.raises(ModelwrightError, match="2 references and 1 answers"):
        per_class(["a", "b"], ["a"])
