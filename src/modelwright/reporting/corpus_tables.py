"""The parts of a corpus's page about copies, persons, splits, bad records, tokens and changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelwright.reporting.blocks import Figure, Table, figures, percent, scaled, shorten, whole
from modelwright.reporting.charts import Bar, bar_chart
from modelwright.reporting.corpus_contents import packed
from modelwright.reporting.corpus_diff import changes
from modelwright.reporting.record import dump, entries, mapping, number
from modelwright.reporting.studies import Section

Report = Mapping[str, Any]
LINES = 60  # of a table that could be long


def _similarities(report: Report) -> list[Figure]:
    """How alike the candidate pairs are, where there are any."""
    counts = [int(number(c) or 0) for c in report.get("similarity") or ()]
    threshold = number(mapping(mapping(report.get("spec")).get("deduplicate")).get("threshold"))
    bars = [
        Bar(
            f"{at / 20:.2f} to {at / 20 + 0.05:.2f}",
            c,
            whole(c),
            strong=threshold is not None and at / 20 >= threshold - 1e-9,
        )
        for at, c in enumerate(counts)
        if c
    ]
    about = "Candidate pairs by true Jaccard similarity; blue ones count as copies"
    return [Figure(about, bar_chart("Pairs by similarity", bars))] if bars else []


def duplicates(report: Report) -> Section:
    """Candidate pairs, clusters by size, the largest clusters."""
    looked = mapping(report.get("alike"))
    said = {
        "candidates": "share a key of their hashes",
        "close": "hashes are close enough",
        "near": "look alike: copies",
    }
    alike = [(said[k], whole(looked.get(k))) for k in said if number(looked.get("candidates"))]
    sizes = mapping(report.get("cluster_sizes"))
    lines = [
        (size, whole(count))
        for size, count in sorted(sizes.items(), key=lambda p: number(p[1]) or 0, reverse=True)
    ]
    largest = [
        (
            whole(at + 1),
            whole(c.get("rows")),
            shorten(c.get("kept"), 120),
            shorten(", ".join(i for i in c.get("ids") or () if i != c.get("kept")), 300),
        )
        for at, c in enumerate(entries(report.get("clusters")))
    ]
    none = "" if lines else "None was found. "
    if not lines and not mapping(report.get("spec")).get("deduplicate"):
        none = "None was to leave; copies stay on one side of the split. "
    return Section(
        "duplicates",
        "Duplicates",
        f"{none}MinHash proposes pairs; a pair counts only when the true Jaccard similarity of its "
        "word n-grams reaches the threshold, and a row leaves only for a row that stays. Pictures "
        "are proposed by a perceptual hash and compared in 16 x 16 pixels.",
        _similarities(report),
        tables(
            Table("Pairs of pictures", ("What", "Pairs"), "lr", alike),
            Table("Clusters by size", ("Rows in a cluster", "Clusters"), "rr", lines[:LINES]),
            Table(
                "The largest clusters",
                ("Number", "Rows", "The one that stays", "Some of the others"),
                "rrcc",
                largest,
            ),
        ),
    )


def personal(report: Report) -> Section:
    """Counts of personal data by kind."""
    found = mapping(report.get("pii"))
    ranked = sorted(found.items(), key=lambda p: -(number(p[1]) or 0))
    bars = [Bar(kind, number(count) or 0, whole(count)) for kind, count in ranked]
    lead = "Counts by kind; what was found is written nowhere."
    if not found:
        asked = "pii" in dump(mapping(report.get("spec")).get("steps"))
        lead = "Nothing was found." if asked else "Not looked for: the corpus has no step `pii`."
        lead += " In the samples on this page it is masked in any case."
    charts = (
        [Figure("Personal data and secrets found, by kind", bar_chart("Found", bars))]
        if bars
        else []
    )
    return Section("personal", "Personal data", lead, charts)


def split(report: Report) -> Section:
    """Parts of the split, its audit and its alarms."""
    parts = {k: mapping(v) for k, v in mapping(report.get("splits")).items()}
    total = sum(number(p.get("rows")) or 0 for p in parts.values())
    has_tokens = any("tokens" in p for p in parts.values())
    lines = [
        (
            part,
            whole(of.get("rows")),
            percent(number(of.get("rows")), total),
            scaled(of.get("bytes"), "B"),
        )
        + ((scaled(of.get("tokens")),) if has_tokens else ())
        for part, of in parts.items()
    ]
    audit = [(name, whole(count)) for name, count in mapping(report.get("audit")).items()]
    crossed = sum(number(n) or 0 for k, n in mapping(report.get("audit")).items() if "cross" in k)
    lead = "Rows that share a group, a parent or a verified copy belong to one component. "
    if audit:
        said = "nothing crosses" if not crossed else f"{crossed:,.0f} cross: DO NOT USE THIS SPLIT"
        lead += (
            f"There are {whole(report.get('components'))}. Looked at again in the files: {said}."
        )
    gate = mapping(report.get("gate"))
    looked = [(k, shown(v)) for k, v in gate.items() if not isinstance(v, dict | list)]
    alarms = [(shorten(a, 300),) for a in report.get("alarms") or ()]
    head = ("Part", "Rows", "Share", "Bytes", *(("Tokens",) if has_tokens else ()))
    return Section(
        "splits",
        "Split, and what might leak through it",
        lead,
        (),
        tables(
            Table("Parts", head, "l" + "r" * (len(head) - 1), lines),
            Table("The audit of the split", ("What", "Number"), "lr", audit),
            Table(
                "What the gate found, with other hash functions", ("What", "Value"), "lr", looked
            ),
            Table("To be looked at before use", ("Alarm",), "l", alarms),
        ),
    )


def shown(value: Any) -> str:
    """A JSON value as a person reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    amount = number(value)
    if amount is None:
        return shorten(value, 200)
    return whole(amount) if amount == int(amount) else figures(amount)


