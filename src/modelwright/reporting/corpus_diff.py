"""What changed between two reports of a corpus: settings, rows, rules, sources, splits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelwright.reporting.blocks import Table, flatten, shorten, whole
from modelwright.reporting.record import entries, mapping, number, text

MOST = 200  # lines of one table


def numbers(report: Mapping[str, Any]) -> dict[str, float]:
    """Every count of a report that one compares, by a name a person reads."""
    found: dict[str, float] = {}
    for what, value in mapping(report.get("rows")).items():
        _put(found, f"rows {what}", value)
    for what, value in mapping(report.get("bytes")).items():
        _put(found, f"bytes {what}", value)
    for step in entries(report.get("waterfall")):
        for reason, lost in mapping(step.get("dropped")).items():
            _put(found, f"dropped by {text(step.get('step'))}: {reason}", mapping(lost).get("rows"))
    for source in entries(report.get("sources")):
        for what in ("in", "kept", "bad"):
            _put(found, f"source {text(source.get('name'))}: {what}", source.get(what))
    for part, said in mapping(report.get("splits")).items():
        _put(found, f"split {part}: rows", mapping(said).get("rows"))
    for kind, count in mapping(report.get("pii")).items():
        _put(found, f"personal data: {kind}", count)
    for reason, count in mapping(report.get("quarantine")).items():
        _put(found, f"quarantined: {reason}", count)
    return found


def _put(found: dict[str, float], name: str, value: Any) -> None:
    amount = number(value)
    if amount is not None:
        found[shorten(name, 200)] = amount


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Table]:
    """The tables of a comparison; none where nothing differs."""
    tables = []
    old, new = numbers(before), numbers(now)
    counted = [
        (name, whole(old.get(name, 0)), whole(new.get(name, 0)), _signed(old, new, name))
        for name in dict.fromkeys((*old, *new))
        if old.get(name, 0) != new.get(name, 0)
    ]
    if counted:
        head = ("What", "Before", "Now", "Change")
        tables.append(Table("Counts that changed", head, "lrrr", counted[:MOST]))
    settings = _other(mapping(before.get("spec")), mapping(now.get("spec")))
    settings += _other(mapping(before.get("versions")), mapping(now.get("versions")))
    if settings:
        columns = ("Setting or version", "Before", "Now")
        tables.append(Table("Settings and versions that changed", columns, "lcc", settings[:MOST]))
    return tables


def _signed(old: Mapping[str, float], new: Mapping[str, float], name: str) -> str:
    change = new.get(name, 0) - old.get(name, 0)
    share = f" ({change / old[name]:+.1%})" if old.get(name) else ""
    return f"{change:+,.0f}{share}"


def _other(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, ...]]:
    flat_old, flat_new = flatten(old), flatten(new)
    return [
        (name, *(shorten(f[name], 300) if name in f else "-" for f in (flat_old, flat_new)))
        for name in dict.fromkeys((*flat_old, *flat_new))
        if flat_old.get(name) != flat_new.get(name)
    ]
