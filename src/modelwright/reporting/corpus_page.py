"""What is on the page of a corpus, from the numbers of its ``report.json``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelwright.reporting import corpus_contents, corpus_tables
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
from modelwright.reporting.corpus_charts import histogram
from modelwright.reporting.corpus_tables import Report, tables
from modelwright.reporting.record import entries, mapping, number, text
from modelwright.reporting.results import Card
from modelwright.reporting.studies import Section

CHARTS = 60  # histograms
VALUES = 12  # of a measure that is a word
UNIQUE = 0.02  # share of the commonest value below which values are names


@dataclass(frozen=True)
class Sample:
    """A row as an example: its id, text, and what was measured."""

    id: str
    text: str
    measures: str


@dataclass(frozen=True)
class Group:
    """Samples of one kind, or the rows of one cluster."""

    title: str
    samples: Sequence[Sample]


def cards(report: Report) -> list[Card]:
    """The headline: how much came in, stayed, was unreadable, and how fast it went."""
    rows, sizes = mapping(report.get("rows")), mapping(report.get("bytes"))
    kept, size = _final(rows, "after the steps"), _final(sizes, "kept")
    bad = (number(rows.get("quarantined")) or 0) + (number(rows.get("unreadable")) or 0)
    read = next((s for s in entries(report.get("stages")) if s.get("stage") == "read"), {})
    spent = sum(number(s.get("cpu_seconds")) or 0 for s in entries(report.get("stages")))
    parts = mapping(report.get("splits"))
    tokens = sum(number(mapping(p).get("tokens")) or 0 for p in parts.values())
    return [
        Card("What came in", f"{whole(rows.get('in'))} rows", (scaled(sizes.get("in"), "B"),)),
        Card(
            "What is in the corpus",
            f"{whole(kept)} rows",
            (f"{percent(kept, number(rows.get('in')))} of the rows, {scaled(size, 'B')}",)
            + ((f"{scaled(tokens)} tokens",) if tokens else ()),
        ),
        Card(
            "What could not be read",
            whole(bad),
            (f"{percent(bad, bad + (number(rows.get('in')) or 0))} of the records",),
        ),
        Card("What it took", f"{duration(spent)} of a core", (f"reading at {_rate(read)}",)),
    ]


def _final(values: Mapping[str, Any], otherwise: str) -> float:
    value = values.get("in the corpus", values.get(otherwise))
    return number(value) or 0.0


def _rate(line: Mapping[str, Any]) -> str:
    size, seconds = number(line.get("bytes")), number(line.get("cpu_seconds", line.get("seconds")))
    return f"{figures(size / seconds / 1e6)} MB/s a core" if size and seconds else "-"


def _seconds(value: Any) -> str:
    """A time; what rounds to nothing is said to be little."""
    return "< 0.1 s" if (number(value) or 0) < 0.05 else duration(value)


def sections(report: Report, before: Report) -> list[Section]:
    """The parts of the page that are charts and tables."""
    return [
        _waterfall(report),
        _sources(report),
        _measures(report),
        corpus_contents.media(report),
        corpus_contents.labels(report),
        corpus_tables.duplicates(report),
        corpus_tables.personal(report),
        corpus_tables.split(report),
        corpus_tables.quarantine(report),
        corpus_tables.tokens(report),
        _speed(report),
        corpus_tables.augmented(report),
        corpus_tables.difference(report, before),
        _provenance(report),
    ]


def _waterfall(report: Report) -> Section:
    bars, lines, reasons = [], [], []
    for step in entries(report.get("waterfall")):
        name = text(step.get("step"))
        rows_in, rows_out = number(step.get("rows_in")) or 0, number(step.get("rows_out")) or 0
        lost = rows_in - rows_out
        shown = f"{rows_out:,.0f}" + (f" (\u2212{lost:,.0f})" if lost else "")
        bars.append(Bar(name, rows_out, shown, rest=lost))
        sizes = (scaled(step.get("bytes_in"), "B"), scaled(step.get("bytes_out"), "B"))
        lines.append(
            (name, whole(rows_in), whole(lost), whole(rows_out), percent(rows_out, rows_in), *sizes)
        )
        dropped = mapping(step.get("dropped"))
        for reason in sorted(
            dropped, key=lambda r: -(number(mapping(dropped[r]).get("rows")) or 0)
        ):
            counts = mapping(dropped[reason])
            share = percent(number(counts.get("rows")), rows_in)
            size = scaled(counts.get("bytes"), "B")
            reasons.append((name, shorten(reason, 200), whole(counts.get("rows")), share, size))
    head = ("Step", "Rows in", "Dropped", "Kept", "Share kept", "Bytes in", "Bytes out")
    why = ("Step", "Reason", "Rows", "Of rows in", "Bytes")
    return Section(
        "waterfall",
        "What was kept, and what was dropped why",
        "Every row that came in is kept or dropped by one rule at one step; "
        "`modelwright data why ID` says which.",
        [Figure("Rows kept (blue) and dropped (orange), step by step", bar_chart("Rows", bars))]
        if bars
        else [],
        tables(
            Table("Every step", head, "lrrrrrr", lines), Table("Every rule", why, "llrrr", reasons)
        ),
    )


def _sources(report: Report) -> Section:
    lines, licences, by_step, bars = [], [], [], []
    found = entries(report.get("sources"))
    steps = list(dict.fromkeys(s for line in found for s in mapping(line.get("dropped"))))
    for line in found:
        name, came, kept = (
            shorten(line.get("name"), 80),
            number(line.get("in")),
            number(line.get("kept")),
        )
        sizes = (scaled(line.get("bytes_in"), "B"), scaled(line.get("bytes_kept"), "B"))
        read = shorten(line.get("reader"), 60)
        lines.append(
            (
                name,
                read,
                whole(line.get("inputs")),
                whole(came),
                whole(kept),
                percent(kept, came),
                *sizes,
                whole(line.get("bad")),
            )
        )
        rest = (came or 0) - (kept or 0)
        bars.append(Bar(name, kept or 0, f"{whole(kept)} of {whole(came)}", rest=max(0, rest)))
        dropped = mapping(line.get("dropped"))
        by_step.append((name, *(whole(dropped.get(s, 0)) for s in steps)))
        licences += [
            (name, shorten(licence, 300) or "(none stated)", whole(count))
            for licence, count in mapping(line.get("licences")).items()
        ]
    head = (
        "Source",
        "Reader",
        "Inputs",
        "Rows in",
        "Kept",
        "Share",
        "Bytes in",
        "Bytes after steps",
        "Set aside",
    )
    return Section(
        "sources",
        "Sources and licences",
        "Set aside are records that could not be read, or that a step could not take.",
        [Figure("Rows kept (blue) of each source", bar_chart("Rows by source", bars))]
        if bars
        else [],
        tables(
            Table("Every source", head, "llrrrrrrr", lines),
            Table(
                "Rows dropped by source and step",
                ("Source", *steps),
                "l" + "r" * len(steps),
                by_step if steps else [],
            ),
            Table("Licences of the rows that stay", ("Source", "Licence", "Rows"), "llr", licences),
        ),
    )


def _measures(report: Report) -> Section:
    limits = mapping(report.get("limits"))
    charts: list[Figure] = []
    named: list[tuple[str, str, str, str]] = []
    for name, said in mapping(report.get("histograms")).items():
        bins = mapping(mapping(said).get("bins"))
        low, high = (number(mapping(said).get(end)) or 0.0 for end in ("min", "max"))
        if len(bins) == 1 or (bins and low == high):
            shown = corpus_tables.shown
            value = shown(low) + (f" to {shown(high)}" if high > low else "")
            total = sum(number(c) or 0 for c in bins.values())
            named.append((name, value, whole(total), "100.0 %"))
        elif bins and len(charts) < CHARTS and not name.startswith("pii."):
            at = [v for v in (number(x) for x in limits.get(name) or ()) if v is not None]
            largest = number(mapping(said).get("max"))
            svg = histogram(name, bins, at, math.inf if largest is None else largest)
            if svg:
                charts.append(Figure(name, svg))
        values = mapping(mapping(said).get("values"))
        total = sum(number(c) or 0 for c in values.values())
        counted = [number(c) or 0 for v, c in values.items() if v != "(others)"]
        if total and max(counted, default=0) < UNIQUE * total:
            named.append((name, "all different, or nearly", whole(total), "100.0 %"))
            continue
        for value, count in sorted(values.items(), key=lambda p: -(number(p[1]) or 0))[:VALUES]:
            named.append((name, shorten(value, 80), whole(count), percent(number(count), total)))
    spoken = mapping(report.get("languages"))
    bars = [Bar(shorten(k, 40), number(v) or 0, whole(v)) for k, v in list(spoken.items())[:12]]
    if bars:
        charts.insert(0, Figure("Rows by language", bar_chart("Rows by language", bars)))
    return Section(
        "measures",
        "What was measured",
        "Every measure of every row that reached its step, those dropped there included; dashed "
        "lines are the values at which the step decides, of Chinese and of other texts where they "
        "differ.",
        charts,
        tables(
            Table(
                "Measures that are words, or always much the same",
                ("Measure", "Value", "Rows", "Share"),
                "llrr",
                named,
            )
        ),
    )


def _speed(report: Report) -> Section:
    lines = [
        (
            text(s.get("stage")),
            whole(s.get("units")),
            _seconds(s.get("seconds")),
            _seconds(s.get("cpu_seconds")),
            scaled(s.get("bytes"), "B") if s.get("bytes") else "-",
            _rate(s).partition(" ")[0],
            scaled(s.get("written_bytes"), "B"),
            scaled(s.get("peak_bytes"), "B"),
        )
        for s in entries(report.get("stages"))
    ]
    steps = [
        (
            text(s.get("what")),
            _seconds(s.get("seconds")),
            scaled(s.get("bytes"), "B"),
            _rate(s).partition(" ")[0],
        )
        for s in entries(report.get("steps"))
    ]
    head = (
        "Stage",
        "Units",
        "Seconds",
        "Of a core",
        "Worked on",
        "MB/s a core",
        "Written",
        "Peak memory",
    )
    return Section(
        "speed",
        "Speed",
        "Seconds are the sum over units, so workers do not change them much; a unit that was kept "
        "from an earlier run has the time it took then. Within read, a part's seconds are by the "
        "clock, and so longer on a machine that is busy.",
        (),
        tables(
            Table("Stages", head, "lrrrrrrr", lines),
            Table("Within read", ("Part", "Seconds", "Bytes", "MB/s"), "lrrr", steps),
        ),
    )


def _provenance(report: Report) -> Section:
    hashes = [(k, shorten(v, 80)) for k, v in mapping(report.get("fingerprints")).items()]
    versions = [(k, shorten(v, 80)) for k, v in mapping(report.get("versions")).items()]
    return Section(
        "provenance",
        "Provenance",
        "A stage's fingerprint is a hash of the marks and files of all its units.",
        (),
        tables(
            Table("Fingerprints", ("Stage", "BLAKE2"), "lc", hashes),
            Table("Versions", ("What", "Version"), "lc", versions),
        ),
        dump_spec(report),
    )


def dump_spec(report: Report) -> str:
    """The corpus's description as YAML; empty where it has none."""
    import yaml  # noqa: PLC0415 - slow to import

    spec = mapping(report.get("spec"))
    if not spec:
        return ""
    return shorten(yaml.safe_dump(spec, sort_keys=False, allow_unicode=True).rstrip(), 20_000)


