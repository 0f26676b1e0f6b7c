"""The record of what left where, and its proof that nothing left unseen."""

from __future__ import annotations

import json

import numpy as np
import pytest

from modelwright.data.waterfall import Dropped, Waterfall, drop, row_bytes
from modelwright.errors import ModelwrightError


def rows(*ids: str) -> list[dict]:
    return [{"id": i, "text": i * 3} for i in ids]


def test_a_step_is_recorded():
    waterfall = Waterfall()
    entered = rows(*"abcdefgh")
    gone = [drop(row, "too short") for row in entered[:6]] + [drop(entered[6], "empty")]
    waterfall.add("clean", entered, entered[7:], gone)
    waterfall.add("again", entered[7:], entered[7:])
    first, second = json.loads(json.dumps(waterfall.to_json()))
    assert first == {
        "step": "clean",
        "rows_in": 8,
        "rows_out": 1,
        "bytes_in": 24,
        "bytes_out": 3,
        "dropped": {"too short": 6, "empty": 1},
        "examples": {"too short": list("abcde"), "empty": ["g"]},
    }
    assert second["rows_in"] == second["rows_out"] == 1 and second["dropped"] == {}


@pytest.mark.parametrize(
    ("out", "dropped", "said"),
    [
        ("a", [], "row 'b' was lost"),
        ("ab", [Dropped("b", "empty", 3)], "row 'b' was doubled or invented"),
        ("abb", [], "row 'b' was doubled or invented"),
        ("ac", [], "row 'b' was lost"),
        ("a", [Dropped("b", " ", 3)], "row 'b' was dropped without a reason"),
    ],
)
def test_a_step_that_does_not_add_up_is_refused(out, dropped, said):
    with pytest.raises(ModelwrightError, match=said):
        Waterfall().add("step", rows("a", "b"), rows(*out), dropped)


def test_steps_must_follow_each_other():
    waterfall = Waterfall()
    waterfall.add("one", rows("a", "b"), rows("a", "b"))
    with pytest.raises(ModelwrightError, match="1 rows in, but step 'one' gave 2"):
        waterfall.add("two", rows("a"), rows("a"))


def test_sizes():
    assert row_bytes({"id": "long", "text": "é\ud800"}) == 5
    assert row_bytes({"id": "ab", "pixels": np.zeros((2, 2), np.uint8), "n": 1}) == 2 + 4 + 8
