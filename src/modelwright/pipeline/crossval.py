"""Cross-validation: the same recipe trained once a fold, and how far its results spread.

Every fold is an ordinary run in a folder of its own, so it is resumed, skipped when nothing
changed, and fitted on its own training rows only (law 11). The recipe's test part is in no fold.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modelwright import recipe as recipes
from modelwright.data.folds import WAYS
from modelwright.errors import CorruptError, Interrupted, ModelwrightError, did_you_mean
from modelwright.files import replace_file
from modelwright.pipeline import run_stages, stages_of
from modelwright.pipeline.held_out import held_out
from modelwright.pipeline.prepare import Say
from modelwright.pipeline.processes import (
    Command,
    children_peak_bytes,
    fitting,
    free_memory_bytes,
    run_all,
    share_of_cores,
)
from modelwright.pipeline.settings import choose_folder, read_settings, told, written
from modelwright.pipeline.spread import spread
from modelwright.recipe import Fold, Recipe
from modelwright.reporting.studies import write_crossval
from modelwright.runs import Run, fingerprint, now

FILE = "crossval.json"
CAVEAT = (
    "The folds share most of their training rows, so their results are not independent and the "
    "plain interval is too narrow. The corrected one adds the share of held-out to training rows "
    "to the variance (Nadeau and Bengio 2003)."
)
IN_TIME = " In time, early folds train on fewer rows than late ones: their spread shows that too."


def crossval(folder: Path, jobs: int, say: Say) -> dict[str, Any]:
    """Train and measure every fold of the cross-validation in ``folder``; what is done is kept.

    Args:
        folder: Made by `begin`.
        jobs: Folds at work at once, where memory allows; 1 works in this process.
        say: Told of the progress.

    Returns:
        The content of crossval.json: the settings, ``measures`` with the values of every fold
        and their spread, ``folds`` and the ``caveat``.

    Raises:
        Interrupted: On Ctrl-C; what was finished is kept.
        ModelwrightError: A fold failed; the others' results are kept.
    """
    settings = read_settings(folder, FILE)
    recipe = recipes.parse(settings["recipe"], str(folder / FILE))
    count = int(settings["folds"])
    runs = [
        Run.create(_fold_recipe(recipe, n, settings), folder, folder / f"fold-{n}")
        for n in range(1, count + 1)
    ]
    try:
        if jobs > 1:
            _in_processes(runs, jobs, say)
        else:
            for number, run in enumerate(runs, 1):
                say(f"fold {number} of {count}: {run.path}")
                _wait(run, say)
                run_stages(run, stages_of(run.recipe), say)
        return _result(folder, settings, [Run.open(run.path) for run in runs], say)
    except (Interrupted, KeyboardInterrupt) as stop:
        raise told(stop, "cross-validation", f"modelwright crossval {folder}") from stop


def _result(
    folder: Path, settings: dict[str, Any], runs: Sequence[Run], say: Say
) -> dict[str, Any]:
    """Put the folds together, and write crossval.json and the page."""
    facts = [_facts(run) for run in runs]
    result = {
        **settings,
        "finished": now(),
        "caveat": CAVEAT + (IN_TIME if settings["by"] == "time" else ""),
        "fold_runs": facts,
        "measures": summarised([_measures(run, say) for run in runs], _ratio(facts)),
    }
    replace_file(folder / FILE, written(result))
    say(f"report: {write_crossval(folder)}")
    return result


def begin(recipe: Recipe, root: Path, out: Path | None, folds: int, by: str | None) -> Path:
    """The folder of this cross-validation: continued when it is there, else made.

    Args:
        recipe: What is trained; its own ``data.fold`` must be free.
        root: Where NAME-cv, NAME-cv-2, ... lie.
        out: The folder, when it is chosen; one of other settings is refused.
        folds: How many, at least 2.
        by: "row", "group" or "time"; None: "group" where the recipe's split keeps groups
            together, else "row".
    """
    if recipe.data.fold is not None:
        raise ModelwrightError("data.fold: cross-validation sets it; take it out of the recipe")
    if by is not None and by not in WAYS:
        raise ModelwrightError(f"--by {by}: no such way{did_you_mean(by, WAYS)}; {', '.join(WAYS)}")
    if folds < 2:
        raise ModelwrightError(f"--folds {folds}: cross-validation needs at least 2")
    settings = {
        "recipe": recipe.model_dump(exclude_unset=True),
        "folds": folds,
        "by": by or ("group" if recipe.data.split.by == "group" else "row"),
    }
    return choose_folder(root, f"{recipe.name}-cv", FILE, settings, out)


def _fold_recipe(recipe: Recipe, number: int, settings: dict[str, Any]) -> Recipe:
    values = recipe.model_dump(exclude_unset=True)
    fold = Fold(number=number, of=settings["folds"], by=settings["by"])
    return recipes.parse({**values, "data": {**values["data"], "fold": fold.model_dump()}})


def _in_processes(runs: Sequence[Run], jobs: int, say: Say) -> None:
    """The first fold alone, to see what memory it needs; then as many at once as fit."""
    threads = share_of_cores(jobs)
    for run in runs:
        _wait(run, say)
    commands = [
        Command(run.path.name, ("run", str(run.path)), run.path / "process.log") for run in runs
    ]
    run_all(commands[:1], 1, threads, say)
    stages = Run.open(runs[0].path).manifest["stages"].values()
    peak = max([children_peak_bytes(), *(s.get("peak_memory_bytes", 0) for s in stages)])
    most = fitting(min(jobs, len(runs) - 1), peak)
    say(
        f"{runs[0].path.name}: held {peak / 2**30:.2f} GiB at most, "
        f"{free_memory_bytes() / 2**30:.1f} GiB are free: {most} at once, {threads} threads each"
    )
    run_all(commands[1:], most, threads, say)


def _wait(run: Run, say: Say) -> None:
    """A fold that an orphan of a killed command still works on is waited for, not lost."""
    if run.busy:
        say(f"{run.path}: another process works in it, waiting for its end")
        while run.busy:
            time.sleep(0.5)


# What the folds say -------------------------------------------------------------------------


def _measures(run: Run, say: Say) -> list[dict[str, Any]]:
    """The measures of a fold's evaluation and the loss of each stage, on its held-out rows."""
    evaluation = run.read_json("evaluation.json")
    if evaluation is None:
        raise CorruptError(f"{run.path}: has no evaluation.json; give the same command again")
    mark = fingerprint([run.stage(s) for s in ("train", "tune", "evaluate")])
    kept = run.read_json("held_out.json")
    if not kept or kept["of"] != mark:
        say(f"{run.path.name}: loss of the held-out rows")
        losses = {stage: held_out(run, stage, "test") for stage in run.recipe.stages}
        kept = {"of": mark, "stages": losses}
        run.write_json("held_out.json", kept)
    measures = [
        {**m, "name": f"held-out {m['name'].removeprefix('test ')}"}
        for m in evaluation["measures"]
        if not m["name"].startswith("validation ")
    ]
    for stage, values in kept["stages"].items():
        name = "held-out loss" if len(kept["stages"]) == 1 else f"held-out loss of {stage}"
        rows = [{"who": "ours", "value": values["loss"]}]
        measures.append({"name": name, "unit": "nats", "better": "lower", "rows": rows})
    return measures


