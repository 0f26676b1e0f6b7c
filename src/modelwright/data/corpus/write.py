"""The unit ``write``: the rows of a unit that stay, each with its part of the split.

Every record of the read unit needs one line in its fates and every line a record; anything else
stops the run, so no row is lost or doubled between deduplication and the corpus.

Files: ``rows-00000.parquet`` (``records.FINAL``). Facts: ``in``, ``kept`` and ``dropped`` (rows
and checksum of ids), ``parts`` (split -> rows, bytes), ``reasons`` (reason -> rows, bytes).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelwright.data.corpus import records
from modelwright.data.corpus.tally import Ids, id_hash
from modelwright.data.corpus.unit import CORPUS, Facts, Unit, unit_folder
from modelwright.errors import CorruptError

ROWS = "rows-00000.parquet"
PARTS = ("train", "validation", "test")
_WORK = "modelwright.data.corpus.write:write"


def plan_write(read: list[Unit], fates: dict[str, str]) -> list[Unit]:
    """One unit for each unit of the stage read.

    Args:
        read: the units of the stage read.
        fates: name of a read unit -> "stage/unit:file" of its fates.
    """
    return [
        Unit(
            "write",
            unit.name,
            _WORK,
            {"read": unit.name, "fate": fates[unit.name]},
            reads=(f"read/{unit.name}:{records.RECORDS}", fates[unit.name]),
            bytes=unit.bytes,
        )
        for unit in read
    ]


def write(arguments: dict[str, Any], out: Path) -> Facts:
    """Write the rows that stay.

    Args:
        arguments: ``read``, the name of the read unit; ``fate``, "stage/unit:file".
        out: the folder to write into.

    Raises:
        CorruptError: records and fates do not fit together, or one of them is damaged.
    """
    corpus = Path(arguments[CORPUS])
    place, _, name = arguments["fate"].partition(":")
    fate_path = unit_folder(corpus, *place.split("/", 1)) / name
    ids = {kind: Ids() for kind in ("in", "kept", "dropped")}
    parts = {part: [0, 0] for part in PARTS}
    reasons: dict[str, Counter[str]] = {}
    fates = _fates(fate_path)
    pa = records.arrow()
    with records.Writer(out / ROWS, records.FINAL) as writer:
        for table in records.groups(
            unit_folder(corpus, "read", arguments["read"]) / records.RECORDS
        ):
            names: list[str] = table.column("id").to_pylist()
            sizes = _sizes(table)
            chosen, split = [], []
            for id_, size, fate in zip(names, sizes, fates, strict=False):
                if fate["id"] != id_:
                    raise CorruptError(f"{fate_path}: {fate['id']!r} stands where {id_!r} should")
                hashed = id_hash(id_)
                ids["in"].add(hashed)
                ids["kept" if fate["kept"] else "dropped"].add(hashed)
                chosen.append(bool(fate["kept"]))
                if fate["kept"]:
                    split.append(fate["split"])
                    parts[fate["split"]][0] += 1
                    parts[fate["split"]][1] += size
                else:
                    counted = reasons.setdefault(fate["reason"], Counter())
                    counted["rows"] += 1
                    counted["bytes"] += size
            if len(chosen) != len(names):
                raise CorruptError(f"{fate_path}: ends before {names[len(chosen)]!r}; run again")
            kept = table.filter(pa.array(chosen, pa.bool_()))
            writer.write_table(kept.append_column("split", pa.array(split, pa.string())))
    if next(fates, None) is not None:
        raise CorruptError(f"{fate_path}: has lines for rows that are not there; run again")
    return {kind: of.facts() for kind, of in ids.items()} | {
        "parts": {p: {"rows": rows, "bytes": size} for p, (rows, size) in parts.items()},
        "reasons": {reason: dict(counts) for reason, counts in sorted(reasons.items())},
    }


def _fates(path: Path) -> Iterator[dict[str, Any]]:
    return records.rows(path, ("id", "kept", "reason", "split"))


def _sizes(table: Any) -> list[int]:
    """Bytes of the text and media of every row."""
    pa = records.arrow()
    import pyarrow.compute as pc  # noqa: PLC0415 - see records.arrow

    lengths = [
        pc.fill_null(pc.binary_length(table.column(name)), 0).cast(pa.int64())
        for name in ("text", "media")
    ]
    found: list[int] = pc.add(*lengths).to_pylist()
    return found
