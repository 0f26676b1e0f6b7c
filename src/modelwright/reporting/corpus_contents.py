"""What a corpus is made of beside its texts: labels, pictures, recordings; and how tokens pack."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.data.corpus import records
from modelwright.data.corpus.sketch import SPLITS
from modelwright.data.packing import pack
from modelwright.data.token_shards import TokenShards
from modelwright.errors import ModelwrightError
from modelwright.reporting.blocks import (
    Figure,
    Table,
    duration,
    figures,
    percent,
    scaled,
    shorten,
    whole,
)
from modelwright.reporting.charts import Bar, bar_chart
from modelwright.reporting.corpus_samples import masked
from modelwright.reporting.record import entries, mapping, number
from modelwright.reporting.studies import Section

SUSPECTS = "label_errors.jsonl"  # what `modelwright data errors --out` has written here
LENGTHS = (1024, 2048, 4096)  # of packed rows
DOCUMENTS = 200_000  # that packing is tried with
LABELS = 1000  # different ones that are counted by name
LINES = 40  # of a table
_MEASURES = {
    "images.width": "pixels",
    "images.height": "pixels",
    "images.aspect": "longer by shorter side",
    "images.sharpness": "variance of the Laplacian",
    "audio.seconds": "seconds",
    "audio.silence": "share of the pieces",
    "audio.clipping": "share of the samples",
    "audio.characters_per_second": "characters a second",
}
_NAMED = ("images.format", "images.problem", "audio.problem")


def contents(folder: Path, read: Sequence[Mapping[str, Any]], final: Sequence[Mapping[str, Any]],
             tokens: bool) -> dict[str, Any]:  # fmt: skip
    """The part of ``report.json`` that the sections below show.

    Args:
        folder: the corpus.
        read: commits of the read units.
        final: commits of the written ones.
        tokens: whether it has tokens.
    """
    kinds, labels = _counted(folder, final)
    return {
        "kinds": kinds,
        "labels": labels,
        "suspects": _suspects(folder),
        "rates": _rates(folder, read),
        "packing": packing(folder) if tokens else [],
    }


def _counted(
    folder: Path, final: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """Rows by modality and type, and label -> part -> rows; whole columns at a time."""
    kinds: Counter[str] = Counter()
    labels: dict[str, Counter[str]] = {}
    others: Counter[str] = Counter()
    for unit in final:
        for name in unit["files"]:
            if not name.endswith(".parquet"):
                continue
            path = folder / "stages" / "write" / unit["unit"] / name
            for table in records.groups(path, ("modality", "mime", "label", "split")):
                found = table.group_by(["modality", "mime", "label", "split"])
                for line in found.aggregate([([], "count_all")]).to_pylist():
                    count, label = line["count_all"], line["label"]
                    plain = line["modality"] == "text" and line["mime"] in (None, "text/plain")
                    mime = "" if plain else line["mime"] or ""
                    kinds[f"{line['modality']} {mime}".strip()] += count
                    if label is None:
                        continue
                    if label not in labels and len(labels) >= LABELS:
                        others[line["split"]] += count
                        continue
                    labels.setdefault(label, Counter())[line["split"]] += count
    if others:
        labels["(others)"] = others
    ranked = sorted(labels.items(), key=lambda pair: (-sum(pair[1].values()), pair[0]))
    return dict(kinds.most_common()), {masked(k): dict(v) for k, v in ranked}


def _suspects(folder: Path) -> list[dict[str, Any]]:
    """The list of labels that look wrong, where there is one; the surest first."""
    try:
        lines = (folder / SUSPECTS).read_text(encoding="utf-8", errors="replace").splitlines()
        found = [mapping(json.loads(line)) for line in lines]
    except (OSError, ValueError, RecursionError):
        return []
    return [masked(dict(one)) for one in found]


def _rates(folder: Path, read: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Sample rate -> recordings, of all whose rate was measured."""
    found: Counter[str] = Counter()
    for unit in read:
        if "audio.rate" not in mapping(unit["facts"].get("histograms")):
            continue
        path = folder / "stages" / "read" / unit["unit"] / records.ATTRIBUTES
        for table in records.groups(path, ("name", "number")):
            names = np.array(table.column(0).to_pylist())
            rates = table.column(1).to_pylist()
            found.update(f"{rates[i]:g}" for i in np.flatnonzero(names == "audio.rate").tolist())
    return dict(found.most_common())