def samples(report: Report) -> list[Group]:
    """The samples by kind."""
    found: dict[str, list[Sample]] = {}
    for sample in entries(report.get("samples")):
        found.setdefault(text(sample.get("kind")), []).append(_sample(sample))
    return [Group(shorten(kind, 200), listed) for kind, listed in found.items()]


def clusters(report: Report) -> list[Group]:
    """Rows of the largest clusters."""
    return [
        Group(
            f"Cluster {at + 1}: {whole(c.get('rows'))} rows",
            [_sample(s) for s in entries(c.get("samples"))],
        )
        for at, c in enumerate(entries(report.get("clusters")))
        if entries(c.get("samples"))
    ]


def _sample(said: Mapping[str, Any]) -> Sample:
    measures = "; ".join(
        m for m in (text(said.get("near")), _pairs(mapping(said.get("attributes")).items())) if m
    )
    content = text(said.get("text"))
    length = number(said.get("chars"))
    if length is not None and length > len(content):
        content += f" [... {length - len(content):,.0f} more characters]"
    return Sample(shorten(said.get("id"), 200), shorten(content, 1200), measures)


def _pairs(items: Iterable[tuple[str, Any]]) -> str:
    said = [
        f"{k} {corpus_tables.shown(v) if number(v) is not None else shorten(v, 40)}"
        for k, v in items
        if not isinstance(v, bool) and v not in (0, "")
    ]
    return shorten(", ".join(said), 600)