def summarised(folds: Sequence[Sequence[dict[str, Any]]], ratio: float) -> list[dict[str, Any]]:
    """Measures of every fold, joined by name and by who answers.

    Args:
        folds: Of each fold its measures: ``name``, ``unit``, ``better`` and ``rows`` of ``who``
            and ``value``.
        ratio: Held-out rows over training rows.

    Returns:
        The measures in their order; each row has ``values`` (None where a fold has none) and the
        fields of `Spread`.
    """
    found: dict[str, dict[str, Any]] = {}
    for number, measures in enumerate(folds):
        for m in measures:
            entry = {k: m[k] for k in ("name", "unit", "better")}
            rows = found.setdefault(m["name"], {**entry, "rows": {}})["rows"]
            for row in m["rows"]:
                rows.setdefault(row["who"], [None] * len(folds))[number] = row["value"]
    return [
        {
            **m,
            "rows": [
                {
                    "who": who,
                    "values": values,
                    **spread([v for v in values if v is not None], ratio).to_dict(),
                }
                for who, values in m["rows"].items()
            ],
        }
        for m in found.values()
    ]


def _facts(run: Run) -> dict[str, Any]:
    split = run.read_json("data/split.json")
    sizes, groups = split["splits"], split.get("held_out", ())
    if sizes["test"]["groups"] == sizes["test"]["rows"]:  # rows that are each their own group
        groups = ()
    more = sizes["test"]["groups"] - len(groups)
    named = ", ".join(groups) + f", and {more} more" * bool(groups and more)
    return {
        "run": run.path.name,
        "held_out": named,
        "train_rows": sizes["train"]["rows"],
        "held_out_rows": sizes["test"]["rows"],
        "seconds": sum(s.get("seconds", 0.0) for s in run.manifest["stages"].values()),
        "peak_memory_bytes": max(
            s.get("peak_memory_bytes", 0) for s in run.manifest["stages"].values()
        ),
    }


