"""A run whose texts are cut over two processes: gone on with from one, saved, gone on from by one.

Kills of its processes are in tests/slow/test_lost_ranks.py.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np

from tests.parallel.jobs import job, recipe, step_losses, steps_done
from tests.programs import serving

AGREE = 1e-5
STEPS = 24


def test_one_two_and_one_again(tmp_path: Path) -> None:
    """Also with a validation that two of them make together."""
    alone = serving(tmp_path)
    folder = alone.cwd
    alone.run("train", str(recipe(folder, "alone", steps=STEPS)), "--out", "alone")
    name, out = str(recipe(folder, "cut", steps=STEPS, context=2)), folder / "cut"
    begun = alone.start("train", name, "--out", out.name)
    begun.until(lambda: steps_done(out) >= 4)
    begun.signal(signal.SIGTERM)
    begun.wait()
    assert validations(out) == []
    with job(folder, 2, name, "--out", out.name) as two:
        two.until_step(out, 14)
        two.process.send_signal(signal.SIGTERM)
        two.process.wait(timeout=120)
        assert "stopped after step" in two.said, two.said
    assert len(validations(out)) == 1
    said = alone.run("train", name, "--out", out.name)
    assert "continuing after step" in said
    assert len(step_losses(out)) == STEPS
    np.testing.assert_allclose(step_losses(out), step_losses(folder / "alone"), rtol=AGREE)
    np.testing.assert_allclose(validations(out), validations(folder / "alone"), rtol=AGREE)


def validations(run: Path) -> list[list[float]]:
    """Loss and bits per byte of every validation, from the file of metrics."""
    lines = map(json.loads, (run / "metrics" / "train.jsonl").read_text().splitlines())
    return [list(line["validation"].values()) for line in lines if "validation" in line]
