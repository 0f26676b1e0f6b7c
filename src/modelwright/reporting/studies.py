"""Pages over many runs, in the dress of the run's own report: what is read, drawn and written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from modelwright.errors import CorruptError
from modelwright.reporting.blocks import Figure, Table, duration, figures, scaled, shorten, whole
from modelwright.reporting.record import entries, mapping, number, text
from modelwright.reporting.report import dressed, put
from modelwright.reporting.results import Card
from modelwright.reporting.study_charts import Strip, strip_chart

PAGE = "report.html"


@dataclass(frozen=True)
class Section:
    """A part of the page, any of whose contents may be empty."""

    id: str
    title: str
    lead: str = ""
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    source: str = ""


def write_page(
    folder: Path, kind: str, name: str, cards: Sequence[Card], sections: Sequence[Section]
) -> Path:
    """Write ``report.html`` into a folder of runs; a reader sees the old page or the new one.

    The style sheet and the macros for tables and figures are those of the run's report.

    Raises:
        MachineError: The page cannot be written.
    """
    page = dressed(
        "study.html",
        kind=kind,
        name=shorten(name, 200),
        folder=folder.resolve().name,
        cards=cards,
        sections=sections,
    )
    target = folder / PAGE
    put(target, page)
    return target


def read_study(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``.

    Raises:
        CorruptError: It is missing or no JSON object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptError(f"{path}: cannot be read ({error}); give the command again") from error
    return mapping(found)


# Cross-validation ---------------------------------------------------------------------------


def write_crossval(folder: Path) -> Path:
    """Write the page of a finished cross-validation, from its crossval.json.

    Raises:
        CorruptError: crossval.json cannot be read.
        MachineError: The page cannot be written.
    """
    study = read_study(folder / "crossval.json")
    recipe = mapping(study.get("recipe"))
    measures = entries(study.get("measures"))
    folds = entries(study.get("fold_runs"))
    sections = [
        Section(
            "results",
            "Results",
            "A dot is a fold, the upright line the mean over folds, the strong bar the plain 95 % "
            "interval and the faint one the corrected interval; whoever is far off is in the table "
            "only. " + text(study.get("caveat")),
            [Figure(text(m.get("name")), _strips(m)) for m in measures],
            [_spreads(m) for m in measures],
        ),
        Section("folds", "The folds", "Each is a run with a report of its own.", (), [
            _folds(folds, measures)
        ]),
        Section(
            "reproduce",
            "How to reproduce it",
            "Folds, shuffles and starts follow from the seed in the recipe.",
            source="\n".join(
                [
                    f"modelwright crossval recipe.yaml --folds {text(study.get('folds'))} "
                    f"--by {text(study.get('by'))}",
                    "",
                    "# recipe.yaml",
                    yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True).rstrip(),
                ]
            ),
        ),
    ]  # fmt: skip
    name = text(recipe.get("name"))
    return write_page(folder, "Cross-validation", name, _crossval_cards(study), sections)


def _crossval_cards(study: dict[str, Any]) -> list[Card]:
    cards = []
    for m in entries(study.get("measures")):
        ours = next(iter(entries(m.get("rows"))), {})
        mean, error = number(ours.get("mean")), number(ours.get("error"))
        if mean is not None:
            shown = figures(mean, 4) + (f" ± {figures(error, 2)}" if error is not None else "")
            lines = (
                f"{text(m.get('unit'))}, {text(m.get('better'))} is better; mean ± standard error",
                f"corrected 95 %: {_interval(ours.get('corrected'))}",
            )
            cards.append(Card(text(m.get("name")), shown, lines))
    folds = entries(study.get("fold_runs"))
    seconds = sum(number(f.get("seconds")) or 0.0 for f in folds)
    said = f"held out by {text(study.get('by'))}"
    cards.append(Card("How many folds", str(len(folds)), (said, f"{duration(seconds)} in all")))
    return cards


def _strips(measure: dict[str, Any]) -> Markup:
    strips = []
    for i, row in enumerate(entries(measure.get("rows"))):
        values = [v for raw in row.get("values") or [] if (v := number(raw)) is not None]
        mean = number(row.get("mean"))
        if mean is not None:
            inner, outer = _pair(row.get("interval")), _pair(row.get("corrected"))
            strips.append(Strip(text(row.get("who")), values, mean, inner, outer, strong=i == 0))
    if strips and (wide := strips[0].outer):  # ours: else a poor baseline flattens all of it
        reach = 4 * (wide[1] - wide[0])
        strips = [s for s in strips if abs(s.mean - strips[0].mean) <= reach]
    return strip_chart(text(measure.get("name")), strips)


def _pair(value: Any) -> tuple[float, float] | None:
    found = [number(v) for v in value] if isinstance(value, list) else []
    low, high = found if len(found) == 2 else (None, None)
    return None if low is None or high is None else (low, high)


def _interval(value: Any) -> str:
    pair = _pair(value)
    return "-" if pair is None else f"{figures(pair[0], 4)} to {figures(pair[1], 4)}"


def _spreads(measure: dict[str, Any]) -> Table:
    head = ("who", "mean", "deviation", "standard error", "95 % interval", "corrected")
    rows = [
        (
            text(row.get("who")),
            *(_value(row.get(key)) for key in ("mean", "deviation", "error")),
            _interval(row.get("interval")),
            _interval(row.get("corrected")),
        )
        for row in entries(measure.get("rows"))
    ]
    caption = f"{text(measure.get('name'))} ({text(measure.get('better'))} is better)"
    return Table(caption, head, "lrrrrr", rows)


def _value(raw: Any) -> str:
    value = number(raw)
    return "-" if value is None else figures(value, 4)


def _folds(folds: Sequence[dict[str, Any]], measures: Sequence[dict[str, Any]]) -> Table:
    ours = [(next(iter(entries(m.get("rows"))), {})).get("values") or [] for m in measures]
    rows = [
        (
            text(fold.get("run")),
            text(fold.get("held_out")) or "rows",
            whole(fold.get("train_rows")),
            whole(fold.get("held_out_rows")),
            *(_value(values[i] if i < len(values) else None) for values in ours),
            duration(fold.get("seconds")),
            scaled(fold.get("peak_memory_bytes"), "B"),
        )
        for i, fold in enumerate(folds)
    ]
    names = tuple(text(m.get("name")) for m in measures)
    head = ("fold", "held out", "train rows", "held-out rows", *names, "time", "peak memory")
    return Table("Every fold, ours", head, "ll" + "r" * (len(head) - 2), rows)
