"""Scores of the shipped recipes on test splits, from random weights, beside baselines and bars.

``make bench NAME=scoreboard`` runs every entry of ``entries.py``, with QUICK=1 only the small ones.
MODELWRIGHT_BENCH_PARTS=NAME,NAME runs these alone and leaves the rows of the others as they are;
MODELWRIGHT_BENCH_SEEDS=3 runs seeds 1, 2 and 3 of each; runs are kept, and gone on with, where
MODELWRIGHT_BENCH_FOLDER names a folder. Data sets that are absent are left out and named.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.run import ONLY, Row, left_out
from benchmarks.scoreboard.entries import ENTRIES, Entry, Goal
from modelwright.data.sources import data_root
from modelwright.errors import MachineError, ModelwrightError, did_you_mean

SEEDS = "MODELWRIGHT_BENCH_SEEDS"  # how many seeds of each; unset: one
KEPT = "MODELWRIGHT_BENCH_FOLDER"
CLASSICAL = ("linear", "TF-IDF", "sliding window", "Griffin-Lim", "BM25", "5-gram", "greedy")
INTERVAL = re.compile(r"95 %[^\d]*(-?[\d.]+) to (-?[\d.]+)")
Measure = dict[str, Any]


def questions(quick: bool) -> list[Row]:
    """The rows of the chosen entries."""
    usual = [name for name, entry in ENTRIES.items() if entry.small or not quick]
    chosen = os.environ.get(ONLY, ",".join(usual)).split(",")
    if unknown := next((name for name in chosen if name not in ENTRIES), None):
        hint = did_you_mean(unknown, list(ENTRIES))
        raise ModelwrightError(f"{ONLY}: no entry {unknown!r}{hint}")
    seeds = 1 if quick else int(os.environ.get(SEEDS, "1"))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(os.environ.get(KEPT, folder)) / "scoreboard"
        for name in chosen:
            try:
                runs = [_run(name, seed, place) for seed in range(1, seeds + 1)]
            except MachineError as error:
                rows.append(left_out(name, str(error)))
                continue
            rows += rows_of(name, ENTRIES[name], runs)
    return rows


def command(entry: Entry, seed: int) -> list[str]:
    """What runs one seed of an entry, after the program's name."""
    return ["run", entry.recipe, *entry.changed, f"seed={seed}"]


def _run(name: str, seed: int, place: Path) -> Path:
    """The folder of a finished run; what is there already is gone on with."""
    folder, root = place / f"{name}-seed-{seed}", data_root()
    folder.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **({"MODELWRIGHT_DATA": str(root.resolve())} if root else {})}
    words = command(ENTRIES[name], seed)
    print(f"{name}: modelwright {' '.join(words)}", file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "modelwright", *words, "--out", str(folder)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip() or "nothing").splitlines()[-1]
        raise MachineError(f"{name}: exit {done.returncode}, its last line: {last}")
    return folder


def rows_of(name: str, entry: Entry, runs: Sequence[Path]) -> Iterator[Row]:
    """A row for every goal, and one for the time, of finished runs of several seeds."""
    manifests = [_json(run / "manifest.json")["stages"] for run in runs]
    minutes = [
        sum(_seconds(stages[part]) for part in ("train", "tune") if part in stages) / 60
        for stages in manifests
    ]
    threads = max(_threads(stages) for stages in manifests)
    results = [_json(run / "evaluation.json")["measures"] for run in runs]
    details = {
        "data": entry.data,
        "minutes": round(statistics.median(minutes), 1),
        "threads": threads,
        "seeds": len(runs),
        "published": entry.published,
        "command": "modelwright " + " ".join(command(entry, 1)),
        "row": f"make bench NAME=scoreboard {ONLY}={name}",
    }
    for goal in entry.goals:
        yield _row(name, goal, [_measure(name, goal, found) for found in results], details)
    if entry.minutes is not None:
        slowest = max(minutes)
        yield Row(
            f"{name}: minutes of training; {threads} threads, the bar is of four cores",
            round(slowest, 1),
            entry.minutes,
            slowest / entry.minutes,
            f"<= {entry.minutes:g}",
            slowest <= entry.minutes,
            details,
        )


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _seconds(stage: Mapping[str, Any]) -> float:
    """Of a training, those before it was interrupted too; what begins and ends it, of the last."""
    return max(float(stage["seconds"]), float(stage.get("busy_seconds") or 0))


def _threads(stages: dict[str, Any]) -> int:
    found = [s["resolved"].get("threads") or 0 for s in stages.values() if s.get("resolved")]
    return max(found, default=0)


