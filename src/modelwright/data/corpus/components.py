"""What leaves as a copy, and what must stay together in a split.

A row leaves only for being a duplicate of a row that stays: likeness is not transitive, so chains
are never followed. The split goes the other way round: whatever is connected by group keys,
parents or verified near-duplicates, through any number of rows, is one component and stays on one
side. A component goes by a hash of its earliest row's id, so data that are added later leave
everything else where it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwright.data.corpus import records
from modelwright.data.corpus.mend import Pair, placed
from modelwright.data.corpus.pairs import PAIRS, VERIFY
from modelwright.data.corpus.sides import assign
from modelwright.data.corpus.sketch import (
    READ,
    SPLITS,
    Rows,
    Wanted,
    load,
    sketch_of,
    starts,
    wanted,
)
from modelwright.data.corpus.unit import CORPUS, Facts, Unit, unit_folder
from modelwright.errors import ModelwrightError
from modelwright.kernels.shingles import Hashes

RESOLVE, ALL = "resolve", "all"
EXACT, NEAR_COPY = "exact duplicate", "near duplicate"
LOST = 0.5  # share of a source that may leave as copies without an alarm
LARGE_CLUSTER = 0.001  # share of all rows that copies of one row may be without an alarm
LARGE_COMPONENT = 0.01  # share of all rows above which a component is reported,
FEW = 10  # if it has more rows than these
SHOWN = 20  # largest clusters and components named in the facts
_SAMPLES = 5
_LOOKED_UP = 1000  # rows whose ids are read at a time
FATE: Mapping[str, str] = {
    "id": "string",
    "kept": "bool",
    "reason": "string",  # of leaving; null where kept
    "kept_id": "string",  # the row it is a copy of
    "similarity": "float64",  # Jaccard similarity to it; of pictures the correlation
    "component": "string",  # 16 hex digits
    "split": "string",  # train, validation or test; null where not kept
}


def plan_resolve(
    read_units: Sequence[str],
    pair_units: Sequence[str],
    settings: Mapping[str, Any],
    missed: Sequence[Pair] = (),
) -> list[Unit]:
    """The one unit of the stage ``resolve``; the stages pairs and verify must be done.

    Args:
        read_units: names of the units of read, in their order.
        pair_units: names of the units of pairs.
        settings: see ``sketch.wanted``.
        missed: copies that those stages have missed, see ``mend``.
    """
    arguments: dict[str, Any] = {"read": list(read_units), "pairs": list(pair_units)}
    arguments |= {"settings": dict(settings), "missed": list(missed)}
    names = ("sketch-exact", "sketch-ids", "sketch-links", "sketch-link_rows", "sketch-sides")
    reads = [f"{READ}/{unit}:{name}.npy" for unit in read_units for name in names]
    reads += [f"{READ}/{unit}:{records.RECORDS}" for unit in read_units]
    reads += [f"{PAIRS}/{unit}:sketch-exact.npy" for unit in pair_units]
    reads += [f"{VERIFY}/{unit}" for unit in read_units]
    return [Unit(RESOLVE, ALL, f"{__name__}:resolve", arguments, tuple(reads))]


def fate_path(corpus: Path, read_unit: str) -> Path:
    """The table of what becomes of the rows of a read unit, in their order."""
    return unit_folder(corpus, RESOLVE, ALL) / f"{read_unit}.parquet"


def resolve(arguments: dict[str, Any], out: Path) -> Facts:
    """Decide what leaves and what is on which side; write ``UNIT.parquet`` a read unit.

    Raises:
        ModelwrightError: two rows have the same id.
    """
    corpus, read_units = Path(arguments[CORPUS]), arguments["read"]
    settings = wanted(arguments["settings"])
    first = starts(corpus, read_units)
    rows = int(first[-1])
    names = _joined(corpus, read_units, "ids")
    _check_ids(corpus, read_units, first, names)
    exact = _all_pairs(corpus, PAIRS, arguments["pairs"], "exact", 2)
    near = _all_pairs(corpus, VERIFY, read_units, "near", 2)
    similarity = _all_pairs(corpus, VERIFY, read_units, "similarity", 0)
    sides = _joined(corpus, read_units, "sides")
    more, likeness, together = placed(arguments["missed"], names)
    near, similarity = np.concatenate([near, more]), np.concatenate([similarity, likeness])
    # What is given as held out is what others publish results on: its copies in train leave.
    found = copies(exact, near, similarity, sides if settings.by == "given" else None)
    links, owners = linked(corpus, read_units, first)
    same = links[1:] == links[:-1]
    chained = np.stack([owners[:-1][same], owners[1:][same]], axis=1)
    roots = components(rows, np.concatenate([exact, near, chained, together]))
    split = assign(settings, roots, names[roots], sides)
    dropped = np.zeros(rows, bool)
    if settings.drop:
        dropped[found.rows[found.leaves]] = True
    facts = _counts(settings, roots, split, dropped) | _clusters(found)
    told = [[c["earliest"]] for c in facts["large_components"]]
    told += [[c["kept"], *c["samples"]] for c in facts["clusters"]]
    places = np.unique(np.concatenate([found.keeper, *(np.array(t, np.int64) for t in told)]))
    ids = ids_of(corpus, read_units, first, places)
    for component in facts["large_components"]:
        component["earliest"] = ids[component["earliest"]]
    for cluster in facts["clusters"]:
        cluster["kept"] = ids[cluster["kept"]]
        cluster["samples"] = [ids[i] for i in cluster["samples"]]
    decided = _Decided(found, dropped, names[roots], split, ids)
    facts["sources"] = {}
    for unit, start in zip(read_units, first.tolist(), strict=False):
        _write(out / f"{unit}.parquet", _records(corpus, unit), start, decided, facts["sources"])
    facts["alarms"] = _alarms(settings, facts)
    return facts


@dataclass(frozen=True, eq=False)
class Copies:
    """The rows that are a copy of another or have one, ascending; nothing is said of the others.

    Attributes:
        rows: (n,), positions.
        keeper: (n,), the row that each is a copy of; itself where it stays.
        similarity: (n,), Jaccard similarity to it; of pictures the correlation.
        equal: (n,), whether the content is equal, not only near.
    """

    rows: Rows
    keeper: Rows
    similarity: NDArray[np.float64]
    equal: NDArray[np.bool_]

    @property
    def leaves(self) -> NDArray[np.bool_]:
        """(n,), whether the row is a copy of another."""
        left: NDArray[np.bool_] = self.keeper != self.rows
        return left


@dataclass(frozen=True, eq=False)
class _Decided:
    """Everything about the rows of a corpus: ``dropped``, ``names``, ``split`` have one each."""

    copies: Copies
    dropped: NDArray[np.bool_]
    names: Hashes
    split: NDArray[np.uint8]
    ids: Mapping[int, str]


def copies(
    exact: NDArray[np.int64],
    near: NDArray[np.int64],
    similarity: NDArray[np.float64],
    priority: NDArray[np.uint8] | None = None,
) -> Copies:
    """Decide which rows are copies of which row that stays.

    Args:
        exact: (n, 2), the earliest row of a content and another of the same content.
        near: (m, 2), earliest rows of two contents that are alike.
        similarity: (m,), of ``near``.
        priority: of every row of the corpus: the higher stays, among equals the earlier. None:
            the earlier stays.
    """
    rows = np.unique(np.concatenate([exact.reshape(-1), near.reshape(-1)]))
    content = np.arange(len(rows))
    content[np.searchsorted(rows, exact[:, 1])] = np.searchsorted(rows, exact[:, 0])
    at_rank = np.arange(len(rows))
    if priority is not None:
        at_rank = np.lexsort((rows, -priority[rows].astype(np.int64)))
    rank = np.empty(len(rows), np.int64)
    rank[at_rank] = np.arange(len(rows))
    best = np.full(len(rows), len(rows))
    np.minimum.at(best, content, rank)
    canonical = at_rank[best[content]]  # the row that stands for the content
    ends = rank[canonical[np.searchsorted(rows, near)]]
    early, late = ends.min(axis=1, initial=len(rows)), ends.max(axis=1, initial=-1)
    gone = bytearray(len(rows))
    keeper, likeness = canonical.copy(), np.ones(len(rows))
    turn = np.lexsort((early, late))
    # In order: whether the earlier row stays is settled before a later one asks.
    for at, u, v in zip(turn.tolist(), early[turn].tolist(), late[turn].tolist(), strict=True):
        if not gone[v] and not gone[u]:
            gone[v] = 1
            keeper[at_rank[v]] = at_rank[u]
            likeness[at_rank[v]] = similarity[at]
    # The other rows of a content that leaves go with it, for the same row.
    keeper, likeness = keeper[canonical], likeness[canonical]
    return Copies(rows, rows[keeper], likeness, keeper == canonical)


def components(rows: int, edges: NDArray[np.int64]) -> Rows:
    """The earliest row of each row's connected component: union by minimum, in rounds."""
    root = np.arange(rows)
    a, b = edges[:, 0], edges[:, 1]
    while len(a):
        x, y = root[a], root[b]
        low, high = np.minimum(x, y), np.maximum(x, y)
        open_ = low != high
        a, b, low, high = a[open_], b[open_], low[open_], high[open_]
        np.minimum.at(root, high, low)
        while True:  # every row points at its root
            higher = root[root]
            if (higher == root).all():
                break
            root = higher
    return root


