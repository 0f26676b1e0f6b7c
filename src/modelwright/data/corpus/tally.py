"""What a unit counts while rows pass: ids, histograms of measures, and a few samples."""

from __future__ import annotations

import hashlib
import heapq
import json
import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

SAMPLES = 4  # of every kind in a unit; who reports takes the lowest keys of all units
SAMPLE_CHARS = 600
VALUES = 200  # different texts that are counted by name
_BINS = 50  # of the interval from 0 to 1; beyond it twenty a power of ten
_BLOCK = 20_000
_MASK = (1 << 64) - 1


def id_hash(id_: str) -> int:
    """64 bits of BLAKE2b of an id."""
    raw = id_.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")


class Ids:
    """A set of rows as a number and a sum of hashes: the same whatever their order."""

    def __init__(self) -> None:
        self.rows = self.total = 0

    def add(self, hashed: int) -> None:
        """Count a row by the hash of its id."""
        self.rows += 1
        self.total += hashed

    def facts(self) -> dict[str, Any]:
        """``rows`` and ``ids``, the sum modulo 2**64 as 16 hexadecimal digits."""
        return {"rows": self.rows, "ids": f"{self.total & _MASK:016x}"}


def summed(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The ``facts`` of several ``Ids`` together."""
    found = list(parts)
    total = sum(int(part["ids"], 16) for part in found) & _MASK
    return {"rows": sum(part["rows"] for part in found), "ids": f"{total:016x}"}


class Histograms:
    """Counts of every measure by bin, the same bins in every unit, so that units add up.

    A number from 0 to 1 falls into one of 50 equal bins; any other by its power of ten, twenty
    to one. Texts are counted by value. Lists and numbers that are not finite are left out.
    """

    def __init__(self) -> None:
        self._held: dict[str, array[float]] = {}
        self._bins: dict[str, Counter[float]] = {}
        self._ends: dict[str, list[float]] = {}
        self._values: dict[str, Counter[str]] = {}

    def add(self, name: str, value: Any) -> None:
        """Count one measure of one row."""
        if isinstance(value, str):
            self._values.setdefault(name, Counter())[value] += 1
        elif isinstance(value, int | float) and math.isfinite(value):
            held = self._held.setdefault(name, array("d"))
            held.append(value)
            if len(held) >= _BLOCK:
                self._bin(name)

    def _bin(self, name: str) -> None:
        values = np.frombuffer(self._held.pop(name))
        edges, counts = np.unique(lower_edges(values), return_counts=True)
        kept = self._bins.setdefault(name, Counter())
        for edge, count in zip(edges.tolist(), counts.tolist(), strict=True):
            kept[edge] += count
        low, high, total = float(values.min()), float(values.max()), math.fsum(values.tolist())
        ends = self._ends.setdefault(name, [low, high, 0.0])
        ends[:] = min(ends[0], low), max(ends[1], high), ends[2] + total

    def facts(self) -> dict[str, Any]:
        """Name -> {"bins": {lower edge: count}, "min", "max", "sum"} or {"values": {text: n}}."""
        for name in list(self._held):
            self._bin(name)
        found: dict[str, Any] = {}
        for name, bins in sorted(self._bins.items()):
            low, high, total = self._ends[name]
            edges = {f"{edge:g}": bins[edge] for edge in sorted(bins)}
            found[name] = {"bins": edges, "min": low, "max": high, "sum": total}
        for name, counts in sorted(self._values.items()):
            ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
            shown = dict(ranked[:VALUES])
            rest = sum(count for _, count in ranked[VALUES:])
            found.setdefault(name, {})["values"] = shown | ({"(others)": rest} if rest else {})
        return found


def lower_edges(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, Any]:
    """The lower edge of the bin of every value, rounded to 4 digits."""
    inner = (values >= 0) & (values <= 1)
    size = np.where(inner, 1.0, np.maximum(np.abs(values), 1e-9))
    steps = np.floor(np.log10(size) * 20 + 1e-9)
    outer = np.sign(values) * 10 ** ((steps + (values < 0)) / 20)
    edges = np.where(inner, np.floor(values * _BINS + 1e-9) / _BINS, outer)
    scale = 10.0 ** (np.floor(np.log10(np.maximum(np.abs(edges), 1e-9))) - 3)
    found: np.ndarray[Any, Any] = np.round(np.round(edges / scale) * scale, 10)
    return found


class Samples:
    """A few rows of every kind, chosen by a key, so that any order gives the same ones."""

    def __init__(self) -> None:
        self._heaps: dict[str, list[tuple[float, int, str]]] = {}

    def wants(self, kind: str, key: float) -> bool:
        """Whether a row of this key would be among those kept."""
        heap = self._heaps.get(kind, [])
        return len(heap) < SAMPLES or -key > heap[0][0]

    def add(self, kind: str, key: float, hashed: int, sample: dict[str, Any]) -> None:
        """Keep a sample; lower keys win. ``hashed`` decides between equal ones."""
        heap = self._heaps.setdefault(kind, [])
        heapq.heappush(heap, (-key, -hashed, json.dumps(sample)))
        if len(heap) > SAMPLES:
            heapq.heappop(heap)

    def facts(self) -> list[dict[str, Any]]:
        """The samples with ``kind`` and ``key``, by kind and key."""
        return [
            {"kind": kind, "key": -key} | json.loads(sample)
            for kind, heap in sorted(self._heaps.items())
            for key, _, sample in sorted(heap, key=lambda held: (-held[0], -held[1]))
        ]
