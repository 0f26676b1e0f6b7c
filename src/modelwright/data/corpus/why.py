"""What happened to one row of a corpus, stage by stage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelwright.data.corpus import records
from modelwright.data.corpus.build import fates_of
from modelwright.data.corpus.freeze import stored
from modelwright.data.corpus.read import QUARANTINE
from modelwright.data.corpus.unit import unit_folder
from modelwright.errors import ModelwrightError, did_you_mean

NEAR = 2000  # ids that are looked at for one that was meant


def why(folder: Path, id_: str) -> list[str]:
    """A line for every stage that has seen a row.

    Args:
        folder: a corpus, finished or not.
        id_: the row's id, as decisions and reports show it.

    Raises:
        ModelwrightError: no row has this id; the nearest is given.
    """
    units = finished_units(folder, "read")
    if not units:
        raise ModelwrightError(f"{folder}: no corpus, or nothing of it is read yet")
    for unit in units:
        read = unit_folder(folder, "read", unit)
        found = _line(read / records.DECISIONS, id_)
        if found is not None:
            return [*_read(read, unit, found), *_later(folder, unit, id_)]
        if bad := next((b for b in _bad(read) if id_ in (b.get("id"), b["where"])), None):
            return [f"read ({unit}): set aside: {bad['reason']}"]
    for unit in finished_units(folder, "augment"):
        made = _made(folder, unit, id_)
        if made is not None:
            parents = ", ".join(made["parents"])
            return [f"augment ({unit}): made from {parents}, in {made['split']}"]
    raise ModelwrightError(f"{folder}: no row has the id {id_!r}{_meant(folder, units, id_)}")


def finished_units(folder: Path, stage: str) -> list[str]:
    """The names of the committed units of a stage."""
    return sorted(path.stem for path in (folder / "stages" / stage).glob("*.json"))


def _line(path: Path, id_: str) -> dict[str, Any] | None:
    """The line of a table with this id; groups whose ids cannot hold it are passed over."""
    lines = records.where(path, id_)
    return lines[0] if lines else None


def _read(read: Path, unit: str, found: dict[str, Any]) -> Iterator[str]:
    size = f"{found['bytes']:,} bytes"
    if found["detail"] == "quarantined":
        reasons = [b["reason"] for b in _bad(read) if b.get("id") == found["id"]]
        yield f"read ({unit}): set aside: {(reasons or [found['reason']])[0]}"
    elif found["kept"]:
        yield f"read ({unit}): kept, {size}"
    else:
        yield f"read ({unit}): left at step {found['step']}: {found['reason']}, {size}"
    measures = {
        line["name"]: line["text"] if line["number"] is None else f"{line['number']:g}"
        for line in records.where(read / records.ATTRIBUTES, found["id"])
    }
    if measures:
        yield "measured: " + ", ".join(f"{k}={v}" for k, v in sorted(measures.items()))


def _later(folder: Path, unit: str, id_: str) -> Iterator[str]:
    """What deduplication, split and writing did with a row that was read and kept."""
    if not finished_units(folder, "resolve"):
        return
    place, _, file = fates_of([unit])[unit].partition(":")
    fate = _line(unit_folder(folder, *place.split("/", 1)) / file, id_)
    if fate is None:
        return
    if not fate["kept"]:
        because = f" of {fate['kept_id']}" if fate["kept_id"] else ""
        like = f", similarity {fate['similarity']:.2f}" if fate["similarity"] is not None else ""
        yield f"resolve: left: {fate['reason']}{because}{like}"
        return
    yield f"resolve: kept, in {fate['split']}, component {fate['component']}"
    if unit in finished_units(folder, "write"):
        yield f"write: in stages/write/{unit}"


def _bad(read: Path) -> Iterator[dict[str, Any]]:
    with (read / QUARANTINE).open(encoding="utf-8") as handle:
        yield from map(json.loads, handle)


def _made(folder: Path, unit: str, id_: str) -> dict[str, Any] | None:
    for path in sorted(unit_folder(folder, "augment", unit).glob("rows-*.parquet")):
        found = _line(path, id_)
        if found is not None:
            return found
    return None


def _meant(folder: Path, units: list[str], id_: str) -> str:
    """The nearest id among some of the same source, or the sources there are."""
    sources = sorted({one.source for one in stored(folder)})
    mine = [u for u in units if u.rpartition("-")[0] == id_.split("/", maxsplit=1)[0]]
    if not mine:
        return f"; ids begin with a source: {', '.join(sources)}"
    known: list[str] = []
    for unit in mine:
        for line in records.rows(unit_folder(folder, "read", unit) / records.DECISIONS, ("id",)):
            known.append(line["id"])
            if len(known) >= NEAR:
                return did_you_mean(id_, known)
    return did_you_mean(id_, known)