def quarantine(report: Report) -> Section:
    """What could not be read, and why."""
    reasons = [(shorten(r, 300), whole(n)) for r, n in mapping(report.get("quarantine")).items()]
    first = [
        (
            shorten(f.get("input"), 120),
            shorten(f.get("where") or f.get("id"), 160),
            shorten(f.get("reason"), 200),
        )
        for f in entries(report.get("first_bad"))
    ]
    lead = (
        "Everything could be read."
        if not reasons
        else "Records that gave no row; all are listed in quarantine.jsonl of their unit."
    )
    return Section(
        "quarantine",
        "Set aside",
        lead,
        (),
        tables(
            Table("Why", ("Reason", "Records"), "lr", reasons[:LINES]),
            Table("The first of each unit", ("Input", "Where", "Reason"), "ccl", first),
        ),
    )


def tokens(report: Report) -> Section:
    """Bytes a token, by language and by source."""
    said = mapping(report.get("tokens"))
    found = []
    for key, title in (("languages", "Language"), ("sources", "Source")):
        lines = []
        for name, counts in mapping(said.get(key)).items():
            size, count = (
                number(mapping(counts).get("bytes")),
                number(mapping(counts).get("tokens")),
            )
            rate = figures(size / count) if size and count else "-"
            lines.append((shorten(name, 60), scaled(size, "B"), scaled(count), rate))
        found.append(
            Table(
                f"Bytes per token by {title.lower()}",
                (title, "Text", "Tokens", "Bytes per token"),
                "lrrr",
                lines,
            )
        )
    lead = "No tokens were asked for."
    if said:
        lead = (
            f"A vocabulary of {whole(said.get('vocabulary'))}; fingerprint "
            f"{shorten(said.get('fingerprint'), 40)}."
        )
    return Section("tokens", "Tokens", lead, (), tables(*found, packed(report)))


def augmented(report: Report) -> Section:
    """What was made of the train rows."""
    made = mapping(report.get("augment"))
    lines = [(name, whole(count)) for name, count in made.items()]
    if not any(number(count) for count in made.values()):
        return Section("augment", "Augmentation", "None was asked for.")
    lead = "Made from train rows alone, after the split; each names its parents."
    table = Table("What was made", ("What", "Rows"), "lr", lines)
    views = [tuple(map(str, line)) for line in report.get("views") or () if len(line) == 3]
    beside = Table("Some texts", ("Id", "Original", "View"), "cll", views)
    return Section("augment", "Augmentation", lead, (), tables(table, beside))


def difference(report: Report, before: Report) -> Section:
    """What changed since the previous run."""
    if not before:
        return Section(
            "changes", "Since the previous run", "There is no previous run to compare with."
        )
    found = changes(before, report)
    lead = "Against report.previous.json." if found else "The previous run counts the same."
    return Section("changes", "Since the previous run", lead, (), found)


def tables(*given: Table) -> list[Table]:
    """Those that have rows."""
    return [t for t in given if t.rows]
