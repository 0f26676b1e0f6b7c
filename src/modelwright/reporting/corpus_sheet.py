"""What augmentation does, to look at: a picture of views, or texts beside their origin."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from modelwright.data.augment.sheet import contact_sheet
from modelwright.data.corpus import records
from modelwright.data.corpus.augment import lines_of
from modelwright.errors import ModelwrightError
from modelwright.reporting.blocks import shorten
from modelwright.reporting.corpus_samples import masked

ROWS = 6  # originals on a sheet
LOOKED = 2000  # rows that are looked at for them
SHOWN = 300  # characters of a text


def sheets(folder: Path, spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(modality, data URI of a PNG) for the pictures and sounds that were augmented.

    Args:
        folder: the corpus.
        spec: its description; without ``augment`` there are none.
    """
    if not spec.get("augment"):
        return []
    found: dict[str, list[dict[str, Any]]] = {"image": [], "audio": []}
    for row in _rows(folder, "write"):
        mine = found.get(row["modality"])
        if mine is not None and row["split"] == "train" and len(mine) < ROWS:
            mine.append(row)
    drawn = []
    for modality, some in found.items():
        if not some:
            continue
        with tempfile.TemporaryDirectory() as place:
            try:
                _, lines = lines_of(spec["augment"])
                path = contact_sheet(
                    some, lines, Path(place) / "sheet.png", seed=int(spec.get("seed") or 1)
                )
            except ModelwrightError:
                continue  # no transform is for this modality
            coded = base64.b64encode(path.read_bytes()).decode("ascii")
            drawn.append((modality, f"data:image/png;base64,{coded}"))
    return drawn


def texts(folder: Path) -> list[list[str]]:
    """[id, original, view] of a few augmented texts, personal data masked."""
    views = [r for r in _rows(folder, "augment") if r["text"] and r["parents"]][:ROWS]
    wanted = {view["parents"][0] for view in views}
    origins = {r["id"]: r["text"] for r in _rows(folder, "write") if r["id"] in wanted}
    return [
        [view["id"], *(shorten(masked(t), SHOWN) for t in (origins[parent], view["text"]))]
        for view in views
        if (parent := view["parents"][0]) in origins
    ]


def _rows(folder: Path, stage: str) -> list[dict[str, Any]]:
    """The first rows of a stage."""
    found: list[dict[str, Any]] = []
    for commit in sorted((folder / "stages" / stage).glob("*.json")):
        for path in sorted((commit.with_suffix("")).glob("rows-*.parquet")):
            found += islice(records.rows(path), LOOKED - len(found))
        if len(found) >= LOOKED:
            break
    return found
