"""The sections of the report that say where it came from: data, recipe, cost, reproduction."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Any

from modelwright.reporting.blocks import (
    Figure,
    Table,
    duration,
    flatten,
    percent,
    scaled,
    shorten,
    whole,
)
from modelwright.reporting.charts import Bar, bar_chart
from modelwright.reporting.record import Record, dump, entries, mapping, number, text

IDS = 4  # example ids shown for each reason
REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,60}")


@dataclass(frozen=True)
class Waterfall:
    """The cleaning steps: drawn, in figures, and why rows were dropped."""

    chart: Figure
    table: Table
    reasons: Table
    problems: list[str]


def waterfall(record: Record) -> Waterfall | None:
    """Rows in, dropped and why, kept, after each cleaning step."""
    if not record.waterfall:
        return None
    bars, rows, reasons, problems = [], [], [], []
    for line in record.waterfall:
        step = text(line.get("step"))
        rows_in, rows_out = number(line.get("rows_in")), number(line.get("rows_out"))
        why = mapping(line.get("dropped"))
        lost = sum(number(n) or 0.0 for n in why.values())
        if rows_in is not None and rows_out is not None:
            shown = f"{rows_out:,.0f}" + (f" (\u2212{lost:,.0f})" if lost else "")
            title = f"{step}: {rows_out:,.0f} kept, {lost:,.0f} dropped"
            bars.append(Bar(step, rows_out, shown, rest=lost, title=title))
            if rows_in != rows_out + lost:
                problems.append(
                    f"{step}: {rows_in:,.0f} rows in are not {rows_out:,.0f} out "
                    f"+ {lost:,.0f} dropped with a reason"
                )
        kept = percent(rows_out, rows_in)
        sizes = (scaled(line.get("bytes_in"), "B"), scaled(line.get("bytes_out"), "B"))
        rows.append((step, whole(rows_in), whole(lost), whole(rows_out), kept, *sizes))
        examples = mapping(line.get("examples"))
        for reason, count in sorted(why.items(), key=lambda kv: -(number(kv[1]) or 0)):
            ids = examples.get(reason)
            some = [shorten(i, 80) for i in ids[:IDS]] if isinstance(ids, list) else []
            reasons.append((step, reason, whole(count), ", ".join(some)))
    head = ("Step", "Rows in", "Dropped", "Kept", "Share kept", "Bytes in", "Bytes out")
    return Waterfall(
        Figure("Rows kept and dropped, step by step", bar_chart("Rows kept and dropped", bars)),
        Table("Every step of the cleaning", head, "lrrrrrr", rows),
        Table("Why rows were dropped", ("Step", "Reason", "Rows", "For example"), "llrc", reasons),
        problems,
    )


def data_tables(record: Record) -> list[Table]:
    """Split sizes, leakage audit, prepared examples and the tokenizer."""
    tables = []
    splits = dict(_mappings(record.split.get("splits")))
    if splits:
        total = sum(number(s.get("rows")) or 0.0 for s in splits.values())
        rows = [
            (
                name,
                whole(s.get("rows")),
                percent(number(s.get("rows")), total),
                scaled(s.get("bytes"), "B"),
                whole(s.get("groups")),
            )
            for name, s in splits.items()
        ]
        head = ("Split", "Rows", "Share", "Bytes", "Groups")
        tables.append(Table("The splits; a group is never divided", head, "lrrrr", rows))
    if leakage := _leakage(mapping(record.split.get("leakage"))):
        tables.append(leakage)
    prepared = [
        (task, text(said.get("codec")), split, whole(s.get("examples")), whole(s.get("tokens")))
        for task, said in _mappings(record.prepared.get("tasks"))
        for split, s in _mappings(said.get("splits"))
    ]
    if prepared:
        head = ("Task", "Codec", "Split", "Examples", "Tokens")
        tables.append(Table("The data as the model reads it", head, "lllrr", prepared))
    if tokenizer := flatten(mapping(record.prepared.get("tokenizer"))):
        facts = [(_words(k), _plain(v)) for k, v in tokenizer.items()]
        tables.append(Table("The tokenizer, fitted on train only", ("Fact", "Value"), "lr", facts))
    return tables


def _mappings(value: Any) -> list[tuple[str, dict[str, Any]]]:
    """The entries of a mapping of mappings."""
    return [(key, mapping(inner)) for key, inner in mapping(value).items()]


def _words(key: str) -> str:
    """A field name as people write it: "memory_gib" -> "memory, GiB"."""
    return key.replace("_gib", ", GiB").replace("_", " ").replace(".", ", ")


def _leakage(said: dict[str, Any]) -> Table | None:
    """The audit, a check a row; its verdict, if it has one, is in the caption."""
    caption = "Leakage audit: what more than one split shares"
    if isinstance(said.get("holds"), bool):
        caption += " (it holds)" if said["holds"] else " (IT DOES NOT HOLD)"
    rows = []
    for key, found in flatten(
        {k: v for k, v in said.items() if k not in ("holds", "sizes")}
    ).items():
        value = number(found)
        if found in ({}, []):  # nothing of this kind was found
            shown = "0" if found == {} else ""
        else:
            shown = _plain(found) if value is None else f"{value:,.6g}"
        if shown:
            rows.append((_words(key), shown))
    return Table(caption, ("Check", "Found"), "lr", rows) if rows else None


def _plain(value: Any) -> str:
    """A value of a recipe or manifest as a reader or a command line writes it."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return shorten(value if isinstance(value, str) else dump(value), 300)