def _measure(name: str, goal: Goal, found: Sequence[Measure]) -> Measure:
    """The goal's measure; where a run trains and tunes, what the tuned model reached."""
    for measure in found:
        if measure["name"].removeprefix("test ").startswith(goal.measure.removeprefix("test ")):
            return [other for other in found if other["name"] == measure["name"]][-1]
    known = ", ".join(m["name"] for m in found)
    raise ModelwrightError(f"scoreboard: {name} has no measure {goal.measure!r}; it has {known}")


def _row(name: str, goal: Goal, seeds: Sequence[Measure], details: dict[str, Any]) -> Row:
    """One measure of all seeds: the mean of ours beside each baseline's mean."""
    lower = seeds[0]["better"] == "lower"
    every: dict[str, list[float]] = {}
    for measure in seeds:
        for row in measure["rows"]:
            every.setdefault(row["who"], []).append(row["value"])
    who, ours = next((w, v) for w, v in every.items() if w.startswith(goal.who))
    mean = statistics.fmean(ours)
    others = {w: statistics.fmean(v) for w, v in every.items() if not w.startswith("ours")}
    sign = -1 if lower else 1
    best = max(others, key=lambda who: sign * others[who], default="")
    if goal.beside:
        best = next((who for who in others if who.startswith(goal.beside)), "")
    promised, kept = _judged(goal, seeds, mean, others.get(best), sign)
    peer = goal.bar if goal.bar is not None else others.get(best, float("nan"))
    said = " ".join(f"{value:.4g}" for value in ours)
    beside = f" beside {goal.beside}" if goal.beside else ""
    how = who.removeprefix("ours")  # such as ", mean of 8 views"
    return Row(
        f"{name}: {seeds[0]['name']}{beside}{how}; seeds: {said}; "
        + ", ".join(f"{who} {value:.4g}" for who, value in others.items()),
        round(mean, 4),
        round(peer, 4),
        mean / peer if peer else float("inf"),
        promised,
        kept,
        {
            **details,
            "measure": seeds[0]["name"],
            "better": seeds[0]["better"],
            "ours": ours,
            "trivial": {w: v for w, v in others.items() if not _classical(w)},
            "classical": {w: v for w, v in others.items() if _classical(w)},
        },
    )


def _classical(who: str) -> bool:
    return who.startswith(CLASSICAL)


def _judged(
    goal: Goal, seeds: Sequence[Measure], mean: float, other: float | None, sign: int
) -> tuple[str, bool]:
    """What was promised, in words, and whether the mean of all seeds keeps it."""
    promised, kept = [], True
    if goal.bar is not None:
        promised.append(f"{'>=' if sign > 0 else '<='} {goal.bar:g}")
        kept = sign * mean >= sign * goal.bar
    if other is None:
        return " and ".join(promised) or "shown", kept
    if goal.bar is None or goal.beside:
        promised.append(f"better by {goal.margin:g}" if goal.margin else "better")
        kept = kept and sign * (mean - other) > goal.margin
    if goal.outside:
        promised.append("outside of the 95 % interval")
        bounds = [INTERVAL.search(measure.get("note", "")) for measure in seeds]
        lows = [sign * float(found[1 if sign > 0 else 2]) for found in bounds if found]
        kept = kept and len(lows) == len(seeds) and min(lows) > sign * other
    return " and ".join(promised), kept


def page(result: dict[str, Any]) -> str:
    """All rows that were ever kept as a table for people, in Markdown."""
    head = ("recipe", "data", "minutes (threads)", "measure", "ours, every seed", "trivial")
    head += ("classical", "published, from random weights", "bar", "holds", "command")
    lines = [
        "# Scoreboard: minutes on a few cores, from random weights\n",
        "Made by `make bench NAME=scoreboard`; test parts chose nothing. One row alone: "
        f"`{ONLY}=NAME` before the command; three seeds: `{SEEDS}=3`.\n",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
    ]
    for row in result["rows"]:
        of = row.get("details") or {}
        if "measure" not in of:
            continue
        cells = [
            row["question"].partition(":")[0],
            of["data"],
            f"{of['minutes']} ({of['threads']})",
            of["measure"].removeprefix("test "),
            " ".join(f"{value:.4g}" for value in of["ours"]),
            _said(of["trivial"]),
            _said(of["classical"]),
            of["published"] or "none found",
            row["bar"],
            "yes" if row["holds"] else "no",
            f"`{of['command']}`",
        ]
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _said(values: dict[str, float]) -> str:
    return ", ".join(f"{who} {value:.4g}" for who, value in values.items()) or "-"
