"""What `modelwright runs` prints: a list of runs, or some side by side. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelwright.errors import ModelwrightError
from modelwright.reporting.compare import compare as compare_runs
from modelwright.reporting.compare import summaries


def list_runs(root: Path) -> None:
    """A line for every run under ``root``, newest first."""
    found = summaries(root) if root.is_dir() else []
    if not found:
        raise ModelwrightError(f"{root}: no runs here; make one with `modelwright run quickstart`")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("run", "stages", "best validation"):
        table.add_column(column, overflow="fold")
    for column in ("parameters", "time", "created"):
        table.add_column(column, no_wrap=True)
    for run in found:
        stages = " ".join(f"{n}:{s}" for n, s in run.stages.items() if s != "done")
        best = f"{run.best.value:.4f} {run.best.name}" if run.best else ""
        size = f"{run.parameters / 1e6:.2f}M" if run.parameters else ""
        table.add_row(
            Text(str(run.path)),
            Text(stages or "done"),
            Text(best),
            size,
            f"{run.seconds:.0f} s",
            Text(str(run.created)[:16].replace("T", " ")),
        )
    Console().print(table)


def compare(paths: Sequence[Path]) -> None:
    """Differences of recipes and measures of some runs, side by side."""
    found = compare_runs(paths)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for run in found.runs:
        table.add_column(run.name, overflow="fold")
    for difference in found.differences:
        table.add_row(Text(difference.field), *[Text(str(v)) for v in difference.values])
    for measure in found.measures:
        cells = ["" if v is None else f"{v:.4f}" for v in measure.values]
        direction = "lower" if measure.lower else "higher"
        table.add_row(Text(f"{measure.name} ({direction} is better)"), *cells)
    Console().print(table)
