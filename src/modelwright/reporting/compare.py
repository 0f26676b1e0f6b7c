"""Runs beside each other: a list of all, and where some of them differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelwright.errors import ModelwrightError
from modelwright.reporting.blocks import flatten
from modelwright.reporting.record import Measure, Record, dump, mapping, number, read_record, text
from modelwright.reporting.results import best_validation

MARKS = ("manifest.json", "resolved.json", "recipe.yaml")  # a directory with one of them is a run


@dataclass(frozen=True)
class Best:
    """The lowest validation value of a run: of which stage, of what, when."""

    stage: str
    name: str
    step: int
    value: float


@dataclass(frozen=True)
class RunSummary:
    """One line of ``modelwright runs``.

    ``name`` is that of the directory, which tells runs of the same recipe apart; ``seconds`` is
    the time of all stages so far.
    """

    path: Path
    name: str
    created: str
    stages: dict[str, str]
    best: Best | None
    parameters: int | None
    seconds: float
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """A recipe field that is not the same in all runs; None where a run has no such field."""

    field: str
    values: tuple[str | None, ...]


@dataclass(frozen=True)
class MeasureRow:
    """One evaluation measure over the runs. ``best`` is the index of the winner, if any."""

    name: str
    unit: str
    lower: bool
    values: tuple[float | None, ...]
    best: int | None


@dataclass(frozen=True)
class Comparison:
    """Runs side by side; every ``values`` has an entry for each of ``runs``, in that order."""

    runs: tuple[RunSummary, ...]
    differences: tuple[Difference, ...]
    measures: tuple[MeasureRow, ...]


def _summary(record: Record) -> RunSummary:
    best = None
    for stage, curves in record.metrics.items():
        if found := best_validation(curves):
            name, step, value = found
            best = Best(stage, name, int(step), value)
            break
    sizes = [number(said.get("parameters")) for said in record.stages.values()]
    known = [int(size) for size in sizes if size]
    return RunSummary(
        path=record.path,
        name=record.path.resolve().name,
        created=text(record.manifest.get("created")),
        stages={stage: text(said.get("status")) for stage, said in record.stages.items()},
        best=best,
        parameters=known[0] if known else None,
        seconds=record.seconds,
        problems=tuple(record.problems),
    )


def summaries(root: Path) -> list[RunSummary]:
    """Every run directly below ``root``, the newest first; none where ``root`` is missing."""
    if not root.is_dir():
        return []
    found = [d for d in sorted(root.iterdir()) if any((d / mark).is_file() for mark in MARKS)]
    runs = [_summary(read_record(d, brief=True)) for d in found]
    return sorted(runs, key=lambda run: run.created, reverse=True)


def _differences(records: Sequence[Record]) -> tuple[Difference, ...]:
    recipes = [flatten(mapping(r.resolved.get("recipe"))) for r in records]
    rows = []
    for key in dict.fromkeys(key for recipe in recipes for key in recipe):
        values = tuple(dump(r[key]) if key in r else None for r in recipes)
        if len(set(values)) > 1:
            rows.append(Difference(key, values))
    return tuple(rows)


def _measures(records: Sequence[Record]) -> tuple[MeasureRow, ...]:
    """Measures with the same name, unit and direction share a row."""
    columns: list[dict[tuple[str, str, bool], Measure]] = [
        {(m.name, m.unit, m.lower): m for m in r.measures} for r in records
    ]
    rows = []
    for key in dict.fromkeys(key for column in columns for key in column):
        name, unit, lower = key
        ours = [c[key].ours if key in c else None for c in columns]
        values = tuple(row[1] if row else None for row in ours)
        finite = [
            (value if lower else -value, i) for i, value in enumerate(values) if value is not None
        ]
        tied = len({value for value, _ in finite}) < 2
        rows.append(MeasureRow(name, unit, lower, values, None if tied else min(finite)[1]))
    return tuple(rows)


def compare(paths: Sequence[Path]) -> Comparison:
    """Put runs side by side.

    Args:
        paths: Two run directories or more.

    Returns:
        Their summaries, the recipe fields in which they differ, and their measures.

    Raises:
        ModelwrightError: Fewer than two paths, or one that is not a directory.
    """
    if len(paths) < 2:
        raise ModelwrightError("comparing needs two runs or more; `modelwright runs` lists them")
    records = [read_record(path, brief=True) for path in paths]
    return Comparison(
        tuple(_summary(r) for r in records), _differences(records), _measures(records)
    )