def linked(corpus: Path, read_units: Sequence[str], first: Rows) -> tuple[Hashes, Rows]:
    """Links in ascending order and the row of each: rows with one link belong together.

    The links of a row are its group keys (even), its parents, and itself where it is one (odd).
    """
    links = _joined(corpus, read_units, "links")
    owners = [np.empty(0, np.int64)]
    for unit, start in zip(read_units, first.tolist(), strict=False):
        owners.append(sketch_of(corpus, unit, "link_rows").astype(np.int64) + start)
    parents = np.unique(links[(links & np.uint64(1)) == 1])
    ids = _joined(corpus, read_units, "ids") | np.uint64(1)
    if len(parents):
        at = np.searchsorted(parents, ids).clip(max=len(parents) - 1)
        own = np.flatnonzero(parents[at] == ids)
        links = np.concatenate([links, ids[own]])
        owners.append(own)
    order = np.argsort(links, kind="stable")
    return links[order], np.concatenate(owners)[order]


def _check_ids(corpus: Path, read_units: Sequence[str], first: Rows, names: Hashes) -> None:
    """No two rows of the corpus may have the same id; each unit knows that of its own rows.

    ``names`` are 64-bit hashes of ids, so of ten million rows two may share one by chance, once
    in some hundred thousand corpora: the ids themselves decide.
    """
    order = np.argsort(names, kind="stable")
    equal = names[order[1:]] == names[order[:-1]]
    shared = np.zeros(len(names), bool)
    shared[1:] |= equal
    shared[:-1] |= equal
    suspects = order[shared]
    last, seen = -1, dict[str, int]()
    for begin in range(0, len(suspects), _LOOKED_UP):
        rows = suspects[begin : begin + _LOOKED_UP]
        ids = ids_of(corpus, read_units, first, np.sort(rows))
        for row, name in zip(rows.tolist(), names[rows].tolist(), strict=True):
            if name != last:
                last, seen = name, {}
            if ids[row] in seen:
                places = np.searchsorted(first, [seen[ids[row]], row], "right") - 1
                units = " and ".join(read_units[i] for i in places.tolist())
                raise ModelwrightError(
                    f"two rows have the id {ids[row]!r} (units {units} of read); make the ids of"
                    " the source unique"
                )
            seen[ids[row]] = row