def recipe_tables(record: Record) -> tuple[Table | None, Table | None]:
    """The derived values with their reasons, and every other value."""
    values = flatten(mapping(record.resolved.get("recipe")))
    reasons = mapping(record.resolved.get("reasons"))
    derived = [(key, _plain(values.get(key)), shorten(why, 500)) for key, why in reasons.items()]
    others = [(key, _plain(value)) for key, value in values.items() if key not in reasons]
    head = ("Field", "Value", "Why")
    return (
        Table("Derived values, each with its reason", head, "crl", derived) if derived else None,
        Table("All other values", ("Field", "Value"), "cr", others) if others else None,
    )


def cost(record: Record) -> tuple[Figure | None, Table | None]:
    """Time, memory, FLOPs and MFU of every stage, drawn and in figures."""
    rows, bars = [], []
    for stage, said in record.stages.items():
        seconds, flops = number(said.get("seconds")), number(said.get("flops"))
        rate = scaled(flops / seconds, "FLOP/s") if flops and seconds else "-"
        mfu = number(said.get("mfu"))
        share = "-" if mfu is None else f"{100 * mfu:.1f} %"
        memory = scaled(said.get("peak_memory_bytes"), "B")
        work = (scaled(said.get("tokens")), scaled(flops, "FLOP"), rate, share, memory)
        rows.append((stage, text(said.get("status")), duration(seconds), *work))
        if seconds is not None:
            bars.append(Bar(stage, seconds, duration(seconds)))
    if len(rows) > 1:
        rows.append(("all", "", duration(record.seconds), "", "", "", "", ""))
    head = ("Stage", "Status", "Time", "Tokens", "Work", "Mean rate", "MFU", "Peak memory")
    caption = "Time of each stage"
    chart = Figure(caption, bar_chart(caption, bars)) if bars else None
    return chart, Table("What each stage cost", head, "llrrrrrr", rows) if rows else None


def machine(record: Record) -> Table | None:
    """The machine of the run and its measured matrix-product speed, the ceiling of MFU."""
    said = mapping(record.manifest.get("machine"))
    facts = [(_words(k), _plain(v)) for k, v in said.items() if k != "matmul_gflops"]
    for kind, speed in mapping(said.get("matmul_gflops")).items():
        gigaflops = number(speed)
        measured = None if gigaflops is None else gigaflops * 1e9
        facts.append((f"measured matrix product, {kind}", scaled(measured, "FLOP/s")))
    return Table("The machine", ("Fact", "Value"), "ll", facts) if facts else None


def commands(record: Record) -> str:
    """Shell commands that repeat the run, with every derived value pinned.

    Names from the run reach the shell quoted, and what is no plain requirement is left out.
    """
    lines = []
    libraries = mapping(record.manifest.get("libraries"))
    pins = [f"{name}=={v}" for name, v in libraries.items() if _pinnable(name, v)]
    if pins:
        lines += ["# the libraries of this run", f"pip install {' '.join(map(shlex.quote, pins))}"]
    values = flatten(mapping(record.resolved.get("recipe")))
    reasons = mapping(record.resolved.get("reasons"))
    pinned = [shlex.quote(f"{key}={_exact(values[key])}") for key in reasons if key in values]
    lines.append("# from this run's folder: the recipe as written, with what was derived pinned")
    lines.append(" \\\n  ".join(["modelwright run recipe.yaml", *pinned]))
    run = shlex.quote(_exact(record.path.resolve().name))
    lines.append("# from the folder above: grade it again, ask it, serve it")
    lines.append(f"modelwright evaluate {run}")
    asked = [text(e.get("question")) for e in entries(record.evaluation.get("examples"))]
    brief = [q for q in asked if q.isprintable() and len(q) <= 200]
    lines += [f"modelwright ask {run} {shlex.quote(q)}" for q in brief[:1]]
    return "\n".join([*lines, f"modelwright serve {run}"])


def _pinnable(name: str, version: Any) -> bool:
    known = REQUIREMENT.fullmatch(name) and REQUIREMENT.fullmatch(text(version))
    return bool(known) and name not in ("python", "modelwright")


def _exact(value: Any) -> str:
    """A value as an override writes it, on one line whatever characters it has."""
    if isinstance(value, str) and value.isprintable():
        return value
    return dump(value, ascii_only=True)


def provenance(record: Record) -> list[Table]:
    """Code, libraries and the hash of everything that went into and came out of each stage."""
    about = [("run", record.name), ("created", text(record.manifest.get("created")))]
    about.append(("python", text(record.manifest.get("python"))))
    code = flatten(mapping(record.manifest.get("code")))
    about += [(_words(key), _plain(value)) for key, value in code.items()]
    tables = [Table("The code", ("Fact", "Value"), "lc", [(k, v) for k, v in about if v])]
    libraries = mapping(record.manifest.get("libraries"))
    versions = [(name, _plain(version)) for name, version in libraries.items()]
    if versions:
        tables.append(Table("Library versions", ("Library", "Version"), "lc", versions))
    hashes = []
    for stage, said in record.stages.items():
        if said.get("fingerprint"):
            hashes.append((stage, "fingerprint", "", _plain(said["fingerprint"])))
        for way in ("inputs", "outputs"):
            files = flatten(mapping(said.get(way))).items()
            hashes += [(stage, way.removesuffix("s"), name, _plain(v)) for name, v in files]
    if hashes:
        head = ("Stage", "What", "Name", "Hash")
        tables.append(Table("Fingerprints, inputs and outputs of the stages", head, "lllc", hashes))
    return tables
