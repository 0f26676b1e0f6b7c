"""What a run would do: stages, units, what is there already, and the disk it needs."""

from __future__ import annotations

from pathlib import Path

from modelwright.data.corpus import freeze
from modelwright.data.corpus import lines as line_stage
from modelwright.data.corpus.build import STAGES, settings_of, sketch_settings
from modelwright.data.corpus.engine import Say, finished, marks_of
from modelwright.data.corpus.spec import CorpusSpec
from modelwright.data.corpus.why import finished_units
from modelwright.files import free_bytes

PACKED = (".gz", ".bz2", ".xz", ".zst", ".tgz", ".txz")
UNPACKED = 5.0  # times as much text as a packed file of it, about
STORED = 1.4  # bytes on disk for each byte of text: records, final rows, sketches, the gate


def plan(spec: CorpusSpec, folder: Path, say: Say = print) -> list[str]:
    """Lines about what ``build`` would do; only sources that lie elsewhere are fetched.

    Only of the first stage it is known which units are to be done, because later ones depend on
    what the first writes; of those it is told how many are there.
    """
    found = freeze.freeze(spec, folder, say)
    read = freeze.plan_read(spec, found, sketch_settings(settings_of(spec)))
    first, counted = line_stage.plan_lines(read), True
    if first:
        counted = bool(finished_units(folder, line_stage.REPEATED))
        read = line_stage.told(read)
    done = finished(read, folder, marks_of(read, folder)) if counted else {}
    lines = [f"corpus {spec.name} in {folder}"]
    for name in spec.source_names():
        mine = [one for one in found if one.source == name]
        size = sum(one.size for one in mine)
        units = sum(len(one.ranges) for one in mine)
        readers = ", ".join(sorted({one.reader["name"] for one in mine}))
        lines.append(
            f"source {name}: {len(mine):,} inputs, {size / 1e6:,.1f} MB, read as {readers},"
            f" {units:,} units"
        )
    left = len(read) - len(done)
    if first:
        lines.append(f"lines: {len(first):,} units, counted before read")
    lines.append(f"read: {len(read):,} units, {len(done):,} done, {left:,} to do")
    for stage in _stages(spec):
        there = len(finished_units(folder, stage))
        state = "kept where what it reads is the same" if there else "to do"
        lines.append(f"{stage}: {there:,} units done, {state}" if there else f"{stage}: {state}")
    new = sum(unit.bytes for unit in read if unit.name not in done)
    need = sum(
        unit.bytes * (UNPACKED if unit.aside["path"].lower().endswith(PACKED) else 1.0) * STORED
        for unit in read
        if unit.name not in done
    )
    free = free_bytes(_existing(folder))
    lines.append(
        f"to read: {new / 1e6:,.1f} MB; disk needed: about {need / 1e6:,.0f} MB of"
        f" {free / 1e6:,.0f} MB free"
    )
    return lines


def _stages(spec: CorpusSpec) -> list[str]:
    """The stages after read that the description asks for."""
    without = {line_stage.LINES, line_stage.REPEATED, "read"}  # told before
    if not spec.augment:
        without |= {"augment"}
    if spec.tokenizer is None:
        without |= {"tokenizer", "tokens"}
    return [stage for stage in STAGES if stage not in without]


def _existing(folder: Path) -> Path:
    folder = folder.resolve()
    while not folder.exists():
        folder = folder.parent
    return folder
