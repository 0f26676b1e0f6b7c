"""Proof that nothing crosses the split of a finished corpus.

The final rows are looked at afresh, as if nobody had deduplicated them, with other hash functions
than those that found the copies before: what one set of MinHash bands misses by chance, the other
most likely finds. Memory is bounded as in the stages ``pairs`` to ``verify``, whose units are run
here one after the other in a folder that is removed again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwright.data.corpus import pairs as stages
from modelwright.data.corpus import records
from modelwright.data.corpus.components import ids_of, linked
from modelwright.data.corpus.open import row_files
from modelwright.data.corpus.sketch import (
    READ,
    SPLITS,
    Rows,
    Sketcher,
    Wanted,
    load,
    starts,
    wanted,
)
from modelwright.data.corpus.unit import CORPUS, Unit, unit_folder
from modelwright.errors import CorruptError

SCRATCH = "audit"  # the folder within the corpus while it is looked at
EXAMPLES = 20
_OTHER = 0x5EED  # added to the seed: other hash functions than those that deduplicated
_COLUMNS = ("id", "groups", "parents", "modality", "text", "media", "label", "meta", "split")


@dataclass(frozen=True)
class Gate:
    """What was found on both sides of a split.

    Attributes:
        rows: rows of train, validation and test.
        exact: rows whose content equals that of a row on another side.
        near: pairs of texts on two sides whose Jaccard similarity reaches ``threshold``.
        groups: group keys on more than one side.
        parents: rows with a child, or parents of several rows, on more than one side.
        threshold: Jaccard similarity from which texts are copies.
        given: whether the split was given; then a group may be torn, for somebody wanted it so.
        examples: some of what crosses: kind, two ids, their sides, similarity.
    """

    rows: dict[str, int]
    exact: int
    near: int
    groups: int
    parents: int
    threshold: float
    given: bool
    examples: tuple[dict[str, Any], ...]

    @property
    def holds(self) -> bool:
        """Whether nothing crosses that must not."""
        return not (self.exact or self.near or self.parents or (self.groups and not self.given))

    def to_dict(self) -> dict[str, Any]:
        """JSON values, for a report."""
        return asdict(self) | {"holds": self.holds, "examples": list(self.examples)}


def audit(
    folder: Path,
    settings: Mapping[str, Any] | None = None,
    files: Sequence[Path] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Gate:
    """Look for copies, groups and parents on more than one side of the split.

    Args:
        folder: the corpus; a folder ``audit`` within it is used and removed.
        settings: see ``sketch.wanted``; left out: those of the corpus.
        files: tables of its final rows (``records.FINAL``); left out: all of a finished corpus.
        say: where progress goes.

    Raises:
        ModelwrightError: the corpus is not finished.
        CorruptError: one of its files is damaged.
    """
    if settings is None:
        settings = _settings(folder)
    of = wanted(settings)
    afresh = {"seed": of.seed + _OTHER, "deduplicate": {"threshold": of.threshold}}
    with _scratch(folder) as scratch:
        tables = list(row_files(folder) if files is None else files)
        units = [f"{i:06d}" for i in range(len(tables))]
        sides = []
        for unit, table in zip(units, tables, strict=True):
            say(f"audit: {table.parent.name}")
            sides.append(_sketch(scratch, unit, table, afresh))
        side = np.concatenate([np.empty(0, np.uint8), *sides])
        found = _copies(scratch, units, afresh)
        return _judge(scratch, units, side, found, of)


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "spec.json"
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CorruptError(
            f"{path}: missing or damaged; run `modelwright data run` again"
        ) from error
    return found


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """An empty folder that is gone afterwards; one that a killed audit left is removed first."""
    scratch = folder / SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        yield scratch.absolute()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _sketch(
    scratch: Path, unit: str, table: Path, settings: Mapping[str, Any]
) -> NDArray[np.uint8]:
    """Sketch a table of final rows as if it were a read unit; the side of every row."""
    out = unit_folder(scratch, READ, unit)
    out.mkdir(parents=True)
    (out / records.RECORDS).symlink_to(table.absolute())
    sketcher, sides = Sketcher(settings), bytearray()
    for row in records.rows(table, _COLUMNS):
        if row["split"] not in SPLITS:
            raise CorruptError(
                f"{table}: row {row['id']!r} is in split {row['split']!r}; run again"
            )
        sides.append(SPLITS.index(row["split"]))
        sketcher.add(row)
    sketcher.save(out)
    return np.frombuffer(bytes(sides), np.uint8)


@dataclass(frozen=True, eq=False)
class _Found:
    exact: Rows  # (n, 2)
    near: Rows  # (m, 2)
    similarity: NDArray[np.float64]  # (m,)


def _copies(scratch: Path, units: Sequence[str], settings: Mapping[str, Any]) -> _Found:
    """All copies among the sketched rows, by the units of the stages ``pairs`` to ``verify``."""
    planned = stages.plan_pairs(scratch, units)
    _run(scratch, planned, stages.pairs)
    names = [unit.name for unit in planned]
    _run(scratch, stages.plan_gather(scratch, units, names), stages.gather)
    _run(scratch, stages.plan_verify(scratch, units, names, settings), stages.verify)

    def joined(stage: str, of: Iterable[str], name: str, empty: NDArray[Any]) -> NDArray[Any]:
        found = [np.array(load(unit_folder(scratch, stage, unit), name)) for unit in of]
        return np.concatenate([empty, *found])

    none = np.empty((0, 2), np.int64)
    return _Found(
        joined(stages.PAIRS, names, "exact", none),
        joined(stages.VERIFY, units, "near", none),
        joined(stages.VERIFY, units, "similarity", np.empty(0)),
    )


def _run(scratch: Path, units: Sequence[Unit], work: Callable[[dict[str, Any], Path], Any]) -> None:
    for unit in units:
        out = unit_folder(scratch, unit.stage, unit.name)
        out.mkdir(parents=True)
        work(unit.arguments | {CORPUS: str(scratch)}, out)


def _judge(
    scratch: Path, units: Sequence[str], side: NDArray[np.uint8], found: _Found, of: Wanted
) -> Gate:
    first = starts(scratch, units)
    links, owners = linked(scratch, units, first)
    torn = (links[1:] == links[:-1]) & (side[owners[1:]] != side[owners[:-1]])
    chain = np.stack([owners[:-1][torn], owners[1:][torn]], axis=1)
    of_row = (links[1:][torn] & np.uint64(1)).astype(bool)
    crossing = {
        "exact duplicate": _crossing(found.exact, side),
        "near duplicate": _crossing(found.near, side),
        "group": chain[~of_row],
        "parent": chain[of_row],
    }
    likeness = found.similarity[side[found.near[:, 0]] != side[found.near[:, 1]]]
    shown = {kind: pairs[:EXAMPLES] for kind, pairs in crossing.items()}
    ids = ids_of(scratch, units, first, np.unique(np.concatenate(list(shown.values()))))
    examples = [
        {
            "kind": kind,
            "ids": [ids[i] for i in pair],
            "splits": [SPLITS[side[i]] for i in pair],
            "similarity": round(float(likeness[n]), 4) if kind == "near duplicate" else None,
        }
        for kind, pairs in shown.items()
        for n, pair in enumerate(pairs.tolist())
    ]
    counts = np.bincount(side, minlength=len(SPLITS)).tolist()
    return Gate(
        dict(zip(SPLITS, counts, strict=True)),
        len(crossing["exact duplicate"]),
        len(crossing["near duplicate"]),
        len(np.unique(links[1:][torn][~of_row])),
        len(np.unique(links[1:][torn][of_row])),
        of.threshold,
        of.by == "given",
        tuple(examples),
    )


def _crossing(pairs: Rows, side: NDArray[np.uint8]) -> Rows:
    crossing: Rows = pairs[side[pairs[:, 0]] != side[pairs[:, 1]]]
    return crossing