def _counts(
    settings: Wanted, roots: Rows, split: NDArray[np.uint8], dropped: NDArray[np.bool_]
) -> Facts:
    rows = len(roots)
    sizes = np.bincount(roots, minlength=rows)
    large = np.flatnonzero(sizes > max(FEW, LARGE_COMPONENT * rows))
    large = large[np.argsort(-sizes[large], kind="stable")][:SHOWN]
    kept = np.bincount(split[~dropped], minlength=len(SPLITS)).tolist()
    return {
        "rows": rows,
        "kept": rows - int(dropped.sum()),
        "dropped": settings.drop,
        "splits": dict(zip(SPLITS, kept, strict=True)),
        "components": int((sizes > 0).sum()),
        "large_components": [
            {"rows": int(sizes[i]), "split": SPLITS[split[i]], "earliest": i}
            for i in large.tolist()
        ],
    }


def _clusters(found: Copies) -> Facts:
    """Sizes of the clusters of copies: a row that stays and those that are copies of it."""
    order = np.argsort(found.keeper, kind="stable")
    kept, begin, sizes = np.unique(found.keeper[order], return_index=True, return_counts=True)
    begin, kept, sizes = begin[sizes > 1], kept[sizes > 1], sizes[sizes > 1]
    shown = np.minimum(sizes, _SAMPLES)
    spread = Counter(s.bit_length() for s in sizes.tolist())
    return {
        "exact": int((found.leaves & found.equal).sum()),
        "near": int((found.leaves & ~found.equal).sum()),
        "cluster_sizes": {f"{1 << k - 1}-{(1 << k) - 1}": n for k, n in sorted(spread.items())},
        "clusters": [
            {
                "rows": int(sizes[i]),
                "kept": int(kept[i]),
                "samples": found.rows[order[begin[i] : begin[i] + shown[i]]].tolist(),
            }
            for i in np.argsort(-sizes, kind="stable")[:SHOWN].tolist()
        ],
    }


