"""Rows that the fitted codec cannot learn from leave with a reason, and are counted (law 10)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import modelwright as mw
from modelwright.data.sounds import encode_wav

RATE = 8000


def test_unknown_characters_and_long_recordings_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "sounds"
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = []
    for number in range(24):
        text = "ab ba" if number % 2 else "ba ab a"
        seconds = 2.0 if number == 3 else 0.4
        (folder / f"r{number}.wav").write_bytes(
            encode_wav(rng.normal(0, 0.1, round(RATE * seconds)), RATE)
        )
        lines.append(f"r{number}|{text if number != 5 else ''}")
    (folder / "metadata.csv").write_text("\n".join(lines))
    values = {
        "name": "refused",
        "data": {"source": str(folder), "split": {"by": "row", "validation": 0.2, "test": 0.2}},
        "codec": {"rate": RATE, "bands": 10, "longest": 1.0},
        "model": {"family": "conformer", "width": 8, "heads": 2, "depth": 1},
        "train": {
            "task": "speech_recognition", "steps": 1, "batch": 2, "threads": 1,
            "precision": "float32",
        },
    }  # fmt: skip
    run = mw.train(values, out=tmp_path / "run")
    steps = json.loads((run.path / "data" / "waterfall.json").read_text())
    reasons: dict[str, int] = {}
    for step in steps:
        assert step["rows_in"] == step["rows_out"] + sum(step["dropped"].values())
        reasons |= step["dropped"]
    assert reasons.get("no transcript") == 1
    assert reasons.get("longer than codec.longest, 1 s") == 1
