"""The records of one stage, to every writer that the recipe names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelwright.training.observe.background import Background
from modelwright.training.observe.writers import Place, Say, Writer, jsonl, open_writer, require


class MetricLog:
    """JSON lines, always, and the further ``writers``; ``offset`` as in ``jsonl.Writer``.

    Raises:
        MachineError: a writer's library is missing.
    """

    def __init__(
        self, run: Path, stage: str, first: int, writers: Sequence[str] = (), say: Say = print
    ) -> None:
        require(writers)
        place = Place(run, stage, first)
        self.say, self.stage = say, stage
        kept = jsonl.Writer(place)
        self.path, self.offset = kept.path, kept.offset
        copies = [open_writer(name, place) for name in writers if name != "jsonl"]
        self.writers: list[Writer] = [kept, *copies]

    def write(self, values: Mapping[str, Any]) -> None:
        """Give one record to all writers."""
        for writer in self.writers:
            writer.write(values)

    def close(self) -> None:
        """Close all writers; say what a tracker did not get."""
        for writer in self.writers:
            writer.close()
            if isinstance(writer, Background) and writer.report:
                self.say(f"{self.stage}: {writer.report}; {self.path} has them all")
