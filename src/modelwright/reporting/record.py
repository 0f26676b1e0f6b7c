"""Read a run directory the way a reader must: whatever is there, damaged or unfinished.

A report is wanted most when something went wrong, so nothing here fails on a missing or damaged
file: it is left out, and ``Record.problems`` says which file and why.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelwright.errors import ModelwrightError

STAGES = ("prepare", "train", "tune", "evaluate")  # the order in which they run
DRAWABLE = 1e100  # beyond it a number is a symptom, not a measurement
REWARDED = ("reward", "kl", "tokens")  # means of a generation of drawn answers
DRAWN = "answers drawn to learn from, and their rewards"
Points = list[tuple[float, float]]  # (step, value), by step


def number(value: Any) -> float | None:
    """``value`` as a finite float, or None where it is not one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if math.isfinite(result) and abs(result) < DRAWABLE else None


def mapping(value: Any) -> dict[str, Any]:
    """``value`` where it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def entries(value: Any) -> list[dict[str, Any]]:
    """The objects of a JSON array, in order; anything else in it is left out."""
    return [e for e in value if isinstance(e, dict)] if isinstance(value, list) else []


def dump(value: Any, *, ascii_only: bool = False) -> str:
    """``value`` as JSON on one line."""
    try:
        return json.dumps(value, ensure_ascii=ascii_only)
    except RecursionError:
        return "(nested too deeply to show)"


def text(value: Any) -> str:
    """``value`` as text: strings as they are, None as nothing, the rest as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else dump(value)


@dataclass
class Curves:
    """The metrics of one stage: name -> points; ``steps`` is the last step seen."""

    training: dict[str, Points] = field(default_factory=dict)
    validation: dict[str, Points] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)  # name -> values that are not finite
    steps: int = 0


@dataclass(frozen=True)
class Measure:
    """One evaluation measure: ours beside the baselines; a value of None was not finite."""

    name: str
    unit: str
    lower: bool  # is lower better
    rows: tuple[tuple[str, float | None], ...]
    note: str = ""

    @property
    def ours(self) -> tuple[str, float | None] | None:
        """The row of the model of this run: called "ours...", else the first one."""
        named = [row for row in self.rows if row[0].lower().startswith("ours")]
        return next(iter(named or self.rows), None)

    @property
    def rival(self) -> tuple[str, float] | None:
        """The best row that is not ours, if any has a value."""
        others = [(w, v) for w, v in self.rows if v is not None and (w, v) != self.ours]
        if not others:
            return None
        return (min if self.lower else max)(others, key=lambda row: row[1])

    @property
    def ranked(self) -> list[tuple[str, float | None]]:
        """All rows, the best first, those without a value last."""
        sign = 1 if self.lower else -1
        return sorted(self.rows, key=lambda r: math.inf if r[1] is None else sign * r[1])