def _ratio(facts: Sequence[dict[str, Any]]) -> float:
    return math.fsum(f["held_out_rows"] / f["train_rows"] for f in facts) / len(facts)


def table_lines(result: dict[str, Any]) -> list[str]:
    """What the terminal shows: a block a measure, a line a who; and the caveat."""
    lines = [f"{result['folds']} folds by {result['by']}"]
    for m in result["measures"]:
        lines += ["", f"{m['name']} ({m['unit']}, {m['better']} is better)"]
        width = max(len(row["who"]) for row in m["rows"])
        head = ("mean", "deviation", "error", "95 % interval", "corrected")
        lines.append(
            f"  {'':{width}}  {head[0]:>9} {head[1]:>9} {head[2]:>9}  {head[3]:>21}  {head[4]:>21}"
        )
        lines += [f"  {row['who']:{width}}  {_row(row)}" for row in m["rows"]]
    return [*lines, "", *_fold_lines(result), "", result["caveat"]]


def _fold_lines(result: dict[str, Any]) -> list[str]:
    """Ours in every fold, by the groups that it held out where folds are by group."""
    facts = result["fold_runs"]
    named = [f.get("held_out") or f["run"] for f in facts]
    width = max(map(len, named))
    names = [m["name"].removeprefix("held-out ") for m in result["measures"]]
    lines = [f"  {'held out':{width}}  {'rows':>6}  " + "  ".join(names)]
    for i, (name, fact) in enumerate(zip(named, facts, strict=True)):
        values = (m["rows"][0]["values"][i] for m in result["measures"])
        shown = ("-" if v is None else f"{v:.4f}" for v in values)
        cells = (f"{v:>{len(n)}}" for v, n in zip(shown, names, strict=True))
        lines.append(f"  {name:{width}}  {fact['held_out_rows']:>6,}  " + "  ".join(cells))
    return lines


def _row(row: dict[str, Any]) -> str:
    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.4f}"

    def interval(pair: Sequence[float] | None) -> str:
        return "-" if pair is None else f"{pair[0]:.4f} .. {pair[1]:.4f}"

    return (
        f"{shown(row['mean']):>9} {shown(row['deviation']):>9} {shown(row['error']):>9}  "
        f"{interval(row['interval']):>21}  {interval(row['corrected']):>21}"
    )
