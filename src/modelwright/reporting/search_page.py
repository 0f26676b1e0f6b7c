"""The page of a search: how it went, which keys mattered, and the recipe that came out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modelwright.reporting.blocks import Figure, Table, duration, figures, flatten
from modelwright.reporting.charts import Bar, bar_chart
from modelwright.reporting.record import dump, entries, mapping, number, text
from modelwright.reporting.results import Card
from modelwright.reporting.studies import Section, read_study, write_page
from modelwright.reporting.study_charts import Dot, scatter

SLICES, ROWS = 9, 100
STATES = {"complete": "to its end", "pruned": "ended early", "fail": "failed"}


def write_search(folder: Path) -> Path:
    """Write the page of a search, from its search.json and best.yaml.

    Raises:
        CorruptError: search.json cannot be read.
        MachineError: The page cannot be written.
    """
    study = read_study(folder / "search.json")
    runs = entries(study.get("runs"))
    done = [r for r in runs if number(r.get("value")) is not None]
    keys = list(dict.fromkeys(k for r in runs for k in mapping(r.get("params"))))
    best = folder / "best.yaml"
    source = best.read_text(encoding="utf-8", errors="replace") if best.is_file() else ""
    metric = text(study.get("metric"))
    sections = [
        Section(
            "history",
            "How the search went",
            f"A dot is a trial trained to its end, with its {metric} on the validation part; the "
            "line is the best so far. The test part had no say.",
            [*_history(study, done), *_importance(study)],
        ),
        Section(
            "slices",
            "Values and results",
            "Each key against the result; the best tenth of the trials is in colour.",
            _slices(study, done, keys),
        ),
        Section("trials", "The trials", "The best first.", (), [_table(study, runs, keys)]),
        Section(
            "best",
            "The best recipe",
            f"In best.yaml; `modelwright run {folder.name}/best.yaml` trains and tests it.",
            source=source or "None: no trial was trained to its end.",
        ),
    ]
    name = text(mapping(study.get("recipe")).get("name"))
    return write_page(folder, "Search", name, _cards(study, runs), sections)


def _cards(study: dict[str, Any], runs: Sequence[dict[str, Any]]) -> list[Card]:
    best = mapping(study.get("best"))
    value = number(best.get("value"))
    chosen = [f"{k} = {_shown(v)}" for k, v in mapping(best.get("params")).items()]
    counts = {s: sum(r.get("state") == s for r in runs) for s in STATES}
    spent = sum(number(r.get("seconds")) or 0.0 for r in runs)
    lines = tuple(f"{n} {STATES[s]}" for s, n in counts.items() if n)
    hosts = {text(r.get("host")) for r in runs if r.get("host")}
    where = "on one machine" if len(hosts) < 2 else f"on {len(hosts)} machines"
    return [
        Card(
            f"Best validation {text(study.get('metric'))}",
            "-" if value is None else figures(value, 4),
            (f"trial {text(best.get('number'))}" if best else "", *chosen),
        ),
        Card("How many trials", str(len(runs)), lines),
        Card(
            "How it searched",
            f"{text(study.get('sampler'))}, {text(study.get('pruner'))}",
            ("sampler and pruner of Optuna",),
        ),
        Card("What it took", duration(spent), (f"the sum over trials, {where}",)),
    ]


def _history(study: dict[str, Any], done: Sequence[dict[str, Any]]) -> list[Figure]:
    least = study.get("direction") != "maximize"
    so_far: list[tuple[float, float]] = []
    dots = []
    for run in sorted(done, key=lambda r: number(r.get("number")) or 0.0):
        at, value = number(run.get("number")) or 0.0, number(run.get("value")) or 0.0
        kept = so_far[-1][1] if so_far else value
        so_far.append((at, min(kept, value) if least else max(kept, value)))
        dots.append(Dot(at, value, _title(run)))
    chart = scatter("Results of the trials", dots, x_label="trial", line=so_far)
    said = f"Validation {text(study.get('metric'))}, {'lower' if least else 'higher'} is better"
    return [Figure(said, chart)] if chart else []


def _importance(study: dict[str, Any]) -> list[Figure]:
    found = {
        k: v
        for k, raw in mapping(study.get("importance")).items()
        if (v := number(raw)) is not None
    }
    bars = [Bar(key, value, f"{value:.0%}") for key, value in found.items()]
    chart = bar_chart("Importance of the keys", bars)
    few = ", a rough guess from few trials" if len(entries(study.get("runs"))) < 30 else ""
    said = f"What mattered for being among the best quarter (PED-ANOVA){few}"
    return [Figure(said, chart)] if chart else []


def _slices(
    study: dict[str, Any], done: Sequence[dict[str, Any]], keys: Sequence[str]
) -> list[Figure]:
    ranked = _ranked(study, done)
    top = {id(r) for r in ranked[: max(1, len(ranked) // 10)]}
    weight, space = mapping(study.get("importance")), flatten(mapping(study.get("space")))
    made = []
    for key in sorted(keys, key=lambda k: -(number(weight.get(k)) or 0.0))[:SLICES]:
        pairs = [(r, mapping(r.get("params")).get(key)) for r in done]
        numeric = all(number(v) is not None for _, v in pairs)
        dots = [
            Dot(
                float(v) if numeric and v is not None else _shown(v),
                number(r.get("value")) or 0.0,
                _title(r),
                strong=id(r) in top,
            )
            for r, v in pairs
        ]
        log = numeric and space.get(f"{key}.log") is True
        if chart := scatter(f"Result by {key}", dots, x_label=key, log=log):
            made.append(Figure(key, chart))
    return made


def _ranked(study: dict[str, Any], runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    sign = -1 if study.get("direction") == "maximize" else 1

    def key(run: dict[str, Any]) -> tuple[bool, float]:
        value = number(run.get("value"))
        return value is None, sign * (value or 0.0)

    return sorted(runs, key=key)


def _table(study: dict[str, Any], runs: Sequence[dict[str, Any]], keys: Sequence[str]) -> Table:
    rows = []
    for run in _ranked(study, runs)[:ROWS]:
        value, params = number(run.get("value")), mapping(run.get("params"))
        reached = max((int(k) for k in mapping(run.get("intermediate"))), default=0)
        state = text(run.get("state"))
        how = STATES.get(state, state) + (f" at {reached} %" if state == "pruned" else "")
        rows.append(
            (
                text(run.get("number")),
                "-" if value is None else figures(value, 5),
                *(_shown(params.get(k)) for k in keys),
                how,
                duration(run.get("seconds")),
                text(run.get("run")),
                text(run.get("problem")),
            )
        )
    head = ("trial", text(study.get("metric")), *keys, "how it ended", "time", "run", "problem")
    left = len(runs) - len(rows)
    caption = "Every trial" + (f"; {left} more are in search.json" if left > 0 else "")
    return Table(caption, head, "rr" + "r" * len(keys) + "lrrl", rows)


def _title(run: dict[str, Any]) -> str:
    chosen = ", ".join(f"{k} {_shown(v)}" for k, v in mapping(run.get("params")).items())
    return f"trial {text(run.get('number'))}: {_shown(run.get('value'))}; {chosen}"


def _shown(value: Any) -> str:
    found = number(value)
    if found is None:
        return value if isinstance(value, str) else dump(value)
    return str(value) if isinstance(value, int) else figures(found, 4)