def packing(folder: Path) -> list[dict[str, Any]]:
    """What packing the train documents into rows of some lengths would leave empty or cut."""
    try:
        offsets = TokenShards(folder, "train").offsets
    except ModelwrightError:
        return []  # not finished, or no train rows
    lengths = np.diff(offsets)
    every = max(1, -(-len(lengths) // DOCUMENTS))
    tried = [pack(lengths[::every], length).report() for length in LENGTHS]
    return [line | {"documents": len(lengths[::every]), "of": len(lengths)} for line in tried]


def media(report: Mapping[str, Any]) -> Section:
    """Rows by kind; sizes, lengths and rates of pictures and recordings; what has no content."""
    kinds = mapping(report.get("kinds"))
    total = sum(number(v) or 0 for v in kinds.values())
    lines = [(k, whole(v), percent(number(v), total)) for k, v in kinds.items()]
    said = mapping(report.get("histograms"))
    sizes, seconds = [], None
    for name, unit in _MEASURES.items():
        found = mapping(said.get(name))
        counted = sum(number(c) or 0 for c in mapping(found.get("bins")).values())
        if not counted:
            continue
        summed = number(found.get("sum")) or 0.0
        if name == "audio.seconds":
            seconds = summed
        values = (summed / counted, number(found.get("min")) or 0, number(found.get("max")) or 0)
        mean, least, most = (figures(value) for value in values)
        sizes.append((f"{name} ({unit})", whole(counted), least, mean, most))
    named = [
        (name, shorten(value, 120), whole(count))
        for name in _NAMED
        for value, count in mapping(mapping(said.get(name)).get("values")).items()
    ]
    named += [
        ("audio.rate", f"{rate} Hz", whole(count))
        for rate, count in mapping(report.get("rates")).items()
    ]
    lead = "What the rows of the corpus are."
    if seconds is not None:
        lead += f" The recordings that were measured last {duration(seconds)} together."
    if any(not kind.startswith(("text", "table", "game")) for kind in kinds) and not sizes:
        lead += " Nothing was measured: add the step `images` or `audio`, which also decodes all."
    return Section(
        "media",
        "Kinds of rows, pictures and recordings",
        lead,
        (),
        _tables(
            Table("Rows of the corpus by kind", ("Kind", "Rows", "Share"), "lrr", lines),
            Table(
                "Sizes, of all that could be decoded, rows that left included",
                ("Measure", "Rows", "Least", "Mean", "Most"),
                "lrrrr",
                sizes,
            ),
            Table(
                "Formats, rates, and what could not be decoded",
                ("Measure", "Value", "Rows"),
                "llr",
                named[:LINES],
            ),
        ),
    )


def labels(report: Mapping[str, Any]) -> Section:
    """The balance of labels by part, and those that look wrong."""
    found = {label: mapping(of) for label, of in mapping(report.get("labels")).items()}
    sums = {k: sum(number(v) or 0 for v in of.values()) for k, of in found.items()}
    total = sum(sums.values())
    parts = {p: sum(number(of.get(p)) or 0 for of in found.values()) for p in SPLITS}
    lines = [
        (
            shorten(label, 80),
            whole(sums[label]),
            percent(sums[label], total),
            *(percent(number(of.get(p)) or 0, parts[p]) for p in SPLITS),
        )
        for label, of in list(found.items())[:LINES]
    ]
    bars = [Bar(shorten(k, 40), n, whole(n)) for k, n in list(sums.items())[:12]]
    suspects = entries(report.get("suspects"))
    doubted = [
        (
            shorten(s.get("id"), 160),
            shorten(s.get("given"), 60),
            shorten(s.get("suggested"), 60),
            *(figures(number(s.get(f"{k}_probability")) or 0.0) for k in ("given", "suggested")),
        )
        for s in suspects[:LINES]
    ]
    lead = "No row has a label."
    if found:
        rare, common = min(sums.values()), max(sums.values())
        lead = f"{len(found):,} labels; the commonest has {figures(common / max(1, rare))} times "
        lead += "the rows of the rarest. "
        lead += (
            f"{len(suspects):,} labels look wrong (confident learning): look at them first."
            if suspects
            else f"`modelwright data errors CORPUS --out CORPUS/{SUSPECTS}` lists those that look "
            "wrong, and the next report shows them here."
        )
    head = ("Label", "Rows", "Share", *(f"Of {part}" for part in SPLITS))
    return Section(
        "labels",
        "Labels",
        lead,
        [Figure("Rows by label", bar_chart("Rows by label", bars))] if bars else [],
        _tables(
            Table("The balance of labels", head, "lrrrrr", lines),
            Table(
                "Labels that look wrong, the surest first",
                ("Row", "Given", "Suggested", "P(given)", "P(suggested)"),
                "cllrr",
                doubted,
            ),
        ),
    )


def packed(report: Mapping[str, Any]) -> Table:
    """What rows of some lengths would waste."""
    lines = [
        (
            whole(line.get("length")),
            whole(line.get("rows")),
            scaled(line.get("tokens")),
            f"{100 * (number(line.get('padding')) or 0):.2f} %",
            f"{100 * (number(line.get('cut')) or 0):.2f} %",
        )
        for line in entries(report.get("packing"))
    ]
    first = next(iter(entries(report.get("packing"))), {})
    of = whole(first.get("documents"))
    if first.get("of") != first.get("documents"):
        of += f" of {whole(first.get('of'))}"
    return Table(
        f"Best-fit packing of {of} train documents",
        ("Tokens a row", "Rows", "Tokens", "Left empty", "Documents cut"),
        "rrrrr",
        lines,
    )


def _tables(*given: Table) -> list[Table]:
    return [t for t in given if t.rows]
