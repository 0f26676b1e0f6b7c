"""A corpus of read units as plain files, and its stages run one after the other in this process."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modelwright.data.corpus import records
from modelwright.data.corpus.components import fate_path, plan_resolve
from modelwright.data.corpus.pairs import plan_gather, plan_pairs, plan_verify
from modelwright.data.corpus.sketch import Sketcher
from modelwright.data.corpus.unit import CORPUS, Facts, Unit, unit_folder

SETTINGS = {
    "seed": 1,
    "deduplicate": {"threshold": 0.8},
    "split": {"by": "group", "validation": 0.2, "test": 0.2},
}


def row(name: str, text: str | None, **more: Any) -> dict[str, Any]:
    return {
        "id": name, "source": "s", "groups": [], "parents": [], "modality": "text", "text": text,
        "media": None, "mime": None, "label": None, "license": None, "meta": {}, **more,
    }  # fmt: skip


def write_read(corpus: Path, units: Sequence[Sequence[dict]], settings: dict) -> list[str]:
    """What the stage read leaves of given rows."""
    names = [f"u{i:03d}" for i in range(len(units))]
    for name, rows in zip(names, units, strict=True):
        folder = unit_folder(corpus, "read", name)
        folder.mkdir(parents=True)
        sketcher = Sketcher(settings)
        with records.Writer(folder / records.RECORDS, records.RECORD) as writer:
            for one in rows:
                sketcher.add(one)
                writer.add(records.record_values(one), len(one["text"] or ""))
        sketcher.save(folder)
    return names


def run(corpus: Path, units: Sequence[Unit]) -> list[Facts]:
    found = []
    for unit in units:
        module, _, name = unit.work.partition(":")
        out = unit_folder(corpus, unit.stage, unit.name)
        out.mkdir(parents=True)
        work = getattr(importlib.import_module(module), name)
        found.append(work(unit.arguments | {CORPUS: str(corpus)}, out))
    return found


def candidates(corpus: Path, read: list[str], settings: dict, **more: Any) -> list[str]:
    """Run the stages pairs, gather and verify; the names of the units of pairs."""
    planned = plan_pairs(corpus, read, **more)
    run(corpus, planned)
    pairs = [unit.name for unit in planned]
    run(corpus, plan_gather(corpus, read, pairs))
    run(corpus, plan_verify(corpus, read, pairs, settings))
    return pairs


def deduplicated(
    corpus: Path, units: Sequence[Sequence[dict]], settings: dict = SETTINGS, **more: Any
) -> tuple[dict[str, dict], Facts]:
    """The fate of every row by its id, and the facts of resolve."""
    read = write_read(corpus, units, settings)
    pairs = candidates(corpus, read, settings, **more)
    (facts,) = run(corpus, plan_resolve(read, pairs, settings))
    fates = [f for unit in read for f in records.rows(fate_path(corpus, unit))]
    return {f["id"]: f for f in fates}, facts