def _alarms(settings: Wanted, facts: Facts) -> list[str]:
    """What a person should look at before using the corpus, a line each."""
    alarms = [
        f"source {name}: {counts['lost']} of {counts['rows']} rows leave as duplicates"
        for name, counts in facts["sources"].items()
        if counts["lost"] > LOST * counts["rows"]
    ]
    alarms += [
        f"{cluster['rows']} rows are copies of {cluster['kept']}"
        for cluster in facts["clusters"]
        if cluster["rows"] > max(2, LARGE_CLUSTER * facts["rows"])
    ]
    alarms += [
        f"{c['rows']} rows from {c['earliest']} on are one component, all in {c['split']}"
        for c in facts["large_components"]
    ]
    shares = {"train": 1.0, "validation": settings.validation, "test": settings.test}
    if settings.folds is not None:
        shares["test"] = 1.0
    alarms += [
        f"split: {name} is empty; there are {facts['components']} components"
        for name, number in facts["splits"].items()
        if facts["rows"] and not number and shares[name] > 0
    ]
    return alarms


def ids_of(corpus: Path, read_units: Sequence[str], first: Rows, places: Rows) -> dict[int, str]:
    """The ids of the rows at ``places``, which are ascending."""
    ids: dict[int, str] = {}
    for i, unit in enumerate(read_units):
        begin, end = first[i], first[i + 1]
        if np.searchsorted(places, begin) == np.searchsorted(places, end):
            continue
        for table in records.groups(_records(corpus, unit), ("id",)):
            low, high = np.searchsorted(places, [begin, begin + len(table)])
            here = places[low:high]
            found = table.column(0).take(here - begin).to_pylist()
            ids.update(zip(here.tolist(), found, strict=True))
            begin += len(table)
    return ids


def _write(
    path: Path, read: Path, start: int, decided: _Decided, sources: dict[str, dict[str, int]]
) -> None:
    """Write the fate of the rows of ``read``, and count them by source."""
    pa, found = records.arrow(), decided.copies
    with records.Writer(path, FATE) as writer:
        for table in records.groups(read, ("id", "source")):
            rows = np.arange(start, start + len(table))
            start += len(table)
            gone = decided.dropped[rows]
            at = np.searchsorted(found.rows, rows).clip(max=max(0, len(found.rows) - 1))
            kept: list[str | None] = [None] * len(rows)
            reason, likeness = kept.copy(), np.zeros(len(rows))
            for i in np.flatnonzero(gone).tolist():
                kept[i] = decided.ids[int(found.keeper[at[i]])]
                reason[i] = EXACT if found.equal[at[i]] else NEAR_COPY
                likeness[i] = found.similarity[at[i]]
            side = np.array(SPLITS)[decided.split[rows]]
            columns = [
                table.column(0),
                pa.array(~gone),
                pa.array(reason, pa.string()),
                pa.array(kept, pa.string()),
                pa.array(likeness, pa.float64(), mask=~gone),
                pa.array([f"{name:016x}" for name in decided.names[rows].tolist()], pa.string()),
                pa.array(side.tolist(), pa.string(), mask=gone),
            ]
            writer.write_table(pa.table(columns, schema=records.schema(FATE)))
            for source, lost in zip(table.column(1).to_pylist(), gone.tolist(), strict=True):
                counts = sources.setdefault(source, {"rows": 0, "lost": 0})
                counts["rows"] += 1
                counts["lost"] += lost


def _records(corpus: Path, unit: str) -> Path:
    return unit_folder(corpus, READ, unit) / records.RECORDS


def _joined(corpus: Path, read_units: Sequence[str], name: str) -> NDArray[Any]:
    """An array of all sketches, one behind the other."""
    found = [np.array(sketch_of(corpus, unit, name)) for unit in read_units]
    return np.concatenate(found) if found else np.empty(0, np.uint64)


def _all_pairs(
    corpus: Path, stage: str, units: Sequence[str], name: str, width: int
) -> NDArray[Any]:
    empty: NDArray[Any] = np.empty((0, width), np.int64) if width else np.empty(0, np.float64)
    found = [np.array(load(unit_folder(corpus, stage, unit), name)) for unit in units]
    return np.concatenate([empty, *found])
