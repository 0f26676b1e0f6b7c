"""Confusions and calibration in the page of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelwright.reporting.classified import PAIRS, calibrations, confusions
from modelwright.reporting.record import read_record
from modelwright.reporting.report import render


def evaluated(run: Path, **facts: Any) -> None:
    path = run / "evaluation.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, **facts}))


def test_few_labels_have_a_column_each(run: Path) -> None:
    cells = [["cat", "cat", 3], ["cat", "<b>dog</b>", 2], ["<b>dog</b>", "cat", 1]]
    part = {"stage": "train", "labels": ["cat", "<b>dog</b>"], "cells": cells}
    evaluated(run, confusions=[part])
    (table,) = confusions(read_record(run))
    assert table.rows == [("cat", "3", "2"), ("<b>dog</b>", "1", "0")]
    page = render(read_record(run))
    assert "What was taken for what, train" in page
    assert "<b>dog</b>" not in page


def test_of_many_labels_the_commonest_mistakes_are_listed(run: Path) -> None:
    names = [f"label {i}" for i in range(40)]
    cells = [[n, n, 10] for n in names] + [[n, names[0], i] for i, n in enumerate(names) if i]
    evaluated(run, confusions=[{"stage": "train", "labels": names, "cells": cells}])
    (table,) = confusions(read_record(run))
    assert len(table.rows) == PAIRS
    assert table.rows[0] == ("label 39", "label 0", "39", "79.6%")


@pytest.mark.parametrize("broken", [None, 3, [3], [{"cells": "x"}], [{"cells": [["a", 1]]}]])
def test_what_is_no_table_is_left_out(run: Path, broken: Any) -> None:
    evaluated(run, confusions=broken, calibration=broken)
    assert confusions(read_record(run)) == []
    assert calibrations(read_record(run)) == []
    assert render(read_record(run))


def test_how_sure_beside_how_right(run: Path) -> None:
    rows = [{"said": 0.2, "right": 0.1, "answers": 5}, {"said": 0.9, "right": 0.95, "answers": 9}]
    evaluated(run, calibration=[{"stage": "train", "rows": rows}])
    (figure,) = calibrations(read_record(run))
    assert "this model from 10 to 95" in figure.svg
    assert figure.svg in render(read_record(run))
