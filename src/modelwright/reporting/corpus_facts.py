"""What a corpus says about itself, added up over its units: the content of ``report.json``.

Only commit records, timings and a few small files are read, so a report of a corpus of any size
takes seconds. A stage that has not run is absent. All text that comes from rows is masked again
here: whoever did not ask for masking still finds no e-mail address in a report.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelwright.data.corpus import records
from modelwright.data.corpus.marks import blake, canonical
from modelwright.data.corpus.sketch import SPLITS
from modelwright.errors import CorruptError
from modelwright.reporting.corpus_audit import audit
from modelwright.reporting.corpus_contents import contents
from modelwright.reporting.corpus_samples import borderline, limits, masked, nearest, samples
from modelwright.reporting.corpus_sheet import texts
from modelwright.reporting.record import entries, mapping, number, text

FORM = 1
DESCRIPTION, FINISHED = "spec.json", "corpus.json"  # what was asked for; what is there
GATE = "gate.json"  # what ``data/corpus/gate.py`` found, where it was asked
STAGES = (
    "lines",
    "repeated",
    "read",
    "pairs",
    "gather",
    "verify",
    "resolve",
    "write",
    "augment",
    "tokenizer",
    "tokens",
)
FIRST = 20  # bad records that are named
CLUSTERS, MEMBERS = 20, 3  # the largest, and how many rows of each are shown
LIBRARIES = ("modelwright", "pyarrow", "numpy", "tokenizers", "xxhash", "resiliparse", "ray")
SHOWN = 600  # characters of a sample

Commits = Mapping[str, Sequence[Mapping[str, Any]]]  # stage -> commits, each as its JSON


def collect(folder: Path) -> dict[str, Any]:
    """The report of a corpus as JSON values.

    Args:
        folder: the corpus, finished or not.

    Raises:
        CorruptError: a commit record cannot be read.
    """
    commits = {stage: _commits(folder, stage) for stage in _stages(folder)}
    read, final = commits.get("read", ()), commits.get("write", ())
    spec = mapping(_json(folder / DESCRIPTION))
    report: dict[str, Any] = {"form": FORM, "name": text(spec.get("name")) or folder.name}
    report["spec"] = spec
    report["rows"], report["bytes"] = totals(read, final)
    report["waterfall"] = waterfall(read, final)
    report["sources"] = sources(folder, read, final, spec)
    report["histograms"] = histograms(read)
    report["limits"] = limits(spec)
    report["samples"] = samples(folder, read)
    nearest(report["samples"], report["limits"])
    if not any(s.get("kind") == "borderline" for s in report["samples"]):
        report["samples"] += borderline(report["samples"], report["limits"])
    report |= contents(folder, read, final, bool(commits.get("tokens")))
    report["languages"] = languages(report["histograms"])
    report["pii"] = {
        name.removeprefix("pii."): int(number(said.get("sum")) or 0)
        for name, said in report["histograms"].items()
        if name.startswith("pii.") and name != "pii.total"
    }
    report["splits"] = splits(commits)
    finished = mapping(_json(folder / FINISHED))
    report["gate"] = masked(mapping(finished.get("gate")) or mapping(_json(folder / GATE)))
    report["audit"] = audit(folder, mapping(finished.get("stages")))
    resolved = [unit["facts"] for unit in commits.get("resolve", ())]
    report["alarms"] = [masked(a) for f in resolved for a in f.get("alarms") or ()]
    report["components"] = sum(int(number(f.get("components")) or 0) for f in resolved)
    report["clusters"], report["cluster_sizes"] = clusters(folder, commits)
    report["similarity"] = similarity(commits.get("verify", ()))
    alike = (mapping(unit["facts"].get("images")) for unit in commits.get("verify", ()))
    report["alike"] = _summed(alike)
    report["quarantine"] = _summed(mapping(u["facts"].get("quarantine")) for u in read)
    first = [mapping(u["facts"].get("first_bad")) for u in read]
    report["first_bad"] = [masked(f) for f in first if f][:FIRST]
    report["tokens"] = tokens(commits)
    made = commits.get("augment", ())
    report["augment"] = {
        "train rows": _rows(made, "in"),
        "views made": _rows(made, "made"),
        "unchanged": sum(int(number(u["facts"].get("unchanged")) or 0) for u in made),
    }
    report["views"] = texts(folder) if made else []
    report["stages"] = stages(folder, commits)
    report["steps"] = step_times(folder, read)
    report["fingerprints"] = {
        stage: blake(canonical([[u["unit"], u["mark"], u["files"]] for u in of]))
        for stage, of in commits.items()
    }
    report["versions"] = _versions()
    return report


def _stages(folder: Path) -> list[str]:
    place = folder / "stages"
    found = [p.name for p in place.iterdir() if p.is_dir()] if place.is_dir() else []
    return [s for s in STAGES if s in found] + sorted(set(found) - set(STAGES))


def _commits(folder: Path, stage: str) -> list[dict[str, Any]]:
    found = []
    for path in sorted((folder / "stages" / stage).glob("*.json")):
        try:
            said = json.loads(path.read_bytes())
            said["facts"] = mapping(said.get("facts"))
            said["files"] = mapping(said.get("files"))
            found.append({"unit": text(said["unit"]), "mark": text(said["mark"])} | said)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CorruptError(f"{path}: damaged commit record; delete it and run again") from error
    return found


def source_of(unit: str) -> str:
    """The source of a read unit, whose name is SOURCE-HASH."""
    return unit.rpartition("-")[0] or unit


def _summed(parts: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in parts:
        for name, count in part.items():
            total[name] += int(number(count) or 0)
    return dict(sorted(total.items(), key=lambda pair: (-pair[1], pair[0])))


def _rows(units: Iterable[Mapping[str, Any]], kind: str) -> int:
    return sum(int(number(mapping(u["facts"].get(kind)).get("rows")) or 0) for u in units)


def totals(
    read: Sequence[Mapping[str, Any]], final: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, int], dict[str, int]]:
    """Rows and bytes that came in and stayed."""
    rows = {"in": _rows(read, "in"), "after the steps": _rows(read, "kept")}
    rows |= {"quarantined": _rows(read, "quarantined"), "unreadable": 0}
    rows["unreadable"] = sum(int(number(u["facts"].get("bad")) or 0) for u in read)
    rows["passed over"] = sum(passed_over(read).values())
    bytes_ = _summed(mapping(u["facts"].get("bytes")) for u in read)
    if final:
        rows["in the corpus"] = _rows(final, "kept")
        parts = [p for u in final for p in mapping(u["facts"].get("parts")).values()]
        bytes_["in the corpus"] = sum(int(number(mapping(p).get("bytes")) or 0) for p in parts)
    return rows, bytes_


def waterfall(
    read: Sequence[Mapping[str, Any]], final: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Every step with rows and bytes in and out and what was dropped why; deduplication last."""
    steps: list[dict[str, Any]] = []
    over = passed_over(read)
    for unit in read:
        for at, said in enumerate(entries(unit["facts"].get("steps"))):
            if at == len(steps):
                steps.append({"step": text(said.get("step")), "dropped": {}})
            _add(steps[at], said)
    if over:
        rows = _rows(read, "in")
        size = sum(int(number(mapping(u["facts"].get("bytes")).get("in")) or 0) for u in read)
        dropped = {reason: {"rows": count, "bytes": 0} for reason, count in over.items()}
        counted = {"rows_in": rows + sum(over.values()), "rows_out": rows}
        first = {"step": "records that are no rows", "bytes_in": size, "bytes_out": size}
        steps.insert(0, first | counted | {"dropped": dropped})
    if final:
        last: dict[str, Any] = {"step": "deduplicate and split", "dropped": {}}
        for unit in final:
            facts = unit["facts"]
            kept = sum(
                number(mapping(p).get("bytes")) or 0 for p in mapping(facts.get("parts")).values()
            )
            lost = mapping(facts.get("reasons"))
            gone = sum(number(mapping(r).get("bytes")) or 0 for r in lost.values())
            counted = {"rows_in": _rows([unit], "in"), "rows_out": _rows([unit], "kept")}
            _add(last, counted | {"bytes_in": kept + gone, "bytes_out": kept, "dropped": lost})
        steps.append(last)
    return steps