@dataclass
class Record:
    """Everything a run directory says about itself; empty where it says nothing yet."""

    path: Path
    recipe: str = ""
    resolved: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    waterfall: list[dict[str, Any]] = field(default_factory=list)
    split: dict[str, Any] = field(default_factory=dict)
    prepared: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Curves] = field(default_factory=dict)
    samples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name the run gave itself, else that of its directory."""
        return text(self.manifest.get("run")) or self.path.resolve().name

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        """Stage -> what the manifest says of it, in the order in which stages run."""
        found = {k: mapping(v) for k, v in mapping(self.manifest.get("stages")).items()}
        rank = {stage: i for i, stage in enumerate(STAGES)}
        return dict(sorted(found.items(), key=lambda kv: rank.get(kv[0], len(rank))))

    @property
    def seconds(self) -> float:
        """Time spent in all stages so far."""
        return sum(number(s.get("seconds")) or 0.0 for s in self.stages.values())

    @property
    def measures(self) -> list[Measure]:
        """The measures of the evaluation, in the order given."""
        return [
            Measure(
                name=text(m.get("name")) or "unnamed measure",
                unit=text(m.get("unit")),
                lower=m.get("better") != "higher",
                rows=tuple((text(r.get("who")), number(r.get("value"))) for r in rows),
                note=text(m.get("note")),
            )
            for m in entries(self.evaluation.get("measures"))
            if (rows := entries(m.get("rows")))
        ]


def _whole(record: Record, name: str) -> Any:
    """The JSON file ``name`` of the run, or None with the reason noted."""
    try:
        return json.loads((record.path / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        record.problems.append(f"{name} cannot be read: {error.strerror or error}")
    except (ValueError, RecursionError):
        record.problems.append(f"{name} is damaged (not JSON) and is left out")
    return None


def _lines(record: Record, file: Path, only: str = "") -> Iterator[dict[str, Any]]:
    """The JSON objects of ``file`` that hold ``only``; a damaged line is counted, not fatal."""
    name = file.relative_to(record.path).as_posix()
    damaged: list[int] = []
    try:
        with file.open("rb") as stream:
            for at, line in enumerate(stream, 1):
                if not line.strip() or only.encode() not in line:
                    continue
                try:
                    entry = json.loads(line)
                except (ValueError, RecursionError):
                    entry = None
                if isinstance(entry, dict):
                    yield entry
                else:
                    damaged.append(at)
    except OSError as error:
        record.problems.append(f"{name} cannot be read: {error.strerror or error}")
    if damaged:
        lines = "1 damaged line" if len(damaged) == 1 else f"{len(damaged)} damaged lines"
        record.problems.append(f"{name}: {lines} skipped (the first is line {damaged[0]})")


def _curves(record: Record, file: Path, only: str = "") -> Curves:
    """The curves of one metrics file; where a step was written twice, the later line counts."""
    curves = Curves()
    training: dict[str, dict[float, float]] = {}
    validation: dict[str, dict[float, float]] = {}
    stepless = 0
    for entry in _lines(record, file, only):
        step = number(entry.pop("step", None))
        if step is None:
            stepless += 1
            continue
        step = float(int(step))
        curves.steps = max(curves.steps, int(step))
        held_out = "validation" in entry
        for key, raw in (mapping(entry["validation"]) if held_out else entry).items():
            value = number(raw)
            if raw is None:
                continue  # a quantity this objective does not have
            if value is None:
                curves.skipped[key] = curves.skipped.get(key, 0) + 1
            else:
                (validation if held_out else training).setdefault(key, {})[step] = value
    if stepless:
        record.problems.append(f"metrics/{file.name}: {stepless} lines without a step skipped")
    curves.training = {k: sorted(v.items()) for k, v in training.items()}
    curves.validation = {k: sorted(v.items()) for k, v in validation.items()}
    return curves


def _by_stage(folder: Path) -> list[Path]:
    """The ``<stage>.jsonl`` files of a folder, in the order in which stages run."""
    rank = {stage: i for i, stage in enumerate(STAGES)}
    files = folder.glob("*.jsonl")
    return sorted(files, key=lambda f: (rank.get(f.stem, len(rank)), f.stem))


def _rewards(record: Record) -> None:
    """Add to curves and samples what a stage was rewarded for, of answers that it drew itself.

    ``played/STAGE/MARK/generation-*.json``, of the training that the manifest tells of.
    """
    for stage, said in record.stages.items():
        mark = text(said.get("fingerprint"))[:16]
        if stage not in STAGES or not mark.isalnum():  # names of folders, of a run from anywhere
            continue
        files = sorted((record.path / "played" / stage / mark).glob("generation-*.json"))
        curves: dict[str, Points] = {}
        shown = []
        for file in files:
            found = mapping(_whole(record, file.relative_to(record.path).as_posix()))
            if (step := number(found.get("step"))) is None:
                continue
            for name in REWARDED:
                if (value := number(found.get(name))) is not None:
                    curves.setdefault(name, []).append((step, value))
            told = [
                f"{text(s.get('question'))}\n{text(s.get('answer'))}\n{number(s.get('reward'))}"
                for s in entries(found.get("samples"))
            ]
            shown.append({"step": step, "prompt": DRAWN, "text": "\n\n".join(told)})
        if curves:
            record.metrics.setdefault(stage, Curves()).training.update(curves)
            record.samples[stage] = [*shown, *record.samples.get(stage, [])]


def read_record(path: Path, *, brief: bool = False) -> Record:
    """Read the run directory ``path``.

    Args:
        path: The run directory; any of its files may be missing.
        brief: Read only what a list of runs needs: manifest, recipe, evaluation and the
            validation lines of the metrics.

    Raises:
        ModelwrightError: ``path`` is not a directory.
    """
    if not path.is_dir():
        raise ModelwrightError(f"{path}: no such run directory; `modelwright runs` lists them")
    record = Record(path)
    record.resolved = mapping(_whole(record, "resolved.json"))
    record.manifest = mapping(_whole(record, "manifest.json"))
    record.evaluation = mapping(_whole(record, "evaluation.json"))
    only = '"validation"' if brief else ""
    record.metrics = {f.stem: _curves(record, f, only) for f in _by_stage(path / "metrics")}
    if brief:
        return record
    try:
        record.recipe = (path / "recipe.yaml").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        pass
    except OSError as error:
        record.problems.append(f"recipe.yaml cannot be read: {error.strerror or error}")
    record.waterfall = entries(_whole(record, "data/waterfall.json"))
    record.split = mapping(_whole(record, "data/split.json"))
    record.prepared = mapping(_whole(record, "data/prepared.json"))
    record.samples = {f.stem: list(_lines(record, f)) for f in _by_stage(path / "samples")}
    _rewards(record)
    return record
