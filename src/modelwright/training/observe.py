"""What a person sees of a training: a line of progress, JSON lines, TensorBoard."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from tensorboardX import SummaryWriter


class MetricLog:
    """JSON lines and TensorBoard events of one stage.

    Opening it for a run that continues at ``first`` drops the lines of later steps, which are
    about to be written again: the file of an interrupted run equals that of an undisturbed one.
    """

    def __init__(self, run: Path, stage: str, first: int) -> None:
        self.path = run / "metrics" / f"{stage}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.offset = _rewind(self.path, first)
        self.file = self.path.open("a", encoding="utf-8")
        self.board = SummaryWriter(str(run / "tensorboard" / stage), purge_step=first + 1)

    def write(self, values: Mapping[str, Any]) -> None:
        """Append one record; its numbers also go to TensorBoard at ``values["step"]``."""
        self.file.write(json.dumps(values) + "\n")
        self.file.flush()
        for name, value in values.items():
            if isinstance(value, Mapping):
                for inner, number in value.items():
                    self.board.add_scalar(f"{name}/{inner}", number, values["step"])
            elif isinstance(value, int | float) and name != "step":
                self.board.add_scalar(name, value, values["step"])

    def close(self) -> None:
        """Flush and close both."""
        self.file.close()
        self.board.close()


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


class ProgressLine:
    """A live bar on a terminal; elsewhere a line every few seconds."""

    def __init__(self, title: str, total: int, done: int, every: float = 10.0) -> None:
        self.title, self.total, self.done, self.every = title, total, done, every
        self.first, self.started, self.last = done, time.perf_counter(), 0.0
        self.bar: Progress | None = None
        if sys.stderr.isatty():
            self.bar = Progress(
                TextColumn("{task.description:<9}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )
            self.task = self.bar.add_task(title, total=total, completed=done, note="")

    def __enter__(self) -> Self:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar:
            self.bar.stop()

    def update(self, done: int, note: str) -> None:
        """Show that ``done`` of ``total`` are done, with a short note of the rates."""
        self.done = done
        if self.bar:
            self.bar.update(self.task, completed=done, total=self.total, note=note)
            return
        now = time.perf_counter()
        if done < self.total and now - self.last < self.every:
            return
        self.last = now
        spent = now - self.started
        left = spent / max(1, done - self.first) * (self.total - done)
        print(
            f"{self.title}: {done}/{self.total}  {spent:.0f} s, {left:.0f} s left  {note}",
            file=sys.stderr,
            flush=True,
        )
