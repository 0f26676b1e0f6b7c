"""Does anything cross the split of a finished corpus? Asked of what is on the disk, afterwards.

The split puts what belongs together on one side; this looks at the result without its help: every
pair of equal rows, every verified near-duplicate pair, every group key and parent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwright.data.corpus import records
from modelwright.data.corpus.components import fate_path
from modelwright.data.corpus.sketch import SPLITS, load, sketch_of
from modelwright.data.corpus.unit import unit_folder
from modelwright.errors import CorruptError

Codes = NDArray[np.uint8]  # a row's part of the split from 1; 0 where it has left


def audit(folder: Path, stages: Mapping[str, Any]) -> dict[str, int]:
    """Count what crosses, and what was looked at.

    Args:
        folder: the corpus.
        stages: stage -> names of its units, those of read in the order of the corpus.

    Returns:
        "... that cross" and "... checked" -> count; empty where a stage is missing or damaged.
    """
    read = list(stages.get("read", ()))
    if not read or not stages.get("resolve"):
        return {}
    try:
        codes = [_codes(fate_path(folder, unit)) for unit in read]
        split = np.concatenate(codes)
        equal = [load(unit_folder(folder, "pairs", u), "exact") for u in stages.get("pairs", ())]
        near = [load(unit_folder(folder, "verify", u), "near") for u in stages.get("verify", ())]
        links = [sketch_of(folder, unit, "links") for unit in read]
        owners = _owners(folder, read, [len(c) for c in codes])
    except (CorruptError, KeyError):
        return {}
    found = {}
    for name, pairs in (("exact copies", equal), ("verified near copies", near)):
        both = [p[(split[p[:, 0]] > 0) & (split[p[:, 1]] > 0)] for p in map(np.asarray, pairs)]
        found[f"pairs of {name} that stay, checked"] = sum(map(len, both))
        crossing = sum(int((split[p[:, 0]] != split[p[:, 1]]).sum()) for p in both)
        found[f"pairs of {name} that cross"] = crossing
    keys, crossing = _crossing(np.concatenate(links), split[np.concatenate(owners)])
    found["groups and parents checked"] = keys
    found["groups and parents that cross"] = crossing
    return found


def _codes(path: Path) -> Codes:
    names = {name: at + 1 for at, name in enumerate(SPLITS)}
    parts: list[Codes] = [np.empty(0, np.uint8)]
    for table in records.groups(path, ("split",)):
        values: Iterable[str | None] = table.column(0).to_pylist()
        parts.append(np.array([names.get(v or "", 0) for v in values], np.uint8))
    return np.concatenate(parts)


def _owners(folder: Path, read: Sequence[str], sizes: Sequence[int]) -> list[NDArray[np.int64]]:
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    return [
        sketch_of(folder, unit, "link_rows").astype(np.int64) + start
        for unit, start in zip(read, starts.tolist(), strict=False)
    ]


def _crossing(links: NDArray[np.uint64], split: Codes) -> tuple[int, int]:
    """How many keys two rows or more that stay share, and how many of them are in two parts."""
    links, split = links[split > 0], split[split > 0]
    order = np.argsort(links, kind="stable")
    links, split = links[order], split[order]
    same = links[1:] == links[:-1]
    torn = same & (split[1:] != split[:-1])
    return len(np.unique(links[1:][same])), len(np.unique(links[1:][torn]))
