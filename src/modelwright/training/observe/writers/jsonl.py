"""JSON lines in ``metrics/<stage>.jsonl``: the record that counts, whatever else is written.

Opening it for a run that goes on after step ``first`` drops the lines of later steps, which are
about to be written again: the file of an interrupted run equals that of an undisturbed one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelwright.training.observe.writers import Place

library = ""


class Writer:
    """Appends lines; ``offset`` is the number of training seconds in the lines that were kept."""

    def __init__(self, place: Place) -> None:
        self.path = place.run / "metrics" / f"{place.stage}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.offset = _rewind(self.path, place.first)
        self.file = self.path.open("a", encoding="utf-8")

    def write(self, values: Mapping[str, Any]) -> None:
        """Append one record as a line, visible to readers at once."""
        self.file.write(json.dumps(values) + "\n")
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def _rewind(path: Path, first: int) -> float:
    """Keep whole lines of steps up to ``first``; return the training seconds they record."""
    if not path.exists():
        return 0.0
    kept, elapsed = [], 0.0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
            if record["step"] > first:
                continue
        except (ValueError, KeyError, TypeError):
            continue  # the half line of a killed writer
        kept.append(line + "\n")
        elapsed = max(elapsed, record.get("seconds", 0.0))
    path.write_text("".join(kept), encoding="utf-8")
    return elapsed
