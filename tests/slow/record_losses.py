"""Write the losses of finished runs of the shipped recipes to tests/faults/losses.json.

    python tests/slow/record_losses.py runs/mlp-digits runs/mlp-mnist ...

Runs of more than 4,000 steps are kept as their first and last 2,000.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

STRETCH = 2000


def losses(path: Path) -> list[list[float]]:
    """The losses of a metrics file, in stretches."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    all_ = [float(f"{line['loss']:.6g}") for line in lines if "loss" in line]
    return [all_] if len(all_) <= 2 * STRETCH else [all_[:STRETCH], all_[-STRETCH:]]


recorded = {
    f"{run.name} {file.stem}": losses(file)
    for run in map(Path, sys.argv[1:])
    for file in sorted((run / "metrics").glob("*.jsonl"))
}
target = Path(__file__).parents[1] / "faults" / "losses.json"
target.write_text(json.dumps(recorded, indent=None, separators=(",", ":")) + "\n")
print(target, {name: [len(s) for s in stretches] for name, stretches in recorded.items()})