def passed_over(read: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Records that a reader passed over, such as redirects: reason -> count."""
    return _summed(mapping(unit["facts"].get("passed")) for unit in read)


def _add(line: dict[str, Any], said: Mapping[str, Any]) -> None:
    for key in ("rows_in", "rows_out", "bytes_in", "bytes_out"):
        line[key] = line.get(key, 0) + int(number(said.get(key)) or 0)
    for reason, counts in mapping(said.get("dropped")).items():
        into = line["dropped"].setdefault(reason, {"rows": 0, "bytes": 0})
        for key in into:
            into[key] += int(number(mapping(counts).get(key)) or 0)


def sources(
    folder: Path,
    read: Sequence[Mapping[str, Any]],
    final: Sequence[Mapping[str, Any]],
    spec: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """For every source: reader, licence, rows and bytes in and kept, rows dropped by step."""
    inputs = _json(folder / "inputs.json")
    readers: dict[str, Counter[str]] = {}
    for one in entries(inputs):
        counted = readers.setdefault(text(one.get("source")), Counter())
        counted[text(mapping(one.get("reader")).get("name"))] += 1
    found: dict[str, dict[str, Any]] = {}
    for unit in read:
        facts, name = unit["facts"], source_of(unit["unit"])
        line = found.setdefault(name, {"name": name, "in": 0, "after": 0, "kept": 0, "bad": 0})
        line["in"] += _rows([unit], "in")
        line["after"] += _rows([unit], "kept")
        line["bad"] += sum(_summed([mapping(facts.get("quarantine"))]).values())
        for way in ("in", "kept"):
            size = int(number(mapping(facts.get("bytes")).get(way)) or 0)
            line[f"bytes_{way}"] = line.get(f"bytes_{way}", 0) + size
        for step in entries(facts.get("steps")):
            _lose(line, text(step.get("step")), mapping(step.get("dropped")))
    for unit in final:
        line = found.setdefault(source_of(unit["unit"]), {"name": source_of(unit["unit"])})
        line["kept"] = line.get("kept", 0) + _rows([unit], "kept")
        _lose(line, "deduplicate", mapping(unit["facts"].get("reasons")))
    licences = _licences(folder, final)
    declared = {text(s.get("name")): s.get("license") for s in entries(spec.get("sources"))}
    for name, line in found.items():
        line["reader"] = ", ".join(sorted(readers.get(name, ())))
        line["inputs"] = sum(readers.get(name, Counter()).values())
        line["licences"] = licences.get(name) or {text(declared.get(name)): line.get("kept", 0)}
        if not final:
            line["kept"] = line.get("after", 0)
    return list(found.values())


def _lose(line: dict[str, Any], step: str, dropped: Mapping[str, Any]) -> None:
    lost = sum(int(number(mapping(r).get("rows")) or 0) for r in dropped.values())
    if lost:
        by_step = line.setdefault("dropped", {})
        by_step[step] = by_step.get(step, 0) + lost


def _licences(folder: Path, final: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Source -> licence -> rows that stayed: one column of every table, of few different values."""
    found: dict[str, Counter[str]] = {}
    for unit in final:
        counted = found.setdefault(source_of(unit["unit"]), Counter())
        for name in unit["files"]:
            if not name.endswith(".parquet"):
                continue
            path = folder / "stages" / "write" / unit["unit"] / name
            for table in records.groups(path, ("license",)):
                for pair in table.column(0).value_counts().to_pylist():
                    counted[pair["values"] or ""] += pair["counts"]
    return {name: dict(counts.most_common()) for name, counts in found.items()}


def histograms(read: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Every measure over all units: bins or values added, ends taken together."""
    found: dict[str, dict[str, Any]] = {}
    for unit in read:
        for name, said in mapping(unit["facts"].get("histograms")).items():
            into = found.setdefault(name, {})
            part = mapping(said)
            for key in ("bins", "values"):
                if part.get(key):
                    into[key] = _summed([into.get(key, {}), mapping(part[key])])
            if number(part.get("min")) is not None:
                into["min"] = min(into.get("min", part["min"]), part["min"])
                into["max"] = max(into.get("max", part["max"]), part["max"])
                into["sum"] = into.get("sum", 0.0) + part["sum"]
    return dict(sorted(found.items()))


def languages(measures: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Language -> rows, as the step ``language`` named it."""
    for name, said in measures.items():
        if name.startswith("language.") and said.get("values"):
            return {masked(k): v for k, v in mapping(said["values"]).items()}
    return {}


def splits(commits: Commits) -> dict[str, Any]:
    """Rows, bytes and tokens of every part of the split."""
    parts: dict[str, dict[str, int]] = {}
    if commits.get("write"):
        parts = {part: {"rows": 0, "bytes": 0} for part in SPLITS}
    for unit in commits.get("write", ()):
        for part, said in mapping(unit["facts"].get("parts")).items():
            into = parts.setdefault(part, {"rows": 0, "bytes": 0})
            for key in ("rows", "bytes"):
                into[key] += int(number(mapping(said).get(key)) or 0)
    for unit in commits.get("tokens", ()):
        for part, said in mapping(unit["facts"].get("parts")).items():
            into = parts.setdefault(part, {"rows": 0, "bytes": 0})
            into["tokens"] = into.get("tokens", 0) + int(number(mapping(said).get("tokens")) or 0)
    return parts


def clusters(folder: Path, commits: Commits) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The largest clusters of duplicates with some of their rows, and counts by size."""
    found: list[dict[str, Any]] = []
    sizes: Counter[str] = Counter()
    for unit in commits.get("resolve", ()):
        found += entries(unit["facts"].get("clusters"))
        for size, count in mapping(unit["facts"].get("cluster_sizes")).items():
            sizes[size] += int(number(count) or 0)
    found.sort(key=lambda c: -(number(c.get("rows")) or 0))
    chosen = [dict(c) for c in found[:CLUSTERS]]
    wanted = {i for c in chosen for i in _ids(c)}
    texts = _texts(folder, commits.get("read", ()), wanted) if wanted else {}
    for cluster in chosen:
        ids = _ids(cluster)
        cluster["samples"] = [
            {"id": i, "text": masked(texts[i][:SHOWN]), "chars": len(texts[i])}
            for i in ids
            if i in texts
        ]
        cluster["ids"] = ids
    return chosen, dict(sizes)


def similarity(verified: Sequence[Mapping[str, Any]]) -> list[int]:
    """Candidate pairs by their true Jaccard similarity, in 20 equal bins from 0 to 1."""
    counts = [0] * 20
    for unit in verified:
        for at, count in enumerate(unit["facts"].get("similarity") or ()):
            counts[at] += int(number(count) or 0) if at < len(counts) else 0
    return counts


def _ids(cluster: Mapping[str, Any]) -> list[str]:
    listed = cluster.get("samples")
    most = min(MEMBERS, int(number(cluster.get("rows")) or 0))
    return [i for i in listed if isinstance(i, str)][:most] if isinstance(listed, list) else []


def _texts(folder: Path, read: Sequence[Mapping[str, Any]], wanted: set[str]) -> dict[str, str]:
    """The texts of a few rows; the texts of a unit are read only where one of them is in it."""
    found: dict[str, str] = {}
    for unit in read:
        path = folder / "stages" / "read" / unit["unit"] / records.RECORDS
        prefix = source_of(unit["unit"]) + "/"
        mine = {i for i in wanted - set(found) if i.startswith(prefix)}
        if not mine or not path.is_file():
            continue
        names = {i for t in records.groups(path, ("id",)) for i in t.column(0).to_pylist()}
        if mine & names:
            found |= {i: t for i, t in records.texts(path) if i in mine}
    return found


def tokens(commits: Commits) -> dict[str, Any]:
    """The tokenizer, and bytes and tokens by language and by source."""
    made: dict[str, Any] = {}
    for unit in commits.get("tokenizer", ()):
        made |= {k: unit["facts"].get(k) for k in ("file", "vocabulary", "fingerprint")}
    for key in ("languages", "sources"):
        by: dict[str, dict[str, int]] = {}
        for unit in commits.get("tokens", ()):
            said = mapping(unit["facts"].get(key))
            for name, counts in said.items():
                into = by.setdefault(name, {"bytes": 0, "tokens": 0})
                for what in into:
                    into[what] += int(number(mapping(counts).get(what)) or 0)
            if key == "sources" and not said:
                into = by.setdefault(source_of(unit["unit"]), {"bytes": 0, "tokens": 0})
                for counts in mapping(unit["facts"].get("languages")).values():
                    for what in into:
                        into[what] += int(number(mapping(counts).get(what)) or 0)
        if by:
            made[key] = dict(sorted(by.items()))
    return made


def stages(folder: Path, commits: Commits) -> list[dict[str, Any]]:
    """Units, seconds, processor seconds, bytes worked on and written, and peak memory."""
    worked_on = {"read": "in", "write": "kept"}
    sizes = {
        (stage, unit["unit"]): int(number(mapping(unit["facts"].get("bytes")).get(way)) or 0)
        for stage, way in worked_on.items()
        for unit in commits.get("read", ())
    }
    found = []
    for stage, of in commits.items():
        line: dict[str, Any] = {"stage": stage, "units": len(of), "seconds": 0.0}
        line |= {"cpu_seconds": 0.0, "bytes": 0, "written_bytes": 0, "peak_bytes": 0}
        for unit in of:
            timing = mapping(_json(folder / "timing" / stage / f"{unit['unit']}.json"))
            for key in ("seconds", "cpu_seconds", "written_bytes"):
                line[key] += number(timing.get(key)) or 0
            line["peak_bytes"] = max(line["peak_bytes"], number(timing.get("peak_bytes")) or 0)
            worked = timing.get("text_bytes", sizes.get((stage, unit["unit"]), 0))
            line["bytes"] += int(number(worked) or 0)
        found.append(line)
    return found


def step_times(folder: Path, read: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Seconds and bytes of reading, of every step, and of writing."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for unit in read:
        timing = mapping(_json(folder / "timing" / "read" / f"{unit['unit']}.json"))
        for name, taken in mapping(timing.get("steps")).items():
            seconds[f"step {name}"] += number(taken) or 0
        for name in ("reading", "writing", "sketching"):
            if number(timing.get(name)) is not None:
                seconds[name] += number(timing.get(name)) or 0
    sizes = {"reading": totals(read, ())[1].get("in", 0)}
    order = ["reading"]
    for line in waterfall(read, ()):
        name = f"step {line['step']}"
        order += [] if name in order else [name]
        sizes[name] = sizes.get(name, 0) + line["bytes_in"]
    kept = _summed(mapping(u["facts"].get("bytes")) for u in read).get("kept", 0)
    return [
        {"what": name, "seconds": seconds[name], "bytes": sizes.get(name, kept)}
        for name in dict.fromkeys((*order, "sketching", "writing"))
        if name in seconds
    ]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
