"""The rows that a corpus's report shows as examples, with personal data masked in any case."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelwright.data.corpus.spec import named
from modelwright.data.corpus.steps import make_operation
from modelwright.data.pii.mask import USUAL, Finder, fixed
from modelwright.errors import ModelwrightError
from modelwright.reporting.record import mapping, number, text

SAMPLES = 20  # of every kind, over all units
NEAREST = 10  # samples of kind borderline

_FINDER = Finder(frozenset(USUAL), private=True)


def masked(value: Any) -> Any:
    """A JSON value with what is personal in its texts masked."""
    if isinstance(value, str):
        return _FINDER.mask(value, fixed)[0]
    if isinstance(value, dict):
        return {k: masked(v) for k, v in value.items()}
    if isinstance(value, list):
        return [masked(v) for v in value]
    return value


def samples(folder: Path, read: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The samples of lowest key of every kind, masked."""
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for unit in read:
        path = folder / "stages" / "read" / unit["unit"] / "samples.jsonl"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        for line in lines:
            try:
                said = mapping(json.loads(line))
            except ValueError:
                continue
            by_kind.setdefault(text(said.get("kind")), []).append(said)
    chosen = []
    for kind in sorted(by_kind, key=lambda k: (k.startswith("dropped"), k != "kept", k)):
        ranked = sorted(
            by_kind[kind], key=lambda s: (number(s.get("key")) or 0.0, text(s.get("id")))
        )
        most = NEAREST if kind == "borderline" else SAMPLES
        chosen += [masked(sample) for sample in ranked[:most]]
    return chosen


def limits(spec: Mapping[str, Any]) -> dict[str, list[float]]:
    """Measure -> the values at which a step decides.

    A step says them itself with a method ``limits``; else a setting ``min_x`` or ``max_x`` that
    is a number bounds the measure "step.x".
    """
    found: dict[str, list[float]] = {}
    for step in spec.get("steps") or ():
        try:
            name, settings = named(step)
            made = make_operation(name, settings)
        except (ModelwrightError, ValueError, TypeError):
            continue  # of another version; the page does without its limits
        own = getattr(made, "limits", None)
        if callable(own):
            for measure, values in own().items():
                found.setdefault(measure, []).extend(values)
            continue
        for field in dataclasses.fields(made):  # type: ignore[arg-type]
            value = number(getattr(made, field.name))
            end, _, measure = field.name.partition("_")
            if value is not None and end in ("min", "max") and measure:
                found.setdefault(f"{name}.{measure}", []).append(value)
    return found


def nearest(listed: Sequence[dict[str, Any]], bounds: Mapping[str, Sequence[float]]) -> None:
    """Say of the samples that a step called borderline which limit it is that is near."""
    for sample in listed:
        if sample.get("kind") == "borderline" and (gap := _gap(sample, bounds)) is not None:
            sample["near"] = gap[1]


def _gap(
    sample: Mapping[str, Any], bounds: Mapping[str, Sequence[float]]
) -> tuple[float, str] | None:
    """The least distance to a limit, relative to the limit, and which one it is."""
    measured = mapping(sample.get("attributes"))
    gaps = [
        (abs(value - limit) / abs(limit), f"borderline: {name} near {limit:g}")
        for name, limits_ in bounds.items()
        for limit in limits_
        if limit and (value := number(measured.get(name))) is not None
    ]
    return min(gaps, default=None)


def borderline(
    listed: Sequence[Mapping[str, Any]], bounds: Mapping[str, Sequence[float]]
) -> list[dict[str, Any]]:
    """Of the kept samples those nearest to a limit, by the difference relative to the limit."""
    ranked = []
    for sample in listed:
        if sample.get("kind") != "kept":
            continue
        if (gap := _gap(sample, bounds)) is not None:
            ranked.append((*gap, text(sample.get("id")), dict(sample)))
    ranked.sort(key=lambda r: r[:3])
    return [sample | {"kind": "borderline", "near": why} for _, why, _, sample in ranked[:NEAREST]]
