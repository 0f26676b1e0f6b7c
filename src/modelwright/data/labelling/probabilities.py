"""A model's own probabilities, from a file that the user names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwright.data import formats
from modelwright.data.labelling.errors import check_probabilities
from modelwright.errors import ModelwrightError, did_you_mean

Floats = NDArray[np.float64]


def read_probabilities(path: Path, ids: Sequence[str], labels: Sequence[str]) -> Floats:
    """Probabilities (rows, labels) in the order of ``ids`` and ``labels``.

    A ``.npy`` file holds just that array. JSON Lines hold ``{"id": ..., "probabilities":
    {label: p}}`` in any order, with a line for each row; labels left out have probability 0.

    Raises:
        ModelwrightError: the file is missing, another shape, lacks a row, or names an unknown
            label; says which.
    """
    if not path.is_file():
        raise ModelwrightError(f"{path}: no such file of probabilities; correct the path")
    if path.suffix == ".npy":
        array = formats.array_file(path, path.name)
        if array.dtype.kind != "f":
            raise ModelwrightError(f"{path}: holds {array.dtype}, floats are meant; save those")
        return check_probabilities(array.astype(np.float64), len(ids), len(labels), str(path))
    number = {label: i for i, label in enumerate(labels)}
    place = {row: i for i, row in enumerate(ids)}
    found = np.full((len(ids), len(labels)), np.nan)
    for line, record in enumerate(formats.json_lines(path, path.name), start=1):
        where = f"{path}: record {line}"
        row = place.get(str(record["id"]))
        if row is not None:  # rows that are not asked about may stand in the file
            found[row] = _shares(record.get("probabilities"), number, where)
    lacking = np.flatnonzero(np.isnan(found[:, 0]))
    if len(lacking):
        raise ModelwrightError(
            f"{path}: {len(lacking)} of {len(ids)} rows have no probabilities, such as"
            f" {ids[int(lacking[0])]!r}; predict all rows of the source"
        )
    return check_probabilities(found, len(ids), len(labels), str(path))


def _shares(value: Any, number: dict[str, int], where: str) -> Floats:
    if not isinstance(value, dict) or not value:
        raise ModelwrightError(
            f'{where}: no \'probabilities\'; write {{"id": "...", "probabilities": {{"pos": 0.9}}}}'
        )
    shares = np.zeros(len(number))
    for label, share in value.items():
        if label not in number:
            raise ModelwrightError(
                f"{where}: label {label!r} is not known{did_you_mean(label, number)};"
                f" known: {', '.join(number)}"
            )
        if not isinstance(share, (int, float)) or isinstance(share, bool):
            raise ModelwrightError(f"{where}: the probability of {label!r} is no number")
        shares[number[label]] = share
    return shares
