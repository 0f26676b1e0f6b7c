"""One budget against a grid of hand-chosen sizes and rates."""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.run import Row
from modelwright import api

SIZES = ("1M", "3M", "8M")  # parameters in the matrices of the blocks
RATES = (0.01, 0.03)  # of the matrices
NEAR, WORSE = 0.05, 1.03


def rows(minutes: float) -> list[Row]:
    """Two rows: the time that was taken, and the loss beside the best of the grid."""
    seconds = 60 * minutes
    with tempfile.TemporaryDirectory() as folder:
        taken, loss, shape = trained(Path(folder, "derived"), seconds, {}, {})
        found = {}
        for size, rate in itertools.product(SIZES, RATES):
            pair = f"{size} at {rate:g}"
            given = ({"parameters": size}, {"matrix_learning_rate": rate})
            found[pair] = trained(Path(folder, pair.replace(" ", "-")), seconds, *given)[1]
            print(
                f"  {pair}: {found[pair]:.4f} bits per byte (derived: {loss:.4f})", file=sys.stderr
            )
    best = min(found, key=lambda pair: found[pair])
    named = f"budget {minutes:g}m"
    return [
        Row(
            question=f"{named}: seconds of training ({shape})",
            ours=round(taken, 2),
            peer=seconds,
            ratio=taken / seconds,
            bar=f"within {NEAR:.0%}",
            holds=abs(taken / seconds - 1) <= NEAR,
        ),
        Row(
            question=f"{named}: bits per byte, held out, against the best of {len(found)}: {best}",
            ours=round(loss, 4),
            peer=round(found[best], 4),
            ratio=loss / found[best],
            bar=f"<= {WORSE}",
            holds=loss <= WORSE * found[best],
        ),
    ]


def trained(
    out: Path, seconds: float, model: dict[str, Any], stage: dict[str, Any]
) -> tuple[float, float, str]:
    """Seconds of the stage, its last held-out bits per byte, and the shape of the model."""
    run = api.train(
        {
            "name": "budget",
            "budget": f"{seconds:g}s",
            "data": {
                "source": "python-stdlib",
                "split": {"by": "group", "validation": 0.02, "test": 0.02},
            },
            "codec": {"vocabulary": 4096},
            "model": {"family": "decoder", "context": 256, **model},
            "train": {"task": "documents", "options": {"kinds": ["source", "topic"]}, **stage},
        },
        out=out,
    )
    done = run.manifest["stages"]["train"]
    lines = (run.path / "metrics" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    last = next(r for r in map(json.loads, reversed(lines)) if "validation" in r)
    shape = done["resolved"]["model"]
    width = f"{shape['depth']} x {shape['width']}"
    return float(done["seconds"]), float(last["validation"]["bits_per_byte"]), width
