"""Scores of the shipped recipes on test splits, beside their trivial baselines and bars.

``make bench NAME=scoreboard`` runs every recipe from nothing in a temporary folder; with QUICK=1
only the small ones. Data sets that are absent are left out and named.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.run import Row
from modelwright import api
from modelwright.errors import ModelwrightError

SMALL = ("mlp-digits", "mlp-mnist", "mlp-mnist-tuned", "rnn-frames")
BARS = {"mlp-mnist": 0.97, "mlp-mnist-tuned": 0.98}  # test accuracy


def questions(quick: bool) -> list[Row]:
    """A row for every measure of every recipe and each of its baselines."""
    data = api_data_root()
    if data is not None:
        os.environ["MODELWRIGHT_DATA"] = str(data)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in SMALL if quick else (*SMALL, "quickstart"):
            try:
                run = api.run(name, out=Path(folder, name))
            except ModelwrightError as error:
                print(f"scoreboard: {name} left out: {error}", file=sys.stderr)
                continue
            result: dict[str, Any] = run.read_json("evaluation.json")
            rows += _rows(name, result)
    return rows


def api_data_root() -> Path | None:
    """The data folder as an absolute path."""
    from modelwright.data.sources import data_root  # noqa: PLC0415

    found = data_root()
    return found.resolve() if found else None


def _rows(name: str, result: dict[str, Any]) -> Iterator[Row]:
    for measure in result["measures"]:
        ours, *others = measure["rows"]
        lower = measure["better"] == "lower"
        if name in BARS:
            bar = BARS[name]
            yield Row(
                question=f"{name}: {measure['name']}, the textbook's bar",
                ours=round(ours["value"], 4),
                peer=bar,
                ratio=ours["value"] / bar,
                bar=f">= {bar}",
                holds=ours["value"] >= bar,
            )
        for other in others:
            better = other["value"] / ours["value"] if lower else ours["value"] / other["value"]
            part = ":" in measure["name"]  # a kind of question: shown, the whole is the bar
            yield Row(
                question=f"{name}: {measure['name']} against {other['who']}",
                ours=round(ours["value"], 4),
                peer=round(other["value"], 4),
                ratio=better,
                bar="shown" if part else "> 1",
                holds=part or better > 1,
            )
