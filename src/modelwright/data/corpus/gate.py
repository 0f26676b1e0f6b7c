"""Proof that nothing crosses the split of a finished corpus.

The final rows are looked at afresh, as if nobody had deduplicated them, with other hash functions
than those that found the copies before: what one set of MinHash bands misses by chance, the other
most likely finds. The work is cut into units like that of a corpus, in a folder ``audit`` within
it that is removed when the answer is there: memory is bounded, every engine gives the same answer,
and a look that was killed is gone on with.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwright.data.corpus import ledger, records
from modelwright.data.corpus import pairs as stages
from modelwright.data.corpus.components import ids_of, linked
from modelwright.data.corpus.engine import Engine, run_units
from modelwright.data.corpus.marks import blake, blake_file, canonical, code_hash
from modelwright.data.corpus.mend import Pair
from modelwright.data.corpus.open import row_files
from modelwright.data.corpus.sketch import READ, SPLITS, Rows, Sketcher, load, save, starts, wanted
from modelwright.data.corpus.unit import CORPUS, Facts, Unit, unit_folder
from modelwright.errors import EXIT_NOT_HELD, CorruptError, ModelwrightError
from modelwright.files import replace_file

SCRATCH = "audit"  # the folder within the corpus while it is looked at
FOUND = "gate.json"  # what was found
JUDGE = "judge"
EXAMPLES = 20
LISTED = 1000  # copies of a kind that are named for ``mend``
_OTHER = 0x5EED  # added to the seed: other hash functions than those that deduplicated
_COLUMNS = ("id", "groups", "parents", "modality", "text", "media", "label", "meta", "split")


class SplitLeaksError(ModelwrightError):
    """Something is on two sides of a split; everything else about the corpus is in order."""

    exit_code = EXIT_NOT_HELD


@dataclass(frozen=True)
class Gate:
    """What was found on both sides of a split.

    Attributes:
        rows: rows of train, validation and test.
        exact: rows whose content equals that of a row on another side.
        near: pairs on two sides that are nearly the same: texts whose Jaccard similarity reaches
            ``threshold``, pictures that look alike.
        groups: group keys on more than one side.
        parents: rows with a child, or parents of several rows, on more than one side.
        threshold: Jaccard similarity from which texts are copies.
        given: whether the split was given; then a group may be torn, for somebody wanted it so.
        examples: some of what crosses: kind, two ids, their sides, similarity.
        copies: all copies that cross, up to 1,000 of a kind: two ids, and similarity if near.
    """

    rows: dict[str, int]
    exact: int
    near: int
    groups: int
    parents: int
    threshold: float
    given: bool
    examples: tuple[dict[str, Any], ...]
    copies: tuple[dict[str, Any], ...] = ()

    @property
    def holds(self) -> bool:
        """Whether nothing crosses that must not."""
        return not (self.exact or self.near or self.parents or (self.groups and not self.given))

    def to_dict(self) -> dict[str, Any]:
        """JSON values, for a report."""
        listed = {"examples": list(self.examples), "copies": list(self.copies)}
        return asdict(self) | {"holds": self.holds} | listed

    def further(self, known: Sequence[Pair]) -> list[Pair]:
        """The copies that cross and that ``resolve`` has not been told; none where it is no use."""
        if self.holds or self.parents or (self.groups and not self.given):
            return []
        found = [[*sorted(one["ids"]), one["similarity"]] for one in self.copies]
        return [pair for pair in found if pair not in known]

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Gate:
        """The gate that ``to_dict`` has written."""
        listed = {key: tuple(found[key]) for key in ("examples", "copies")}
        return cls(**{k: v for k, v in found.items() if k != "holds"} | listed)

    def line(self) -> str:
        """What was found, in one line."""
        checked = f"{sum(self.rows.values()):,} rows looked at with other hash functions"
        crossing = {
            "exact duplicates": self.exact,
            "near duplicates": self.near,
            "parents": self.parents,
            "groups": 0 if self.given else self.groups,
        }
        if self.holds:
            return f"{checked}, nothing crosses the split"
        said = ", ".join(f"{count:,} {kind}" for kind, count in crossing.items() if count)
        first = next(e for e in self.examples if not (self.given and e["kind"] == "group"))
        (one, two), (here, there) = first["ids"], first["splits"]
        return f"{checked}, across the split are {said}: {one} ({here}) and {two} ({there})"


@dataclass(frozen=True)
class Table:
    """A table of final rows (``records.FINAL``) and the hash of its content."""

    path: Path
    hash: str


def examine(
    folder: Path,
    settings: Mapping[str, Any],
    tables: Sequence[Table],
    *,
    engine: str | Engine = "inline",
    say: Callable[[str], None] = lambda _: None,
    changing: Callable[[], None] = lambda: None,
) -> Gate:
    """Look, unless the same tables were looked at already, and write ``gate.json``.

    Args:
        folder: the corpus.
        settings: see ``sketch.wanted``.
        tables: all of its final rows.
        engine: does the work.
        say: where progress goes.
        changing: called before anything is done, and not when all is known already.

    Returns:
        What was found; whether it ``holds`` is for the caller to say. The folder ``audit`` stays,
        so that what has not changed need not be looked at again: see ``let_through``.

    Raises:
        CorruptError: a table is damaged.
    """
    seen = [code_hash(__name__), dict(settings), [table.hash for table in tables]]
    mark, path = blake(canonical(seen)), folder / FOUND
    found = _stored(path, mark)
    if found is None:
        changing()
        path.unlink(missing_ok=True)
        started = time.perf_counter()
        found = _look(folder, settings, tables, engine, say)
        ledger.write_timing(folder, "gate", "all", {"seconds": time.perf_counter() - started})
        content = json.dumps({"mark": mark} | found.to_dict(), indent=1) + "\n"
        replace_file(path, content.encode())
    say(f"gate: {found.line()}")
    return found


def let_through(folder: Path, found: Gate) -> None:
    """End a look: remove its folder, and go on only if nothing crosses.

    Raises:
        SplitLeaksError: something crosses; ``gate.json`` says what.
    """
    shutil.rmtree(folder / SCRATCH, ignore_errors=True)
    if not found.holds:
        raise SplitLeaksError(
            f"gate: {found.line()}; see {folder / FOUND}; add `deduplicate`, or have another split,"
            " and run again"
        )


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
    paths = list(row_files(folder) if files is None else files)
    shutil.rmtree(folder / SCRATCH, ignore_errors=True)
    try:
        tables = [Table(path, blake_file(path)) for path in paths]
        return _look(folder, settings, tables, "inline", say)
    finally:
        shutil.rmtree(folder / SCRATCH, ignore_errors=True)


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "spec.json"
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CorruptError(
            f"{path}: missing or damaged; run `modelwright data run` again"
        ) from error
    return found


def _stored(path: Path, mark: str) -> Gate | None:
    """What was found before, if it was in the same tables."""
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        return Gate.of(found) if found.pop("mark") == mark else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _look(
    folder: Path,
    settings: Mapping[str, Any],
    tables: Sequence[Table],
    engine: str | Engine,
    say: Callable[[str], None],
) -> Gate:
    """Do the units; what is done already, before a kill, is kept."""
    of = wanted(settings)
    same = {"threshold": of.threshold, "images": of.images}
    afresh = {"seed": of.seed + _OTHER, "deduplicate": same}
    scratch = folder.resolve() / SCRATCH
    scratch.mkdir(exist_ok=True)
    ledger.clear_attempts(scratch)
    names = [f"{i:06d}" for i in range(len(tables))]

    def do(units: Sequence[Unit]) -> list[str]:
        run_units(units, scratch, engine, say=lambda line: say(f"gate: {line}"))
        return [unit.name for unit in units]

    do(
        [
            Unit(
                READ,
                name,
                f"{__name__}:look",
                {"hash": table.hash, "settings": afresh},
                aside={"path": str(table.path.resolve())},
                bytes=table.path.stat().st_size,
            )
            for name, table in zip(names, tables, strict=True)
        ]
    )
    pair_units = do(stages.plan_pairs(scratch, names))
    do(stages.plan_gather(scratch, names, pair_units))
    do(stages.plan_verify(scratch, names, pair_units, afresh))
    reads = [f"{READ}/{n}" for n in names] + [f"{stages.PAIRS}/{n}" for n in pair_units]
    reads += [f"{stages.VERIFY}/{n}" for n in names]
    given = {"read": names, "pairs": pair_units, "settings": dict(settings)}
    (last,) = do([Unit(JUDGE, "all", f"{__name__}:judge", given, tuple(reads))])
    return Gate.of(ledger.committed(scratch, f"{JUDGE}/{last}").facts)


def look(arguments: dict[str, Any], out: Path) -> Facts:
    """Sketch a table of final rows as if it were a read unit, and keep the side of every row.

    Args:
        arguments: ``settings`` of ``Sketcher``; aside: ``path``, the table.
        out: the folder to write into; the table is linked there.

    Raises:
        CorruptError: a row is in no part of the split, or the table is damaged.
    """
    table = Path(arguments["path"])
    (out / records.RECORDS).symlink_to(table)
    sketcher, sides = Sketcher(arguments["settings"]), bytearray()
    for row in records.rows(table, _COLUMNS):
        if row["split"] not in SPLITS:
            raise CorruptError(
                f"{table}: row {row['id']!r} is in split {row['split']!r}; run again"
            )
        sides.append(SPLITS.index(row["split"]))
        sketcher.add(row)
    facts = sketcher.save(out)
    save(out, "side", np.frombuffer(bytes(sides), np.uint8))
    return facts


def judge(arguments: dict[str, Any], _out: Path) -> Facts:
    """Count what is on two sides, from the units before; ``Gate.to_dict``."""
    scratch, units = Path(arguments[CORPUS]), list(arguments["read"])
    of = wanted(arguments["settings"])

    def joined(stage: str, of: Iterable[str], name: str, empty: NDArray[Any]) -> NDArray[Any]:
        found = [np.array(load(unit_folder(scratch, stage, unit), name)) for unit in of]
        return np.concatenate([empty, *found])

    side = joined(READ, units, "side", np.empty(0, np.uint8))
    shown: dict[str, list[tuple[list[int], float | None]]] = {}
    counts: dict[str, int] = {}
    none = np.empty((0, 2), np.int64)
    exact = _crossing(joined(stages.PAIRS, arguments["pairs"], "exact", none), side)
    counts["exact"], shown["exact duplicate"] = len(exact), [(p, None) for p in _first(exact)]
    near = joined(stages.VERIFY, units, "near", none)
    likeness = joined(stages.VERIFY, units, "similarity", np.empty(0))
    torn = side[near[:, 0]] != side[near[:, 1]]
    near, likeness = near[torn], likeness[torn]
    counts["near"] = len(near)
    alike = [round(s, 4) for s in likeness[:EXAMPLES].tolist()]
    shown["near duplicate"] = list(zip(_first(near), alike, strict=True))
    crossing: list[tuple[list[int], float | None]] = [(p, None) for p in exact[:LISTED].tolist()]
    crossing += zip(near[:LISTED].tolist(), likeness[:LISTED].tolist(), strict=True)
    first = starts(scratch, units)
    links, owners = linked(scratch, units, first)
    torn = (links[1:] == links[:-1]) & (side[owners[1:]] != side[owners[:-1]])
    chain = np.stack([owners[:-1][torn], owners[1:][torn]], axis=1)
    of_row = (links[1:][torn] & np.uint64(1)).astype(bool)
    for name, kind, here in (("groups", "group", ~of_row), ("parents", "parent", of_row)):
        counts[name] = len(np.unique(links[1:][torn][here]))
        shown[kind] = [(p, None) for p in _first(chain[here])]
    places = [p for pairs in (*shown.values(), crossing) for p, _ in pairs]
    ids = ids_of(scratch, units, first, np.unique(np.array(places, np.int64)))
    examples = tuple(
        {
            "kind": kind,
            "ids": [ids[i] for i in pair],
            "splits": [SPLITS[side[i]] for i in pair],
            "similarity": alike_,
        }
        for kind, pairs in shown.items()
        for pair, alike_ in pairs
    )
    copies = tuple({"ids": [ids[i] for i in p], "similarity": s} for p, s in crossing)
    rows = dict(zip(SPLITS, np.bincount(side, minlength=len(SPLITS)).tolist(), strict=True))
    gate = Gate(
        rows,
        threshold=of.threshold,
        given=of.by == "given",
        examples=examples,
        copies=copies,
        **counts,
    )
    return gate.to_dict()


def _first(pairs: Rows) -> list[list[int]]:
    found: list[list[int]] = pairs[:EXAMPLES].tolist()
    return found


def _crossing(pairs: Rows, side: NDArray[np.uint8]) -> Rows:
    crossing: Rows = pairs[side[pairs[:, 0]] != side[pairs[:, 1]]]
    return crossing
