"""On which side of the split every row is: by components, so that nothing connected is torn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwright.data.corpus.sketch import SPLITS, Rows, Wanted
from modelwright.kernels.shingles import Hashes, mix


def assign(settings: Wanted, roots: Rows, names: Hashes, sides: NDArray[Any]) -> NDArray[np.uint8]:
    """The side of every row, as an index of ``SPLITS``.

    * group, random: by the hash of the component;
    * stratified: components in the order of their hash, each to the side that lacks its labels
      most, so that every side has its share of every label;
    * time: the components that end last are test, those before validation;
    * given: as the rows say.

    With ``folds``, the hash makes folds, ``fold`` is test and validation is cut from the rest.
    """
    if settings.by == "given":
        return sides.astype(np.uint8)
    unique, index, counts = np.unique(roots, return_inverse=True, return_counts=True)
    hashes = mix(names[unique] ^ mix(np.full(len(unique), settings.seed, np.uint64)))
    if settings.by == "time":
        return _by_time(settings, index, counts, hashes, sides)[index]
    if settings.by == "stratified" and settings.folds is None:
        return _stratified(settings, index, hashes, sides)[index]
    chance = hashes.astype(np.float64) / 2.0**64
    side = np.zeros(len(unique), np.uint8)
    if settings.folds is not None:
        test = (hashes % np.uint64(settings.folds)) == settings.fold - 1
        again = mix(hashes).astype(np.float64) / 2.0**64
        side[again < settings.validation] = SPLITS.index("validation")
        side[test] = SPLITS.index("test")
        return side[index]
    side[chance < settings.validation + settings.test] = SPLITS.index("validation")
    side[chance < settings.test] = SPLITS.index("test")
    return side[index]


def _by_time(
    settings: Wanted,
    index: Rows,
    counts: Rows,
    hashes: Hashes,
    times: NDArray[np.float64],
) -> NDArray[np.uint8]:
    """A component is as late as its latest row."""
    latest = np.full(len(counts), -np.inf)
    np.maximum.at(latest, index, times)
    order = np.lexsort((hashes, latest))[::-1]
    before = np.cumsum(counts[order]) - counts[order]
    rows = counts.sum()
    side = np.zeros(len(counts), np.uint8)
    for name, share in (
        ("validation", settings.test + settings.validation),
        ("test", settings.test),
    ):
        side[order[before < np.rint(share * rows)]] = SPLITS.index(name)
    return side


def _stratified(
    settings: Wanted, index: Rows, hashes: Hashes, labels: NDArray[np.uint64]
) -> NDArray[np.uint8]:
    """Each component to the side that is furthest below its share of the component's labels."""
    _, label = np.unique(labels, return_inverse=True)
    kinds = int(label.max()) + 1 if len(label) else 0
    share = np.array([1 - settings.validation - settings.test, settings.validation, settings.test])
    wanted_rows = np.outer(share, np.bincount(label, minlength=kinds))
    filled = np.zeros_like(wanted_rows)
    order = np.argsort(index, kind="stable")
    cuts = np.searchsorted(index[order], np.arange(len(hashes) + 1))
    side = np.zeros(len(hashes), np.uint8)
    for component in np.argsort(hashes, kind="stable").tolist():
        members = label[order[cuts[component] : cuts[component + 1]]]
        kind, count = np.unique(members, return_counts=True)
        need = wanted_rows[:, kind] - filled[:, kind]
        lack = (need * count).sum(axis=1) / np.maximum(1e-9, share)  # relative to the side's size
        lack[share <= 0] = -np.inf
        side[component] = int(lack.argmax())
        filled[side[component], kind] += count
    return side
